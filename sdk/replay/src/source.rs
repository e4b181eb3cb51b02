//! Blocks with their receipts from an RPC that is not trusted.

use std::future::Future;
use std::ops::RangeInclusive;

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Header, proofs};
use alloy::eips::eip2718::Encodable2718;
use alloy::eips::eip4895::Withdrawal;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, BloomInput, Bytes, U256, keccak256};
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::{
    Block, EIP1186AccountProofResponse, TransactionInput, TransactionReceipt, TransactionRequest,
};
use alloy::transports::TransportError;
use assay_evm::SignedTx;
use futures::{Stream, StreamExt};

use crate::error::AuditError;

/// Blocks that are fetched side by side: enough to hide the round trip, and no flood.
pub(crate) const FETCH_WINDOW: usize = 16;

/// Newest type of a transaction that this program can execute: EIP-7702.
const NEWEST_TYPE: u64 = 4;

/// `method not found`, by the specification of JSON-RPC.
const NO_METHOD: i64 = -32_601;

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
    /// What the consensus layer pays out, and its root, where there is such a layer.
    pub withdrawals: Vec<Withdrawal>,
    /// Root of the withdrawals.
    pub withdrawals_root: Option<B256>,
    /// The transactions, with the senders who signed them.
    pub transactions: Vec<SignedTx>,
    /// Places of those that nobody signed whose sender is told all the same, or whose hash or sender is another than
    /// was told.
    pub unsigned: Vec<usize>,
    /// The receipts, as they were told.
    pub receipts: Vec<TransactionReceipt>,
}

/// A block before the range that is audited.
pub(crate) struct Past {
    /// The number that was asked for.
    pub(crate) number: u64,
    pub(crate) header: Header,
    /// Of the header.
    pub(crate) hash: B256,
    /// As they were told, if they may matter.
    pub(crate) receipts: Option<Vec<TransactionReceipt>>,
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
    /// [`AuditError::Rpc`], [`AuditError::Stopped`], [`AuditError::Unsupported`] for a transaction that Ethereum does not
    /// know.
    pub async fn block(&self, number: u64) -> Result<Option<Fetched>, AuditError> {
        let block = self.provider.get_block_by_number(BlockNumberOrTag::Number(number)).full();
        let block = match block.await {
            Err(source @ TransportError::DeserError { .. }) => {
                return Err(self.undecodable(number, source).await);
            }
            block => {
                block.map_err(|source| AuditError::Rpc { call: "eth_getBlockByNumber", source })?
            }
        };
        let Some(block) = block else { return Ok(None) };
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

    /// Why a block cannot be read: of another kind than Ethereum's is a transaction in it, or it is damaged.
    async fn undecodable(&self, block: u64, source: TransportError) -> AuditError {
        let params = (BlockNumberOrTag::Number(block), true);
        let raw = self
            .provider
            .raw_request::<_, serde_json::Value>("eth_getBlockByNumber".into(), params);
        let raw = raw.await.unwrap_or_default();
        let transactions = raw.get("transactions").and_then(|list| list.as_array());
        let kinds = transactions.into_iter().flatten().filter_map(|tx| {
            let digits = tx.get("type")?.as_str()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        });
        match kinds.enumerate().find(|(_, kind)| *kind > NEWEST_TYPE) {
            Some((index, kind)) => AuditError::Unsupported { block, index, kind },
            None => AuditError::Rpc { call: "eth_getBlockByNumber", source },
        }
    }

    /// A header and its hash; `None` if the RPC lacks it.
    ///
    /// # Errors
    /// [`AuditError::Rpc`].
    pub(crate) async fn header(&self, number: u64) -> Result<Option<(Header, B256)>, AuditError> {
        let block = self.provider.get_block_by_number(BlockNumberOrTag::Number(number));
        let block = rpc("eth_getBlockByNumber", block.into_future()).await?;
        Ok(block.map(|block| (block.header.inner.clone(), block.header.inner.hash_slow())))
    }

    /// Headers of a range in order, some fetched ahead, with their hashes, and with the receipts of those blocks whose bloom
    /// says that one of these contracts may have emitted something.
    pub(crate) fn past<'a>(
        &'a self,
        range: RangeInclusive<u64>,
        contracts: &'a [Address],
    ) -> impl Stream<Item = Result<Past, AuditError>> + 'a {
        futures::stream::iter(range)
            .map(async move |number| {
                let header = self.header(number).await?;
                let (header, hash) = header.ok_or(AuditError::Pruned { block: number })?;
                let emits =
                    |at: &Address| header.logs_bloom.contains_input(BloomInput::Raw(at.as_slice()));
                let mut receipts = None;
                if contracts.iter().any(emits) {
                    let told = self.provider.get_block_receipts(BlockId::hash(hash));
                    let told = rpc("eth_getBlockReceipts", told).await?;
                    receipts = Some(told.ok_or(AuditError::Pruned { block: number })?);
                }
                Ok(Past { number, header, hash, receipts })
            })
            .buffered(FETCH_WINDOW)
    }

    /// What the RPC says of an account and some of its slots after a block, with its proofs.
    ///
    /// # Errors
    /// [`AuditError::NoProofs`] if it has none at all, [`AuditError::NoState`] if it has forgotten the state of the block.
    pub(crate) async fn proof(
        &self,
        address: Address,
        slots: &[U256],
        block: u64,
    ) -> Result<EIP1186AccountProofResponse, AuditError> {
        let keys = slots.iter().map(|slot| B256::from(*slot)).collect();
        let proof = self.provider.get_proof(address, keys).number(block);
        match proof.await {
            Err(TransportError::ErrorResp(error)) if error.code == NO_METHOD => {
                Err(AuditError::NoProofs { source: TransportError::ErrorResp(error) })
            }
            proof => proof.map_err(|source| no_state(source, block)),
        }
    }

    /// Code of an account after a block.
    ///
    /// # Errors
    /// [`AuditError::NoState`] if the RPC has forgotten the state of the block.
    pub(crate) async fn code(&self, address: Address, block: u64) -> Result<Bytes, AuditError> {
        let code = self.provider.get_code_at(address).number(block);
        code.await.map_err(|source| no_state(source, block))
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
        let withdrawals = block.withdrawals.map(|withdrawals| withdrawals.into_inner());
        let withdrawals_root = withdrawals.as_deref().map(proofs::calculate_withdrawals_root);
        Self {
            transactions_root: proofs::calculate_transaction_root(&bodies),
            withdrawals_root,
            withdrawals: withdrawals.unwrap_or_default(),
            hash: header.hash_slow(),
            header,
            told_hash,
            transactions,
            unsigned,
            receipts,
        }
    }
}
