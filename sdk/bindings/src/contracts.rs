//! One module per contract, from the committed ABI and bytecode.
//!
//! A struct that several interfaces share has one Rust type in each module: name it by the contract
//! that you call, e.g. `SessionQueue::TaskRequest`. Solidity's value types (`SessionId`, `NodeId`, ...)
//! are their plain integers or words here.
#![allow(missing_docs, clippy::too_many_arguments, clippy::too_many_lines)]

use alloy::sol;

sol!(
    #[sol(rpc, all_derives)]
    CorToken,
    "artifacts/CorToken.json"
);
sol!(
    #[sol(rpc, all_derives)]
    Parameters,
    "artifacts/Parameters.json"
);
sol!(
    #[sol(rpc, all_derives)]
    ModelRegistry,
    "artifacts/ModelRegistry.json"
);
sol!(
    #[sol(rpc, all_derives)]
    NodeStats,
    "artifacts/NodeStats.json"
);
sol!(
    #[sol(rpc, all_derives)]
    NodePool,
    "artifacts/NodePool.json"
);
sol!(
    #[sol(rpc, all_derives)]
    Session,
    "artifacts/Session.json"
);
sol!(
    #[sol(rpc, all_derives)]
    SessionQueue,
    "artifacts/SessionQueue.json"
);
sol!(
    #[sol(rpc, all_derives)]
    SessionPayment,
    "artifacts/SessionPayment.json"
);
sol!(
    #[sol(rpc, all_derives)]
    ProofOfInference,
    "artifacts/ProofOfInference.json"
);
sol!(
    #[sol(rpc, all_derives)]
    ProofOfInferenceJudgement,
    "artifacts/ProofOfInferenceJudgement.json"
);
sol!(
    #[sol(rpc, all_derives)]
    ProofOfInferencePanel,
    "artifacts/ProofOfInferencePanel.json"
);
sol!(
    #[sol(rpc, all_derives)]
    RandomBeacon,
    "artifacts/RandomBeacon.json"
);
sol!(
    #[sol(rpc, all_derives)]
    BlockhashBeacon,
    "artifacts/BlockhashBeacon.json"
);
sol!(
    #[sol(rpc, all_derives)]
    DrandBeacon,
    "artifacts/DrandBeacon.json"
);
sol!(
    #[sol(rpc, all_derives)]
    Deployer,
    "artifacts/Deployer.json"
);
