//! Transactions that nobody signs, in the name of any account.

use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256};
use alloy::rpc::types::TransactionRequest;
use assay_evm::{CallAt, impersonate};

use super::blocks::SUGGESTED_TIP;
use super::{Answer, Context, Module, Must, heavy, quick};
use crate::error::{DevnetError, RpcError};
use crate::node::Inner;

/// Accounts that can be impersonated at once.
const MAX_IMPERSONATED: usize = 4096;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    quick(module, "anvil_impersonateAccount", |node, (Must(address),): (Must<Address>,)| {
        let mut inner = node.write();
        if inner.impersonated.len() >= MAX_IMPERSONATED {
            return Err(RpcError::limit(format!("at most {MAX_IMPERSONATED} are impersonated")));
        }
        inner.impersonated.insert(address);
        Ok(())
    })?;
    quick(module, "anvil_stopImpersonatingAccount", |node, (Must(address),): (Must<Address>,)| {
        node.write().impersonated.remove(&address);
        Ok(())
    })?;
    quick(module, "anvil_autoImpersonateAccount", |node, (Must(on),): (Must<bool>,)| {
        node.write().impersonate_all = on;
        Ok(())
    })?;
    heavy(module, "eth_sendTransaction", send)?;
    Ok(())
}

fn send(node: &Context, (Must(request),): (Must<TransactionRequest>,)) -> Answer<B256> {
    let mut inner = node.write();
    let from = request.from.ok_or_else(|| RpcError::params("the transaction has no 'from'"))?;
    if !inner.impersonate_all && !inner.impersonated.contains(&from) {
        return Err(RpcError::server(format!(
            "this node has no key of {from}: sign the transaction, or anvil_impersonateAccount first"
        )));
    }
    let at = CallAt::Pending(node.block_time(&inner));
    let request = fill(&inner, request, from, at)?;
    let tx = request
        .build_typed_tx()
        .map_err(|_| RpcError::params("the fields of the transaction fit to no type"))?;
    node.submit_locked(&mut inner, impersonate(tx, from))
}

/// Completes a request as a wallet does.
fn fill(
    inner: &Inner,
    mut request: TransactionRequest,
    from: Address,
    at: CallAt,
) -> Answer<TransactionRequest> {
    request.chain_id.get_or_insert(inner.chain.chain_id());
    if request.nonce.is_none() {
        request.nonce = Some(inner.pool.pending_nonce(&from, inner.chain.nonce(&from)));
    }
    if request.to.is_none() {
        request.set_create();
    }
    if request.gas.is_none() {
        request.gas = Some(inner.chain.estimate_gas(&request, at, None)?);
    }
    if request.gas_price.is_none() {
        let tip = *request.max_priority_fee_per_gas.get_or_insert(SUGGESTED_TIP);
        let base_fee = u128::from(inner.chain.next_base_fee());
        request.max_fee_per_gas.get_or_insert(2 * base_fee + tip);
    }
    Ok(request)
}
