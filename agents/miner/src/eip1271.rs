//! Signatures of accounts that are contracts.

use std::future::IntoFuture;

use alloy::{
    contract::Error,
    primitives::{Address, B256},
    sol_types::SolCall,
};
use assay_chain::Chain;
use assay_types::Signature;

use crate::ledger::{LedgerError, READ_TIMEOUT};

/// What a contract may spend on checking a signature: as much as `SessionQueue` gives it.
const MAX_CHECK_GAS: u64 = 250_000;

alloy::sol! {
    /// A contract that signs.
    #[sol(rpc)]
    interface IERC1271 {
        function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
    }
}

/// Whether an account is a contract that says that it has signed this hash.
pub(crate) async fn is_signed(
    chain: &Chain,
    by: Address,
    (hash, signature): (B256, &Signature),
) -> Result<bool, LedgerError> {
    let failed = |reason: String| LedgerError { call: "isValidSignature", reason };
    let account = IERC1271::new(by, &chain.provider);
    let asked = account.isValidSignature(hash, signature.as_bytes().into()).gas(MAX_CHECK_GAS);
    match tokio::time::timeout(READ_TIMEOUT, asked.call().into_future()).await {
        Ok(Ok(word)) => Ok(word == IERC1271::isValidSignatureCall::SELECTOR),
        Ok(Err(Error::TransportError(error))) if !error.is_error_resp() => {
            Err(failed(error.to_string()))
        }
        // A key has no code to answer, and what reverts, runs out of gas or says something else did not sign.
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(failed(format!("no answer within {} s", READ_TIMEOUT.as_secs()))),
    }
}
