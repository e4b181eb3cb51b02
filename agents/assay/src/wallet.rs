//! Single transactions of the command line. Agents, which must survive a crash, use the outbox instead.

use std::time::Duration;

use alloy::{
    network::{EthereumWallet, TransactionBuilder},
    primitives::{Address, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
    transports::{RpcError, TransportErrorKind},
};
use anyhow::{Context, Error, Result, anyhow, ensure};
use assay_bindings::{CorToken, Deployment, SessionPayment, decode_revert};
use assay_chain::Chain;

use crate::amount::cor;

/// Pause between two looks for a receipt: a fraction of the block time of fast chains.
const RECEIPT_POLL: Duration = Duration::from_millis(200);

/// A key connected to the chain.
pub struct Wallet {
    pub chain: Chain,
    provider: DynProvider,
    address: Address,
}

impl Wallet {
    /// Connects to one endpoint, or to several with commas between them, and checks chain and contracts.
    pub async fn connect(
        rpc_url: &str,
        deployment: Deployment,
        signer: PrivateKeySigner,
    ) -> Result<Self> {
        let chain = Chain::connect(rpc_url, deployment).await?;
        let address = signer.address();
        chain.provider.client().set_poll_interval(RECEIPT_POLL);
        let provider = ProviderBuilder::new()
            .wallet(EthereumWallet::from(signer))
            .connect_provider(chain.provider.clone())
            .erased();
        Ok(Self { chain, provider, address })
    }

    pub fn address(&self) -> Address {
        self.address
    }

    /// Sends one call and waits for its receipt; a revert comes back in words.
    pub async fn send<C: SolCall>(&self, to: Address, call: C) -> Result<TransactionReceipt> {
        let transaction = TransactionRequest::default().with_to(to).with_input(call.abi_encode());
        // Without the types, which nobody wants to read in an error.
        let name = C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE);
        let pending = match self.provider.send_transaction(transaction).await {
            Ok(pending) => pending,
            Err(error) => return Err(self.explain(name, error).await),
        };
        let receipt = pending.get_receipt().await.context("the receipt cannot be had")?;
        ensure!(
            receipt.status(),
            "transaction {} of {} was mined and failed",
            receipt.transaction_hash,
            name
        );
        Ok(receipt)
    }

    async fn explain(&self, name: &str, error: RpcError<TransportErrorKind>) -> Error {
        if let Some(data) = error.as_error_resp().and_then(|payload| payload.as_revert_data()) {
            let reason = decode_revert(&data).unwrap_or_else(|| format!("with data {data}"));
            return anyhow!("the contract refused {name}: {reason}");
        }
        let balance = self.provider.get_balance(self.address).await.unwrap_or(U256::MAX);
        if balance.is_zero() {
            return anyhow!(
                "account {} has no money for gas: send it some of the chain's coin",
                self.address
            );
        }
        Error::new(error).context(format!("{name} could not be sent"))
    }

    /// Lets `SessionPayment` take `amount` COR, after checking that the account has it.
    pub async fn allow_payment(&self, amount: U256) -> Result<()> {
        let deployment = self.chain.deployment.clone();
        let token = CorToken::new(deployment.token, &self.provider);
        let balance = token.balanceOf(self.address).call().await?;
        ensure!(
            balance >= amount,
            "account {} has {} and needs {}: send it {} more",
            self.address,
            cor(balance),
            cor(amount),
            cor(amount.saturating_sub(balance))
        );
        if token.allowance(self.address, deployment.payment).call().await? < amount {
            let call = CorToken::approveCall { spender: deployment.payment, value: amount };
            self.send(deployment.token, call).await?;
        }
        Ok(())
    }

    /// What the contracts owe to this key in an asset, moved to `to`; 0 if there is nothing.
    pub async fn withdraw(&self, asset: u8, to: Address) -> Result<U256> {
        let address = self.chain.deployment.payment;
        let payment = SessionPayment::new(address, &self.provider);
        let amount = payment.balanceOf(self.address, asset).call().await?;
        if !amount.is_zero() {
            self.send(address, SessionPayment::withdrawCall { asset, to, amount }).await?;
        }
        Ok(amount)
    }
}
