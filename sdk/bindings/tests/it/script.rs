//! `script/Deploy.s.sol` and [`deploy`] put the same contracts to the same addresses.

use std::{path::PathBuf, process::Command};

use alloy::{
    network::EthereumWallet,
    primitives::{Address, B256, keccak256},
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use assay_bindings::{DeployConfig, Deployment, DeploymentFile, deploy};

use crate::anvil::{Anvil, repository};

/// anvil's first account, which has money on every anvil.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// EIP-170: the largest code of a contract.
const MAX_CODE_BYTES: usize = 24_576;

/// A deployment file where forge may write, away from the committed one.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = repository("contracts/cache/deployments");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("test-{}.toml", std::process::id()));
        std::fs::copy(repository("script/deployments/31337.toml"), &path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn read(&self) -> DeploymentFile {
        toml::from_str(&std::fs::read_to_string(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run_script(url: &str, file: &Scratch) {
    let output = Command::new(repository("script/forge"))
        .args(["script", "script/Deploy.s.sol", "--rpc-url", url, "--private-key", KEY])
        // One transaction at a time: they are more than fit into a block, and anvil, which mines when one comes, leaves
        // what did not fit in its pool for ever.
        .args(["--broadcast", "--non-interactive", "--slow"])
        .env("ASSAY_DEPLOYMENT", &file.0)
        .current_dir(repository(""))
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
}

async fn connect(anvil: &Anvil) -> (DynProvider, Address) {
    let signer: PrivateKeySigner = KEY.parse().unwrap();
    let owner = signer.address();
    let wallet = EthereumWallet::from(signer);
    let provider = ProviderBuilder::new().wallet(wallet).connect(&anvil.url).await.unwrap();
    (provider.erased(), owner)
}

/// Hash of the code of each contract, which has the addresses of others in it.
async fn codes(provider: &DynProvider, deployment: &Deployment) -> Vec<(&'static str, B256)> {
    let mut codes = Vec::new();
    // The queue creates its second half itself.
    let end = ("SessionQueueEnd", deployment.queue.create(1));
    for (contract, address) in deployment.named().into_iter().chain([end]) {
        let code = provider.get_code_at(address).await.unwrap();
        assert!(!code.is_empty(), "{contract}");
        assert!(code.len() <= MAX_CODE_BYTES, "{contract} has {} bytes", code.len());
        codes.push((contract, keccak256(code)));
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn forge_and_rust_deploy_the_same_to_the_same_addresses() {
    let (with_forge, with_rust) = (Anvil::start(), Anvil::start());
    let file = Scratch::new();
    assert_eq!(
        file.read(),
        DeploymentFile { config: DeployConfig::development(), contracts: None }
    );

    run_script(&with_forge.url, &file);
    let scripted = file.read();
    assert_eq!(
        scripted.config,
        DeployConfig::development(),
        "the script changed the configuration"
    );
    let scripted = scripted.contracts.expect("the script wrote no addresses");

    let (provider, owner) = connect(&with_rust).await;
    let deployed = deploy(&provider, owner, &DeployConfig::development()).await.unwrap();
    assert_eq!(scripted, deployed);
    let (forge_provider, _) = connect(&with_forge).await;
    scripted.verify(&forge_provider).await.unwrap();
    assert_eq!(codes(&forge_provider, &scripted).await, codes(&provider, &deployed).await);

    // Each finds what the other one deployed, and sends nothing.
    let sent = forge_provider.get_transaction_count(owner).await.unwrap();
    let again = deploy(&forge_provider, owner, &DeployConfig::development()).await.unwrap();
    assert_eq!(again, scripted);
    assert_eq!(forge_provider.get_transaction_count(owner).await.unwrap(), sent);
    let sent = provider.get_transaction_count(owner).await.unwrap();
    run_script(&with_rust.url, &file);
    assert_eq!(file.read().contracts, Some(deployed));
    assert_eq!(provider.get_transaction_count(owner).await.unwrap(), sent);
}
