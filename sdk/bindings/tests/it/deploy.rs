use alloy::{
    primitives::{Address, U256},
    providers::{Provider, ProviderBuilder},
};
use assay_bindings::{
    CorToken, DeployConfig, Deployment, DeploymentError, Session, SessionQueue, deploy,
};

use crate::anvil::Anvil;

#[tokio::test]
async fn contracts_are_deployed_and_know_one_another() {
    let anvil = Anvil::start();
    let provider = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap());
    let deployer = provider.get_accounts().await.unwrap()[0];
    let config = DeployConfig::development();

    let first = deploy(&provider, deployer, &config).await.unwrap();
    assert_eq!(first.chain_id, 31337);
    first.verify(&provider).await.unwrap();
    let held = CorToken::new(first.token, &provider).balanceOf(deployer).call().await.unwrap();
    assert_eq!(held, U256::from(config.supply));
    let queue = SessionQueue::new(first.queue, &provider);
    assert_eq!(queue.minerBps().call().await.unwrap(), config.miner_bps);
    let domain = assay_types::domain(first.chain_id, first.queue).separator();
    assert_eq!(queue.DOMAIN_SEPARATOR().call().await.unwrap(), domain);

    // A second deployment stands elsewhere, and one of its addresses among the first's is noticed.
    let second = deploy(&provider, deployer, &config).await.unwrap();
    assert_ne!(first, second);
    let mixed = Deployment { payment: second.payment, ..first.clone() };
    let error = mixed.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::WrongWiring { .. }), "{error}");
    let empty = Deployment { beacon: Address::repeat_byte(1), ..first.clone() };
    let error = empty.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::NoCode { contract: "RandomBeacon", .. }), "{error}");
    let other = Deployment { chain_id: 1, ..first.clone() };
    let error = other.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::WrongChain { expected: 1, got: 31337 }), "{error}");

    // A session closes before the longest request could end: the constructor's words come through.
    let broken = DeployConfig { notice_period_s: 300, ..config };
    let error = deploy(&provider, deployer, &broken).await.unwrap_err().to_string();
    assert!(
        error.contains("SessionQueue_DeadlineTooLong(maxDeadline: 300, noticePeriod: 300)"),
        "{error}"
    );

    let sessions = Session::new(first.sessions, &provider);
    assert_eq!(sessions.sessionCount().call().await.unwrap(), 0);
}

#[test]
fn a_deployment_is_written_as_json_and_toml() {
    let deployment = Deployment::predict(31337, Address::repeat_byte(7), 3);
    let json = serde_json::to_string(&deployment).unwrap();
    assert_eq!(serde_json::from_str::<Deployment>(&json).unwrap(), deployment);
    let text = toml::to_string(&deployment).unwrap();
    assert_eq!(toml::from_str::<Deployment>(&text).unwrap(), deployment);
    assert_eq!(deployment.token, Address::repeat_byte(7).create(3));
    assert!(toml::from_str::<Deployment>(&format!("{text}\nowner = 1")).is_err());
}
