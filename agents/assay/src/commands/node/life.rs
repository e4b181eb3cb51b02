//! `assay node drain|resume|exit|withdraw`: how a node leaves, and with what.

use alloy::{primitives::U256, sol_types::SolCall};
use anyhow::{Result, ensure};
use assay_bindings::{NodePool, SessionPayment};
use assay_client::{Wallet, cor};
use serde_json::{Value, json};

use super::{check_exists, state_name, status};
use crate::{
    args::{Global, NodeChange, NodeWithdraw},
    commands::{head_time, reader, session::COR_ASSET, writer},
    keys::keyring,
    network::data_folder,
    ui,
};

/// Sends one call of the node's owner and shows what became of it.
pub async fn change(global: &Global, args: &NodeChange, call: impl SolCall) -> Result<()> {
    let account = owner_account(global, args.node).await?;
    let (network, wallet) = writer(global, &args.key, &account).await?;
    check_owner(&wallet, args.node).await?;
    wallet.send(wallet.chain.deployment.nodes, call).await?;
    status::show(global, &wallet.chain, network.start_block, args.node).await
}

/// The account of the folder that owns the node: what is used unless flags name a key.
pub(super) async fn owner_account(global: &Global, node: u32) -> Result<String> {
    let (_, chain) = reader(global).await?;
    check_exists(&chain, node).await?;
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let owner = pool.nodeOf(node).call().await?.owner;
    let keyring = keyring(&data_folder(global.data.as_deref())?);
    let own = keyring.into_iter().find(|(_, address)| *address == owner);
    Ok(own.map_or_else(|| "client".to_owned(), |(name, _)| name))
}

pub(super) async fn check_owner(wallet: &Wallet, node: u32) -> Result<()> {
    let pool = NodePool::new(wallet.chain.deployment.nodes, &wallet.chain.provider);
    let owner = pool.nodeOf(node).call().await?.owner;
    ensure!(
        owner == wallet.address(),
        "node {node} belongs to {owner}, not to {}: name its owner's key with --keystore or --account",
        wallet.address()
    );
    Ok(())
}

/// Whatever can be had now; says what cannot, and when.
pub async fn withdraw(global: &Global, args: NodeWithdraw) -> Result<()> {
    let node_id = args.node;
    let account = owner_account(global, node_id).await?;
    let (_, wallet) = writer(global, &args.key, &account).await?;
    let chain = &wallet.chain;
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let (before, now) = (pool.nodeOf(node_id).call().await?, head_time(chain).await?);
    let stake = payment.stakeOf(node_id).call().await?;
    let bonded_until = before.exitAt.to::<u64>();
    let mut released = U256::ZERO;
    if state_name(before.state) == "exiting" && now >= bonded_until {
        let call = NodePool::releaseStakeCall { nodeId: node_id };
        wallet.send(chain.deployment.nodes, call).await?;
        released = stake;
    }
    let to = args.to.unwrap_or_else(|| wallet.address());
    let withdrawn = wallet.withdraw(COR_ASSET, to).await?;
    let value = json!({
        "node_id": node_id,
        "state": state_name(pool.nodeOf(node_id).call().await?.state),
        "stake_released": released.to_string(),
        "withdrawn": withdrawn.to_string(),
        "to": to,
        "still_bonded": (stake - released).to_string(),
        "bonded_until": bonded_until,
        "seconds_left": bonded_until.saturating_sub(now),
    });
    ui::show(global.json, &value, |value| describe(value, wallet.address().to_string()))
}

fn describe(value: &Value, account: String) -> String {
    let amount = |name: &str| -> U256 {
        value[name].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let state = value["state"].as_str().unwrap_or_default();
    let mut lines = vec![match amount("withdrawn") {
        U256::ZERO => format!("nothing is owed to {account} now"),
        some => format!("{} went to {}", cor(some), value["to"].as_str().unwrap_or_default()),
    }];
    if !amount("stake_released").is_zero() {
        lines.push(format!(
            "  the stake of node {} is free again: {}",
            value["node_id"],
            cor(amount("stake_released"))
        ));
    }
    let bonded = amount("still_bonded");
    if !bonded.is_zero() {
        let bonded = cor(bonded);
        lines.push(match state {
            "exiting" => format!(
                "  {bonded} of stake stay bonded for {} s more, until {} (unix seconds); call this again then",
                value["seconds_left"], value["bonded_until"]
            ),
            "draining" | "jailed" => format!(
                "  {bonded} of stake are bonded: `assay node exit` starts the unbonding once no session has reserved the node"
            ),
            _ => format!(
                "  {bonded} of stake are bonded while the node is {state}: `assay node drain`, then `exit`"
            ),
        });
    }
    lines.join("\n")
}
