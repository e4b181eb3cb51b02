//! `assay balance` and `assay claim`.

use alloy::{primitives::U256, providers::Provider};
use anyhow::Result;
use assay_bindings::{CorToken, SessionPayment};
use assay_client::{cor, ether};
use serde_json::json;

use super::{reader, session::COR_ASSET, writer};
use crate::{
    args::{BalanceArgs, ClaimArgs, Global},
    keys, ui,
};

pub async fn show(global: &Global, args: BalanceArgs) -> Result<()> {
    let (_, chain) = reader(global).await?;
    let address = match args.address {
        Some(address) => address,
        None => keys::open(&args.key, global.data.as_deref(), "client")?.address(),
    };
    let gas = chain.provider.get_balance(address).await?;
    let token = CorToken::new(chain.deployment.token, &chain.provider);
    let held = token.balanceOf(address).call().await?;
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let claimable = payment.balanceOf(address, COR_ASSET).call().await?;
    let value = json!({
        "address": address,
        "gas": gas.to_string(),
        "cor": held.to_string(),
        "claimable": claimable.to_string(),
    });
    ui::show(global.json, &value, |_| {
        format!(
            "{address}\n  gas        {}\n  COR        {}\n  claimable  {} (with `assay claim`)",
            ether(gas),
            cor(held),
            cor(claimable)
        )
    })
}

pub async fn claim(global: &Global, args: ClaimArgs) -> Result<()> {
    let (_, wallet) = writer(global, &args.key, "client").await?;
    let to = args.to.unwrap_or_else(|| wallet.address());
    let payment = SessionPayment::new(wallet.chain.deployment.payment, &wallet.chain.provider);
    let mut claimed = Vec::new();
    for asset in 0..payment.assetCount().call().await? {
        let token = payment.tokenOf(asset).call().await?;
        let amount = wallet.withdraw(asset, to).await?;
        claimed.push(json!({"asset": asset, "token": token, "amount": amount.to_string()}));
    }
    let value = json!({"account": wallet.address(), "to": to, "claimed": claimed});
    ui::show(global.json, &value, |_| {
        let lines: Vec<String> = claimed
            .iter()
            .filter(|row| row["amount"] != "0")
            .map(|row| {
                let amount = row["amount"].as_str().unwrap_or_default();
                match row["asset"] == COR_ASSET {
                    true => cor(amount.parse::<U256>().unwrap_or_default()),
                    false => format!("{amount} minor units of the token {}", row["token"]),
                }
            })
            .collect();
        match lines.is_empty() {
            true => format!("the contracts owe nothing to {}", wallet.address()),
            false => format!("{} went from the contracts to {to}", lines.join(", ")),
        }
    })
}
