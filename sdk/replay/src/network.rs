//! What the contracts' constructors fixed, as the replayed contracts tell it.

use alloy::consensus::Header;
use alloy::primitives::Address;
use alloy::sol_types::SolCall;
use assay_bindings::{
    Deployment, DrandBeacon, NodeStats, Parameters, ProofOfInference, SessionPayment,
};
use assay_evm::Replay;
use assay_protocol::Network;
use assay_protocol::beacon::{Beacon, Drand};
use assay_protocol::level::LevelClock;

use crate::relay::Relay;

fn ask<C: SolCall>(replay: &Replay, header: &Header, to: Address, call: &C) -> Option<C::Return> {
    let answer = replay.call(header, to, call.abi_encode().into()).ok()?;
    C::abi_decode_returns(&answer).ok()
}

/// What the contracts' constructors fixed, as their views tell it in this state, and drand's relay if rounds are drand's;
/// `None` while one does not answer.
pub(crate) fn network(
    replay: &Replay,
    header: &Header,
    deployment: &Deployment,
) -> Option<(Network, Option<Relay>)> {
    let (parameters, stats) = (deployment.parameters, deployment.stats);
    let delay = ask(replay, header, parameters, &Parameters::delayCall {})?;
    let window = ask(replay, header, parameters, &Parameters::drawWindowCall {})?;
    let audit = ask(replay, header, parameters, &Parameters::longestAuditCall {})?;
    let royalty = ask(replay, header, parameters, &Parameters::maxRoyaltyBpsCall {})?;
    let assets = ask(replay, header, deployment.payment, &SessionPayment::assetCountCall {})?;
    let period = ask(replay, header, stats, &NodeStats::levelPeriodCall {})?;
    let epoch = ask(replay, header, stats, &NodeStats::epochLengthCall {})?;
    let proof = ask(replay, header, deployment.proof, &ProofOfInference::configCall {})?;
    let beacon = deployment.beacon;
    // Only a drand's has a drift.
    let drift = ask(replay, header, beacon, &DrandBeacon::maxDriftCall {});
    let (beacon, relay) = match drift {
        Some(max_drift_s) => {
            let drand = ask(replay, header, beacon, &DrandBeacon::networkCall {})?;
            let (genesis_s, period_s) = (drand.genesis, drand.period);
            let rounds = Drand { genesis_s, period_s, max_drift_s };
            (Beacon::Drand(rounds), Relay::new(drand, rounds))
        }
        None => (Beacon::Blockhash, None),
    };
    let network = Network {
        deployment: deployment.clone(),
        proposal_delay_s: delay.to(),
        draw_window_s: window.to(),
        longest_audit_s: audit.to(),
        max_royalty_bps: royalty,
        assets,
        clock: LevelClock { period_s: period.to(), epoch_s: epoch.to() },
        proof,
        beacon,
    };
    Some((network, relay))
}
