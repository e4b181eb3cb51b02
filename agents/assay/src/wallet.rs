//! Transactions of the command line: by the agents' outbox, which sends again what a chain loses, with its memory in this
//! process alone.

use std::sync::atomic::{AtomicU32, Ordering};

use alloy::{
    primitives::{Address, U256},
    rpc::types::TransactionReceipt,
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use anyhow::{Result, anyhow, ensure};
use assay_bindings::{CorToken, Deployment, SessionPayment};
use assay_chain::{Chain, Database, Intent, Outbox, OutboxError};
use tokio_util::sync::CancellationToken;

use crate::amount::cor;

/// A key connected to the chain.
pub struct Wallet {
    pub chain: Chain,
    outbox: Outbox,
    /// Calls so far: each is a transaction of its own.
    calls: AtomicU32,
}

impl Wallet {
    /// Connects to one endpoint, or to several with commas between them, and checks chain and contracts.
    pub async fn connect(
        rpc_url: &str,
        deployment: Deployment,
        signer: PrivateKeySigner,
    ) -> Result<Self> {
        let chain = Chain::connect(rpc_url, deployment).await?;
        let outbox = Outbox::new(chain.clone(), signer, Database::in_memory()?).await?;
        Ok(Self { chain, outbox, calls: AtomicU32::new(0) })
    }

    pub fn address(&self) -> Address {
        self.outbox.address()
    }

    /// Sends one call and waits until it is mined; a revert comes back in words.
    pub async fn send<C: SolCall>(&self, to: Address, call: C) -> Result<TransactionReceipt> {
        // Without the types, which nobody wants to read in an error.
        let name = C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE);
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let intent = Intent::call(format!("{name}:{number}"), to, call.abi_encode());
        let sent = tokio::select! {
            sent = self.outbox.send(intent) => sent,
            // It mends what a reorganisation does to the nonces before ours, which an earlier command may have used.
            Err(error) = self.outbox.clone().run(CancellationToken::new()) => Err(error),
        };
        sent.map_err(|error| match error {
            OutboxError::Reverted { reason, tx_hash: None, .. } => {
                anyhow!("the contract refused {name}: {reason}")
            }
            OutboxError::Reverted { reason, tx_hash: Some(hash), .. } => {
                anyhow!("transaction {hash} of {name} was mined and failed: {reason}")
            }
            error => anyhow!(error).context(format!("{name} could not be sent")),
        })
    }

    /// Lets `SessionPayment` take `amount` COR, after checking that the account has it.
    pub async fn allow_payment(&self, amount: U256) -> Result<()> {
        let deployment = self.chain.deployment.clone();
        let token = CorToken::new(deployment.token, &self.chain.provider);
        let balance = token.balanceOf(self.address()).call().await?;
        ensure!(
            balance >= amount,
            "account {} has {} and needs {}: send it {} more",
            self.address(),
            cor(balance),
            cor(amount),
            cor(amount.saturating_sub(balance))
        );
        if token.allowance(self.address(), deployment.payment).call().await? < amount {
            let call = CorToken::approveCall { spender: deployment.payment, value: amount };
            self.send(deployment.token, call).await?;
        }
        Ok(())
    }

    /// What the contracts owe to this key in an asset, moved to `to`; 0 if there is nothing.
    pub async fn withdraw(&self, asset: u8, to: Address) -> Result<U256> {
        let address = self.chain.deployment.payment;
        let payment = SessionPayment::new(address, &self.chain.provider);
        let amount = payment.balanceOf(self.address(), asset).call().await?;
        if !amount.is_zero() {
            self.send(address, SessionPayment::withdrawCall { asset, to, amount }).await?;
        }
        Ok(amount)
    }
}
