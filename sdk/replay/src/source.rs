//! Blocks with their receipts from an RPC that is not trusted.

use std::future::Future;
use std::ops::RangeInclusive;

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Header, proofs};
use alloy::eips::eip2718::Encodable2718;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, Bytes, keccak256};
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::{
    Block, EIP1186AccountProofResponse, TransactionInput, TransactionReceipt, TransactionRequest,
};
use alloy::transports::TransportError;
use assay_evm::SignedTx;
use futures::{Stream, StreamExt};

use crate::error::AuditError;

/// Blocks that are fetched side by side: enough to hide the round trip, and no flood.
const FETCH_WINDOW: usize = 16;

/// A block with its receipts, as an RPC gave it and as it is.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The header, as it was told.
    pub header: Header,
    /// Its hash, as it was told.
    pub told_hash: B256,
    /// Its hash.
    pub hash: B256,
    /// Root of the transactions.
    pub transactions_root: B256,
    /// The transactions, with the senders who signed them.
    pub transactions: Vec<SignedTx>,
    /// Places of those that nobody signed whose sender is told all the same, or whose hash or sender is another than
    /// was told.
    pub unsigned: Vec<usize>,
    /// The receipts, as they were told.
    pub receipts: Vec<TransactionReceipt>,
}

/// Where blocks come from.
#[derive(Clone, Debug)]
pub struct Source {
    provider: DynProvider,
}

impl Source {
    /// Reads through this provider, which bounds the size and the time of answers.
    pub const fn new(provider: DynProvider) -> Self {
        Self { provider }
    }

    /// The provider.
    pub const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    /// Number of the newest block.
    ///
    /// # Errors
    /// [`AuditError::Rpc`].
    pub async fn head(&self) -> Result<u64, AuditError> {
        rpc("eth_blockNumber", self.provider.get_block_number()).await
    }

    /// What the node calls itself, e.g. `anvil/v1.7.1`.
    ///
    /// # Errors
    /// [`AuditError::Rpc`].
    pub async fn client_version(&self) -> Result<String, AuditError> {
        rpc("web3_clientVersion", self.provider.get_client_version()).await
    }

    /// The blocks of a range in order, some fetched ahead. `None` for one that the RPC lacks, or whose receipts it
    /// lacks.
    pub fn blocks(
        &self,
        range: RangeInclusive<u64>,
    ) -> impl Stream<Item = (u64, Result<Option<Fetched>, AuditError>)> + '_ {
        futures::stream::iter(range)
            .map(async |number| (number, self.block(number).await))
            .buffered(FETCH_WINDOW)
    }

    /// One block; `None` if the RPC lacks it or its receipts.
    ///
    /// # Errors
    /// [`AuditError::Rpc`], [`AuditError::Stopped`].
    pub async fn block(&self, number: u64) -> Result<Option<Fetched>, AuditError> {
        let block = self.provider.get_block_by_number(BlockNumberOrTag::Number(number)).full();
        let Some(block) = rpc("eth_getBlockByNumber", block.into_future()).await? else {
            return Ok(None);
        };
        let mut receipts = Vec::new();
        if !block.transactions.is_empty() {
            let told = self.provider.get_block_receipts(BlockId::hash(block.header.hash));
            let Some(told) = rpc("eth_getBlockReceipts", told).await? else { return Ok(None) };
            receipts = told;
        }
        // Recovering senders takes longer than everything else here.
        let checked = tokio::task::spawn_blocking(move || Fetched::from_told(block, receipts));
        checked.await.map(Some).map_err(|error| AuditError::Stopped(error.to_string()))
    }

    /// What the RPC says of an account after a block.
    ///
    /// # Errors
    /// [`AuditError::NoState`] if the RPC has forgotten the state of the block.
    pub async fn account(
        &self,
        address: Address,
        at: BlockId,
        block: u64,
    ) -> Result<EIP1186AccountProofResponse, AuditError> {
        let proof = self.provider.get_proof(address, Vec::new()).block_id(at);
        proof.await.map_err(|source| no_state(source, block))
    }

    /// What a view answers after a block; an error of the view is no answer.
    ///
    /// # Errors
    /// [`AuditError::NoState`] if the RPC has forgotten the state of the block.
    pub async fn call(
        &self,
        to: Address,
        input: Bytes,
        at: BlockId,
        block: u64,
    ) -> Result<Option<Bytes>, AuditError> {
        let request = TransactionRequest {
            to: Some(to.into()),
            input: TransactionInput::new(input),
            ..TransactionRequest::default()
        };
        match self.provider.call(request).block(at).await {
            Ok(answer) => Ok(Some(answer)),
            Err(TransportError::ErrorResp(error)) if error.as_revert_data().is_some() => Ok(None),
            Err(source) => Err(no_state(source, block)),
        }
    }
}

/// A node that answers with an error is up, and lacks the state; any other failure is one of the connection.
fn no_state(source: TransportError, block: u64) -> AuditError {
    match source {
        TransportError::ErrorResp(_) => AuditError::NoState { block, source },
        source => AuditError::Rpc { call: "eth_getProof", source },
    }
}

pub(crate) async fn rpc<T>(
    call: &'static str,
    future: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, AuditError> {
    future.await.map_err(|source| AuditError::Rpc { call, source })
}

impl Fetched {
    /// Checks what can be checked of a block alone.
    fn from_told(block: Block, receipts: Vec<TransactionReceipt>) -> Self {
        let (told_hash, header) = (block.header.hash, block.header.inner);
        let mut unsigned = Vec::new();
        let mut transactions = Vec::with_capacity(block.transactions.len());
        for (index, tx) in block.transactions.into_transactions().enumerate() {
            let (envelope, told_sender) = tx.inner.into_parts();
            let hash = keccak256(envelope.encoded_2718());
            let signer = envelope.recover_signer().ok();
            if hash != *envelope.tx_hash() || signer != Some(told_sender) {
                unsigned.push(index);
            }
            transactions.push(SignedTx::new_unchecked(envelope, told_sender));
        }
        let bodies: Vec<_> = transactions.iter().map(|tx| tx.inner()).collect();
        Self {
            transactions_root: proofs::calculate_transaction_root(&bodies),
            hash: header.hash_slow(),
            header,
            told_hash,
            transactions,
            unsigned,
            receipts,
        }
    }
}
