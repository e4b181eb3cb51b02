//! What a transaction will cost, before it has a nonce.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::TxSignerSync;
use alloy::primitives::{Bytes, TxKind, U256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;

use super::broadcast::{Refusal, revert_reason};
use super::fees::Fees;
use super::{Inner, Intent, NewAttempt, OutboxError};

/// Gas on top of the estimate, in percent: other transactions that are mined first change what ours costs.
const GAS_MARGIN_PERCENT: u64 = 25;

/// All that is known before a nonce is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub gas_limit: u64,
    pub fees: Fees,
    /// Nonces used on the chain when it was made.
    pub count: u64,
}

impl Plan {
    pub(super) fn transaction(&self, intent: &Intent, nonce: u64, chain_id: u64) -> TxEip1559 {
        transaction(intent, nonce, chain_id, self.gas_limit, self.fees)
    }
}

pub(super) fn transaction(
    intent: &Intent,
    nonce: u64,
    chain_id: u64,
    gas_limit: u64,
    fees: Fees,
) -> TxEip1559 {
    TxEip1559 {
        chain_id,
        nonce,
        gas_limit,
        max_fee_per_gas: fees.max,
        max_priority_fee_per_gas: fees.tip,
        to: TxKind::Call(intent.to),
        value: intent.value,
        access_list: Default::default(),
        input: intent.data.clone(),
    }
}

impl Inner {
    /// Asks for gas, fees, balance and nonce side by side: one round trip.
    pub(super) async fn plan(&self, intent: &Intent) -> Result<Plan, OutboxError> {
        let address = self.signer.address();
        let balance = self.chain.provider.get_balance(address);
        let (gas, fees, balance, count) = tokio::join!(
            self.estimate(intent),
            self.fees(),
            self.chain.call("eth_getBalance", balance.into_future()),
            self.count(),
        );
        let (fees, balance, count) = (fees?, balance?, count?);
        let gas_limit = match gas {
            Ok(gas) => {
                gas.saturating_add(gas / 100 * GAS_MARGIN_PERCENT).saturating_add(intent.spare_gas)
            }
            // The node does not say how much; the value is what is known.
            Err(OutboxError::Unfunded { .. }) => {
                return Err(OutboxError::Unfunded { address, needed: intent.value, balance });
            }
            Err(error) => return Err(error),
        };
        let needed =
            intent.value.saturating_add(U256::from(gas_limit).saturating_mul(U256::from(fees.max)));
        if balance < needed {
            return Err(OutboxError::Unfunded { address, needed, balance });
        }
        Ok(Plan { gas_limit, fees, count })
    }

    /// Gas of an intent, or its revert, decoded.
    pub(super) async fn estimate(&self, intent: &Intent) -> Result<u64, OutboxError> {
        let request = self.request(intent);
        let estimate =
            crate::provider::timed(self.chain.provider.estimate_gas(request).into_future());
        let source = match estimate.await {
            Ok(gas) => return Ok(gas),
            Err(source) => source,
        };
        if let Some(reason) = revert_reason(&source) {
            return Err(OutboxError::Reverted { key: intent.key.clone(), reason, tx_hash: None });
        }
        if Refusal::of(&source) == Refusal::Unfunded {
            let (address, zero) = (self.signer.address(), U256::ZERO);
            return Err(OutboxError::Unfunded { address, needed: zero, balance: zero });
        }
        Err(self.chain.rpc_error("eth_estimateGas", source).into())
    }

    pub(super) fn request(&self, intent: &Intent) -> TransactionRequest {
        TransactionRequest {
            from: Some(self.signer.address()),
            to: Some(TxKind::Call(intent.to)),
            value: Some(intent.value),
            input: intent.data.clone().into(),
            ..Default::default()
        }
    }

    /// `empty` if it only uses up the nonce of an intent that is given up.
    pub(super) fn sign(&self, mut tx: TxEip1559, empty: bool) -> Result<NewAttempt, OutboxError> {
        let signature = self.signer.sign_transaction_sync(&mut tx)?;
        let (nonce, fees) =
            (tx.nonce, Fees { max: tx.max_fee_per_gas, tip: tx.max_priority_fee_per_gas });
        let envelope: TxEnvelope = tx.into_signed(signature).into();
        Ok(NewAttempt {
            hash: *envelope.tx_hash(),
            raw: Bytes::from(envelope.encoded_2718()),
            nonce,
            fees,
            empty,
        })
    }
}
