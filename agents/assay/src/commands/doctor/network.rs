//! Checks that ask chain, content store and router.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy::{primitives::U256, providers::Provider, rpc::types::Filter, sol_types::SolEvent};
use assay_bindings::{CorToken, NodePool, SessionQueue};
use assay_chain::{Chain, ChainError, redact};
use assay_client::{cor, ether};
use assay_store::{ContentStore, KuboStore};

use super::{Patient, Said};
use crate::{
    commands::{head_time, node::status::standings},
    keys::keyring,
    network::Network,
};

/// Deadlines are checked by the chain's clock and met by ours: a session's shortest ones are some seconds.
const MAX_SKEW_S: u64 = 30;
/// A thousandth of a coin pays for some hundred tasks on cheap chains.
const LOW_GAS_WEI: U256 = U256::from_limbs([1_000_000_000_000_000, 0, 0, 0]);
/// Newest answers whose pins are looked at.
const PINS: usize = 16;
/// Blocks in which they are looked for.
const PIN_BLOCKS: u64 = 10_000;

const NO_NETWORK: &str = "no network is described";

pub async fn described(patient: &Patient) -> Said {
    let folder = patient.data.display();
    match &patient.network {
        Some(network) => Said::ok(format!("{folder}, chain {}", network.deployment.chain_id)),
        None => Said::failed(
            format!("no network is described in {folder}"),
            "start one with `assay up`, describe one with `assay deploy`, or name its folder with --data",
        ),
    }
}

/// Each endpoint by itself: one that is down hides behind the others otherwise.
pub async fn chain(patient: &Patient) -> Said {
    let Some(network) = &patient.network else { return Said::skipped(NO_NETWORK) };
    let expected = network.deployment.chain_id;
    let (mut good, mut bad) = (0, Vec::new());
    let urls: Vec<&str> = network.rpc_url.split(',').map(str::trim).collect();
    for url in &urls {
        match Chain::connect(url, network.deployment.clone()).await {
            Ok(_) | Err(ChainError::NoContracts { .. }) => good += 1,
            Err(error) => bad.push(error.to_string()),
        }
    }
    let remedy = "start the chain, or correct rpc_url in network.json";
    let names: Vec<String> = urls.into_iter().map(redact).collect();
    match (good, bad.is_empty()) {
        (_, true) => Said::ok(format!("chain {expected} answers at {}", names.join(", "))),
        (0, _) => Said::failed(bad.join("; "), remedy),
        _ => Said::warning(bad.join("; "), remedy),
    }
}

async fn connect(network: &Network) -> Result<Chain, Said> {
    Chain::connect(&network.rpc_url, network.deployment.clone())
        .await
        .map_err(|error| Said::failed(error.to_string(), "see the checks `chain` and `contracts`"))
}

/// The chain of a described network, or what to say instead.
macro_rules! connected {
    ($patient:expr) => {{
        let Some(network) = &$patient.network else { return Said::skipped(NO_NETWORK) };
        match connect(network).await {
            Ok(chain) => (network, chain),
            Err(said) => return said,
        }
    }};
}

pub async fn contracts(patient: &Patient) -> Said {
    let (_, chain) = connected!(patient);
    match chain.deployment.verify(&chain.provider).await {
        Ok(()) => Said::ok("all nine are there and know one another"),
        Err(error) => Said::failed(error.to_string(), "deploy again, or name the right network"),
    }
}

pub async fn clock(patient: &Patient) -> Said {
    let (_, chain) = connected!(patient);
    let head = match head_time(&chain).await {
        Ok(head) => head,
        Err(error) => return Said::failed(format!("{error:#}"), "see the check `chain`"),
    };
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if head > ours + MAX_SKEW_S {
        let detail = format!("the chain's clock is {} s ahead of this machine's", head - ours);
        return Said::failed(detail, "set this machine's clock, e.g. with NTP");
    }
    if ours > head + MAX_SKEW_S {
        let detail = format!("the newest block is {} s old by this machine's clock", ours - head);
        return Said::failed(
            detail,
            "set this machine's clock, e.g. with NTP; if it is right, the chain stands still",
        );
    }
    Said::ok(format!("{} s between the newest block and this machine", head.abs_diff(ours)))
}

pub async fn accounts(patient: &Patient) -> Said {
    let (_, chain) = connected!(patient);
    let keyring = keyring(&patient.data);
    if keyring.is_empty() {
        return Said::skipped("no keys in the folder: agents name theirs with --keystore");
    }
    let token = CorToken::new(chain.deployment.token, &chain.provider);
    let (mut all, mut poor) = (Vec::new(), Vec::new());
    for (name, address) in keyring {
        let balances = async {
            let gas = chain.provider.get_balance(address).await?;
            anyhow::Ok((gas, token.balanceOf(address).call().await?))
        };
        match balances.await {
            Ok((gas, coins)) => {
                all.push(format!("{name} {} and {}", ether(gas), cor(coins)));
                if gas < LOW_GAS_WEI {
                    poor.push(format!("{name} ({address}) has {} for gas", ether(gas)));
                }
            }
            Err(error) => return Said::failed(format!("{error:#}"), "see the check `chain`"),
        }
    }
    match poor.is_empty() {
        true => Said::ok(all.join(", ")),
        false => Said::failed(poor.join("; "), "send these accounts some of the chain's coin"),
    }
}

pub async fn nodes(patient: &Patient) -> Said {
    let (_, chain) = connected!(patient);
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let looked = async {
        let mut nodes = Vec::new();
        match patient.args.node {
            Some(node) => nodes.push(node),
            None => {
                for address in keyring(&patient.data).into_values() {
                    match pool.nodeByOperator(address).call().await? {
                        0 => {}
                        node => nodes.push(node),
                    }
                }
            }
        }
        nodes.sort_unstable();
        let (mut good, mut out) = (Vec::new(), Vec::new());
        for node in nodes {
            for standing in standings(&chain, node).await? {
                let line = format!("node {node}: {}", standing.reason);
                if standing.eligible { good.push(line) } else { out.push(line) }
            }
        }
        anyhow::Ok((good, out))
    };
    match looked.await {
        Ok((good, out)) if good.is_empty() && out.is_empty() => Said::skipped(
            "no key of the folder operates a node: register one with `assay node register`, or name one with --node",
        ),
        Ok((good, out)) if out.is_empty() => Said::ok(good.join("; ")),
        Ok((_, out)) => Said::warning(out.join("; "), "`assay node status <node>` tells more"),
        Err(error) => Said::failed(format!("{error:#}"), "name a node that exists with --node"),
    }
}

pub async fn store(patient: &Patient) -> Said {
    let Some(network) = &patient.network else { return Said::skipped(NO_NETWORK) };
    let version = match KuboStore::new(&network.ipfs_url) {
        Ok(store) => store.health().await,
        Err(error) => Err(error),
    };
    match version {
        Ok(version) => Said::ok(format!("{version} at {}", network.ipfs_url)),
        Err(error) => Said::failed(
            error.to_string(),
            "start the content store, or correct ipfs_url in network.json",
        ),
    }
}

/// What was answered lately is still there.
pub async fn pins(patient: &Patient) -> Said {
    let (network, chain) = connected!(patient);
    let looked = async {
        let head = chain.provider.get_block_number().await?;
        let filter = Filter::new()
            .from_block(head.saturating_sub(PIN_BLOCKS).max(network.start_block.min(head)))
            .address(chain.deployment.queue)
            .event_signature(SessionQueue::TaskCommitted::SIGNATURE_HASH);
        let store = KuboStore::new(&network.ipfs_url)?;
        let (mut count, mut missing) = (0, Vec::new());
        for log in chain.provider.get_logs(&filter).await?.iter().rev().take(PINS) {
            let event = log.log_decode::<SessionQueue::TaskCommitted>()?;
            count += 1;
            if !store.is_pinned(event.inner.outputDigest).await? {
                missing.push(event.inner.taskId.to_string());
            }
        }
        anyhow::Ok((count, missing))
    };
    match looked.await {
        Ok((0, _)) => Said::skipped("no task was answered lately"),
        Ok((count, missing)) if missing.is_empty() => {
            Said::ok(format!("the {count} newest answers are pinned"))
        }
        Ok((count, missing)) => Said::warning(
            format!("{} of {count} answers are not pinned: {}", missing.len(), missing.join(", ")),
            "answers of other stores are not pinned here; if they are yours, the store lost them",
        ),
        Err(error) => Said::failed(format!("{error:#}"), "see the checks `chain` and `store`"),
    }
}

pub async fn router(patient: &Patient) -> Said {
    let Some(network) = &patient.network else { return Said::skipped(NO_NETWORK) };
    let Some(url) = &network.http_url else {
        return Said::skipped("the network names no router");
    };
    match reqwest::get(format!("{url}/v1/models")).await {
        Ok(response) if response.status().is_success() => Said::ok(format!("answers at {url}")),
        Ok(response) => Said::failed(
            format!("{url} answers {}", response.status()),
            "look at the router's log, or correct http_url in network.json",
        ),
        Err(error) => Said::failed(
            format!("nobody answers at {url}: {error}"),
            "start the router (`assay up` has one), or correct http_url in network.json",
        ),
    }
}
