//! Puts the contracts on a chain, at addresses that the deployer's key, this software and the configuration decide.

use alloy::{
    network::Ethereum,
    primitives::{Address, B256, Bytes, U256, address, b256, keccak256},
    providers::Provider,
    rpc::types::TransactionRequest,
    sol_types::{SolConstructor, SolValue},
};

use crate::{
    BlockhashBeacon, CorToken, Deployer, Deployment, DeploymentError, DrandBeacon, ModelRegistry,
    NodePool, NodeStats, Parameters, ProofOfInference, ProofOfInferenceJudgement,
    ProofOfInferencePanel, Session, SessionPayment, SessionQueue,
    config::{BeaconConfig, DeployConfig, seconds},
};

/// Creates a contract at an address that its code and a salt decide, on every chain alike: the deterministic deployment
/// proxy that Foundry, Safe and others use.
const FACTORY: Address = address!("4e59b44847b379578588920ca78fbf26c0b4956c");

/// What is deployed: init codes in the order of their creation, and where they will stand.
struct Plan {
    deployer: Address,
    deployer_code: Bytes,
    salt: B256,
    at: Deployment,
    codes: [Bytes; 12],
}

/// drand's `evmnet`, as drand publishes it.
const EVMNET_GENESIS_S: u64 = 1_727_521_075;
const EVMNET_PERIOD_S: u64 = 3;
const EVMNET_KEY: [B256; 4] = [
    b256!("07e1d1d335df83fa98462005690372c643340060d205306a9aa8106b6bd0b382"),
    b256!("0557ec32c2ad488e4d4f6008f89a346f18492092ccc0d594610de2732c8b808f"),
    b256!("0095685ae3a85ba243747b1b2f426049010f6b73a0cf1d389351d5aaaa1047f6"),
    b256!("297d3a4f9749b33eb2d904c9d9ebf17224150ddd7abd7567a9bec6c74480ee0b"),
];

impl Plan {
    fn new(chain_id: u64, owner: Address, config: &DeployConfig) -> Result<Self, DeploymentError> {
        let deployer_code =
            joined(&Deployer::BYTECODE, Deployer::constructorCall { owner_: owner });
        let salt = salt(owner, config)?;
        let deployer = FACTORY.create2_from_code(salt, &deployer_code);
        let at = Deployment::predict(chain_id, deployer);
        let codes = creations(&at, owner, config)?;
        Ok(Self { deployer, deployer_code, salt, at, codes })
    }
}

fn joined(bytecode: &Bytes, arguments: impl SolConstructor) -> Bytes {
    [bytecode.as_ref(), &arguments.abi_encode()].concat().into()
}

/// The same owner, software and configuration give the same addresses on every chain, and others other ones.
fn salt(owner: Address, config: &DeployConfig) -> Result<B256, DeploymentError> {
    let codes = [
        &CorToken::BYTECODE,
        beacon_code(config),
        &Parameters::BYTECODE,
        &ModelRegistry::BYTECODE,
        &NodeStats::BYTECODE,
        &SessionPayment::BYTECODE,
        &NodePool::BYTECODE,
        &Session::BYTECODE,
        &SessionQueue::BYTECODE,
        &ProofOfInferencePanel::BYTECODE,
        &ProofOfInferenceJudgement::BYTECODE,
        &ProofOfInference::BYTECODE,
    ];
    let codes = codes.map(keccak256);
    let fixed = (
        config.token_holder.unwrap_or(owner),
        config.governor.unwrap_or(owner),
        U256::from(config.supply),
        U256::from(config.parameters_delay_s),
        U256::from(config.draw_window_s),
        U256::from(config.longest_audit_s),
        U256::from(config.max_royalty_bps),
        U256::from(config.epoch_length_s),
        U256::from(config.level_period_s),
        U256::from(max_drift(config)),
        config.tokens(Address::ZERO),
    );
    let hashes = (
        keccak256(codes.abi_encode()),
        keccak256((keccak256(fixed.abi_encode_params()), config.proof()?).abi_encode()),
        keccak256(config.terms()?.abi_encode()),
    );
    Ok(keccak256(hashes.abi_encode()))
}

/// Seconds; 0 without drand.
fn max_drift(config: &DeployConfig) -> u64 {
    match config.beacon {
        BeaconConfig::Blockhash => 0,
        BeaconConfig::Drand { max_drift_s } => max_drift_s,
    }
}

fn beacon_code(config: &DeployConfig) -> &'static Bytes {
    match config.beacon {
        BeaconConfig::Blockhash => &BlockhashBeacon::BYTECODE,
        BeaconConfig::Drand { .. } => &DrandBeacon::BYTECODE,
    }
}

fn beacon_init_code(config: &DeployConfig) -> Bytes {
    match config.beacon {
        BeaconConfig::Blockhash => BlockhashBeacon::BYTECODE.clone(),
        BeaconConfig::Drand { max_drift_s } => {
            let network_ = DrandBeacon::DrandNetwork {
                publicKey: EVMNET_KEY.map(|word| U256::from_be_bytes(word.0)),
                genesis: EVMNET_GENESIS_S,
                period: EVMNET_PERIOD_S,
            };
            let arguments = DrandBeacon::constructorCall { network_, maxDrift_: max_drift_s };
            joined(&DrandBeacon::BYTECODE, arguments)
        }
    }
}

/// Creation codes of all contracts, in the order of [`Deployment::named`], for contracts that will stand at `at`.
///
/// # Errors
/// If a number of the configuration does not fit the contracts' types.
pub fn creations(
    at: &Deployment,
    owner: Address,
    config: &DeployConfig,
) -> Result<[Bytes; 12], DeploymentError> {
    let parameters = Parameters::Config {
        governor: config.governor.unwrap_or(owner),
        delay: seconds("parameters_delay_s", config.parameters_delay_s)?,
        drawWindow: seconds("draw_window_s", config.draw_window_s)?,
        longestAudit: seconds("longest_audit_s", config.longest_audit_s)?,
        maxRoyaltyBps: config.max_royalty_bps,
    };
    let stats = NodeStats::Config {
        epochLength: seconds("epoch_length_s", config.epoch_length_s)?,
        levelPeriod: seconds("level_period_s", config.level_period_s)?,
    };
    let token = CorToken::constructorCall {
        holder: config.token_holder.unwrap_or(owner),
        supply: U256::from(config.supply),
    };
    let payment = SessionPayment::constructorCall {
        wiring: SessionPayment::Wiring {
            pool: at.nodes,
            proof: at.proof,
            queue: at.queue,
            session: at.sessions,
        },
        assets: config.tokens(at.token),
    };
    let nodes = NodePool::Wiring {
        session: at.sessions,
        queue: at.queue,
        models: at.models,
        payment: at.payment,
        stats: at.stats,
        parameters: at.parameters,
        proof: at.proof,
    };
    let sessions = Session::Wiring {
        beacon: at.beacon,
        models: at.models,
        parameters: at.parameters,
        payment: at.payment,
        pool: at.nodes,
    };
    let queue = SessionQueue::Wiring {
        beacon: at.beacon,
        models: at.models,
        parameters: at.parameters,
        payment: at.payment,
        pool: at.nodes,
        proof: at.proof,
        session: at.sessions,
        stats: at.stats,
    };
    let models = ModelRegistry::Wiring { parameters: at.parameters, pool: at.nodes };
    let counters = NodeStats::Wiring { queue: at.queue };
    let [panel, judgement, proof] = proof_creations(at, config.proof()?);
    Ok([
        joined(&CorToken::BYTECODE, token),
        beacon_init_code(config),
        joined(
            &Parameters::BYTECODE,
            Parameters::constructorCall { config: parameters, first: config.terms()? },
        ),
        joined(&ModelRegistry::BYTECODE, ModelRegistry::constructorCall { wiring: models }),
        joined(
            &NodeStats::BYTECODE,
            NodeStats::constructorCall { wiring: counters, config: stats },
        ),
        joined(&SessionPayment::BYTECODE, payment),
        joined(&NodePool::BYTECODE, NodePool::constructorCall { wiring: nodes }),
        joined(&Session::BYTECODE, Session::constructorCall { wiring: sessions }),
        joined(&SessionQueue::BYTECODE, SessionQueue::constructorCall { wiring: queue }),
        panel,
        judgement,
        proof,
    ])
}

/// Creation codes of `ProofOfInferencePanel`, `ProofOfInferenceJudgement` and `ProofOfInference`, which must have been made
/// for the same contracts and tunables.
pub fn proof_creations(at: &Deployment, config: ProofOfInference::ProofConfig) -> [Bytes; 3] {
    let wiring = ProofOfInference::ProofWiring {
        beacon: at.beacon,
        models: at.models,
        parameters: at.parameters,
        payment: at.payment,
        pool: at.nodes,
        queue: at.queue,
        stats: at.stats,
    };
    // Each contract's module has a type of its own for the same struct; their encoding is one.
    let shared = (wiring.clone(), config.clone()).abi_encode_params();
    let panel = [ProofOfInferencePanel::BYTECODE.as_ref(), &shared].concat().into();
    let judgement = [ProofOfInferenceJudgement::BYTECODE.as_ref(), &shared].concat().into();
    let arguments = ProofOfInference::constructorCall {
        wiring,
        config_: config,
        panel: at.panel,
        judgement: at.judgement,
    };
    [panel, judgement, joined(&ProofOfInference::BYTECODE, arguments)]
}

/// Deploys the contracts from `owner`, whose key the provider (or the node behind it) must have, and verifies them.
/// What an earlier call deployed with the same owner, software and configuration is found again: one that was
/// interrupted goes on, one that was complete changes nothing. `owner` must send nothing else meanwhile.
///
/// # Errors
/// If the chain refuses, lacks the deterministic deployer, or the contracts are not wired as they should be.
pub async fn deploy<P: Provider<Ethereum>>(
    provider: &P,
    owner: Address,
    config: &DeployConfig,
) -> Result<Deployment, DeploymentError> {
    let plan = Plan::new(provider.get_chain_id().await?, owner, config)?;
    if provider.get_code_at(FACTORY).await?.is_empty() {
        return Err(DeploymentError::NoFactory { address: FACTORY });
    }
    if provider.get_code_at(plan.deployer).await?.is_empty() {
        let input = [plan.salt.as_slice(), &plan.deployer_code].concat();
        send(provider, "Deployer", owner, (FACTORY, input.into())).await?;
    }
    let deployer = Deployer::new(plan.deployer, provider);
    let next = deployer.next().call().await.map_err(|error| DeploymentError::Call {
        contract: "Deployer",
        address: plan.deployer,
        source: Box::new(error),
    })?;
    for ((number, code), (contract, _)) in (1_u64..).zip(&plan.codes).zip(plan.at.named()) {
        if U256::from(number) >= next {
            let call = deployer.create(U256::from(number), code.clone());
            send(provider, contract, owner, (plan.deployer, call.calldata().clone())).await?;
        }
    }
    plan.at.verify(provider).await?;
    Ok(plan.at)
}

async fn send<P: Provider<Ethereum>>(
    provider: &P,
    contract: &'static str,
    from: Address,
    (to, input): (Address, Bytes),
) -> Result<(), DeploymentError> {
    let refused = |reason| DeploymentError::Creation { contract, reason };
    let transaction = TransactionRequest::default().from(from).to(to).input(input.into());
    let pending = provider.send_transaction(transaction).await;
    let receipt = pending.map_err(|error| refused(reason_of(&error)))?.get_receipt().await;
    let receipt = receipt.map_err(|error| refused(error.to_string()))?;
    if receipt.status() { Ok(()) } else { Err(refused("its constructor reverted".to_owned())) }
}

/// The contract's own words if the node passed them on, else the node's.
fn reason_of(error: &alloy::transports::TransportError) -> String {
    error
        .as_error_resp()
        .and_then(|response| response.as_revert_data())
        .and_then(|data| crate::decode_revert(&data))
        .unwrap_or_else(|| error.to_string())
}
