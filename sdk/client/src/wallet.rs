//! Transactions of a client: by the agents' outbox, which sends again what a chain loses, with its memory in this process
//! alone.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use alloy::{
    primitives::{Address, U256},
    rpc::types::TransactionReceipt,
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use assay_bindings::{CorToken, Deployment, SessionPayment};
use assay_chain::{Chain, Database, Intent, Outbox, OutboxError};
use tokio_util::sync::CancellationToken;

use crate::{ClientError, Network, Reader};

/// A key connected to the chain.
pub struct Wallet {
    /// The chain.
    pub chain: Chain,
    pub(crate) signer: PrivateKeySigner,
    outbox: Outbox,
    /// Calls so far: each is a transaction of its own.
    calls: AtomicU32,
}

/// A network with a key that pays in it.
pub struct Client {
    /// What needs no key.
    pub reader: Reader,
    /// The key.
    pub wallet: Wallet,
    /// The next nonce of each lane that this client has signed requests for.
    pub(crate) nonces: Mutex<HashMap<(u64, u32), u64>>,
}

impl Client {
    /// Connects a key to a network, and checks that its chain and contracts are there.
    ///
    /// # Errors
    /// If they are not, or the address of the content store is none.
    pub async fn connect(network: &Network, signer: PrivateKeySigner) -> Result<Self, ClientError> {
        let wallet = Wallet::connect(&network.rpc_url, network.deployment.clone(), signer).await?;
        let reader = Reader::on(wallet.chain.clone(), network)?;
        Ok(Self { reader, wallet, nonces: Mutex::default() })
    }

    /// Whose key it is.
    pub fn address(&self) -> Address {
        self.wallet.address()
    }
}

impl Wallet {
    /// Connects to one endpoint, or to several with commas between them, and checks chain and contracts.
    ///
    /// # Errors
    /// If no endpoint answers, or another chain does.
    pub async fn connect(
        rpc_url: &str,
        deployment: Deployment,
        signer: PrivateKeySigner,
    ) -> Result<Self, ClientError> {
        let chain = Chain::connect(rpc_url, deployment).await?;
        let outbox = Outbox::new(chain.clone(), signer.clone(), Database::in_memory()?)
            .await
            .map_err(|source| ClientError::NotSent { call: "the first transaction", source })?;
        Ok(Self { chain, signer, outbox, calls: AtomicU32::new(0) })
    }

    /// Whose key it is.
    pub fn address(&self) -> Address {
        self.outbox.address()
    }

    /// Sends one call and waits until it is mined; a revert comes back in words.
    ///
    /// # Errors
    /// If the contract refuses, the account cannot pay the gas, or the chain is away.
    pub async fn send<C: SolCall>(
        &self,
        to: Address,
        call: C,
    ) -> Result<TransactionReceipt, ClientError> {
        // Without the types, which nobody wants to read in an error.
        let name = C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE);
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let intent = Intent::call(format!("{name}:{number}"), to, call.abi_encode());
        let sent = tokio::select! {
            sent = self.outbox.send(intent) => sent,
            // It mends what a reorganisation does to the nonces before ours, which an earlier program may have used.
            Err(error) = self.outbox.clone().run(CancellationToken::new()) => Err(error),
        };
        sent.map_err(|error| match error {
            OutboxError::Reverted { reason, tx_hash: None, .. } => {
                ClientError::Refused { call: name, reason }
            }
            OutboxError::Reverted { reason, tx_hash: Some(transaction), .. } => {
                ClientError::Failed { call: name, transaction, reason }
            }
            source => ClientError::NotSent { call: name, source },
        })
    }

    /// Lets `SessionPayment` take so many minor units of COR, after checking that the account has them.
    ///
    /// # Errors
    /// If it has too little, or the transaction fails.
    pub async fn allow_payment(&self, amount: U256) -> Result<(), ClientError> {
        let deployment = self.chain.deployment.clone();
        let token = CorToken::new(deployment.token, &self.chain.provider);
        let (account, balance) = (self.address(), token.balanceOf(self.address()).call().await?);
        if balance < amount {
            return Err(ClientError::TooLittle { account, balance, needed: amount });
        }
        if token.allowance(account, deployment.payment).call().await? < amount {
            let call = CorToken::approveCall { spender: deployment.payment, value: amount };
            self.send(deployment.token, call).await?;
        }
        Ok(())
    }

    /// What the contracts owe to this key in an asset, moved to `to`; minor units, 0 if there is nothing.
    ///
    /// # Errors
    /// If the transaction fails.
    pub async fn withdraw(&self, asset: u8, to: Address) -> Result<U256, ClientError> {
        let address = self.chain.deployment.payment;
        let payment = SessionPayment::new(address, &self.chain.provider);
        let amount = payment.balanceOf(self.address(), asset).call().await?;
        if !amount.is_zero() {
            self.send(address, SessionPayment::withdrawCall { asset, to, amount }).await?;
        }
        Ok(amount)
    }
}
