use alloy::{
    primitives::{Address, Bytes, U256, address},
    providers::{Provider, ProviderBuilder, ext::AnvilApi},
};
use assay_bindings::{
    BeaconConfig, CorToken, DeployConfig, Deployment, DeploymentError, Parameters, Session,
    SessionQueue, deploy,
};

use crate::anvil::Anvil;

#[tokio::test]
async fn contracts_are_deployed_and_know_one_another() {
    let anvil = Anvil::start();
    let provider = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap());
    let accounts = provider.get_accounts().await.unwrap();
    let deployer = accounts[0];
    let config = DeployConfig::development();

    let first = deploy(&provider, deployer, &config).await.unwrap();
    assert_eq!(first.chain_id, 31337);
    first.verify(&provider).await.unwrap();
    let held = CorToken::new(first.token, &provider).balanceOf(deployer).call().await.unwrap();
    assert_eq!(held, U256::from(config.supply));
    let parameters = Parameters::new(first.parameters, &provider);
    let terms = parameters.sessionTermsOf(1).call().await.unwrap();
    assert_eq!(terms.minerBps, config.session.miner_bps);
    let queue = SessionQueue::new(first.queue, &provider);
    let domain = assay_types::domain(first.chain_id, first.queue).separator();
    assert_eq!(queue.DOMAIN_SEPARATOR().call().await.unwrap(), domain);

    // The same again finds what is there, and costs nothing.
    let nonce = provider.get_transaction_count(deployer).await.unwrap();
    assert_eq!(deploy(&provider, deployer, &config).await.unwrap(), first);
    assert_eq!(provider.get_transaction_count(deployer).await.unwrap(), nonce);

    // Another owner's stands elsewhere, and one of its addresses among the first's is noticed.
    let second = deploy(&provider, accounts[1], &config).await.unwrap();
    let mixed = Deployment { payment: second.payment, ..first.clone() };
    let error = mixed.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::WrongWiring { .. }), "{error}");
    let empty = Deployment { beacon: Address::repeat_byte(1), ..first.clone() };
    let error = empty.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::NoCode { contract: "RandomBeacon", .. }), "{error}");
    let other = Deployment { chain_id: 1, ..first.clone() };
    let error = other.verify(&provider).await.unwrap_err();
    assert!(matches!(error, DeploymentError::WrongChain { expected: 1, got: 31337 }), "{error}");

    let sessions = Session::new(first.sessions, &provider);
    assert_eq!(sessions.sessionCount().call().await.unwrap(), 0);
}

#[tokio::test]
async fn a_deployment_that_was_refused_goes_on_and_says_why() {
    let anvil = Anvil::start();
    let provider = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap());
    let deployer = provider.get_accounts().await.unwrap()[0];
    // A session closes before the longest request could end: the constructor's words come through.
    let mut broken = DeployConfig::development();
    broken.session.notice_period_s = 300;
    let error = deploy(&provider, deployer, &broken).await.unwrap_err().to_string();
    let refusal = "Parameters could not be deployed: Parameters_OutOfBounds(name: ";
    assert!(error.starts_with(refusal) && error.contains("value: 300"), "{error}");

    // Two contracts stand already; the third is refused again, and they are not made twice.
    let nonce = provider.get_transaction_count(deployer).await.unwrap();
    let again = deploy(&provider, deployer, &broken).await.unwrap_err().to_string();
    assert_eq!(again, error);
    assert_eq!(provider.get_transaction_count(deployer).await.unwrap(), nonce);

    let mut large = DeployConfig::development();
    large.session.settle_delay_s = 1 << 24;
    let error = deploy(&provider, deployer, &large).await.unwrap_err().to_string();
    assert!(error.contains("settle_delay_s is \"16777216\""), "{error}");
}

#[tokio::test]
async fn a_chain_without_the_deterministic_deployer_is_named() {
    let anvil = Anvil::start();
    let provider = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap());
    let deployer = provider.get_accounts().await.unwrap()[0];
    let factory = address!("4e59b44847b379578588920ca78fbf26c0b4956c");
    provider.anvil_set_code(factory, Bytes::new()).await.unwrap();
    let error = deploy(&provider, deployer, &DeployConfig::development()).await.unwrap_err();
    assert!(matches!(error, DeploymentError::NoFactory { .. }), "{error}");
}

#[test]
fn a_deployment_is_written_as_json_and_toml() {
    let deployment = Deployment::predict(31337, Address::repeat_byte(7));
    let json = serde_json::to_string(&deployment).unwrap();
    assert_eq!(serde_json::from_str::<Deployment>(&json).unwrap(), deployment);
    let text = toml::to_string(&deployment).unwrap();
    assert_eq!(toml::from_str::<Deployment>(&text).unwrap(), deployment);
    assert_eq!(deployment.token, Address::repeat_byte(7).create(1));
}

#[test]
fn a_configuration_is_written_as_toml() {
    let mut config = DeployConfig::development();
    config.beacon = BeaconConfig::Drand { max_drift_s: 60 };
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("supply = \"1000000000000000000000000000\""), "{text}");
    assert_eq!(toml::from_str::<DeployConfig>(&text).unwrap(), config);
    let wrong = text.replace("\"1000000000000000000000000000\"", "\"much\"");
    let error = toml::from_str::<DeployConfig>(&wrong).unwrap_err().to_string();
    assert!(error.contains("is no amount"), "{error}");
}
