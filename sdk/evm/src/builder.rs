//! Execution of transactions on top of the head, and the sealing of a block.

use std::convert::Infallible;

use alloy::consensus::{Header, Transaction, TxEnvelope};
use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::eips::eip4788::SYSTEM_ADDRESS;
use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_evm::eth::EthEvmFactory;
use alloy_evm::{Evm, EvmEnv, EvmFactory, FromRecoveredTx};
use revm::DatabaseCommit;
use revm::context::result::EVMError;
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::handler::validation::validate_initial_tx_gas;
use revm::primitives::eip3860::MAX_INITCODE_SIZE;
use revm::primitives::hardfork::SpecId;

use crate::block::{
    BLOCK_GAS_LIMIT, Block, SignedTx, TxReceiptRecord, empty_header, is_impersonated,
    receipt_envelope,
};
use crate::chain::Chain;
use crate::error::{ChainError, TxError, TxFacts};
use crate::state::State;
use crate::view::StateView;

/// The one hardfork of this network.
const SPEC: SpecId = SpecId::PRAGUE;

/// Why a transaction did not get into the block.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The transaction is not valid now; the block goes on without it.
    #[error(transparent)]
    Invalid(#[from] TxError),
    /// The chain itself failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Rules of the chain for every block and call.
pub(crate) fn cfg_env(chain_id: u64) -> CfgEnv {
    let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(chain_id);
    // Prague has no cap on the gas of a transaction; the block's limit is the only one.
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    cfg
}

/// What the code of a block with this header can ask about it.
pub(crate) fn block_env(header: &Header) -> BlockEnv {
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: U256::ZERO,
        prevrandao: Some(header.mix_hash),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice {
            excess_blob_gas: 0,
            blob_gasprice: 1,
        }),
        slot_num: 0,
    }
}

/// The header of the block after the head, before anything is executed.
pub(crate) fn next_header(chain: &Chain, timestamp: u64) -> Header {
    let parent = chain.head();
    Header {
        parent_hash: parent.hash,
        beneficiary: chain.config.beneficiary,
        number: parent.number() + 1,
        gas_limit: BLOCK_GAS_LIMIT,
        timestamp,
        // Derived from the parent alone: for development. Anyone can predict it.
        mix_hash: prev_randao(parent.hash),
        base_fee_per_gas: Some(parent.next_base_fee()),
        ..empty_header()
    }
}

fn prev_randao(parent: B256) -> B256 {
    let mut input = [0_u8; 42];
    input[..10].copy_from_slice(b"prevrandao");
    input[10..].copy_from_slice(parent.as_slice());
    keccak256(input)
}

/// A block that is complete, with the state after it, to be [pushed](Chain::push) onto its parent.
#[derive(Debug)]
pub struct SealedBlock {
    /// The block.
    pub block: Block,
    /// The state after it.
    pub state: State,
}

/// A block in the making, on a copy of the state.
#[derive(Debug)]
pub struct BlockBuilder<'a> {
    chain: &'a Chain,
    view: StateView<'a>,
    header: Header,
    transactions: Vec<SignedTx>,
    receipts: Vec<TxReceiptRecord>,
}

impl<'a> BlockBuilder<'a> {
    pub(crate) fn begin(chain: &'a Chain, timestamp: u64) -> Result<Self, ChainError> {
        let mut builder = Self {
            chain,
            view: chain.state(),
            header: next_header(chain, timestamp),
            transactions: Vec::new(),
            receipts: Vec::new(),
        };
        builder.store_parent_hash()?;
        Ok(builder)
    }

    /// EIP-2935: contracts can ask for the last 8191 block hashes.
    fn store_parent_hash(&mut self) -> Result<(), ChainError> {
        let env = EvmEnv::new(cfg_env(self.chain.config.chain_id), block_env(&self.header));
        let mut evm = EthEvmFactory::default().create_evm(&mut self.view, env);
        let data = Bytes::copy_from_slice(self.header.parent_hash.as_slice());
        let outcome = evm
            .transact_system_call(SYSTEM_ADDRESS, HISTORY_STORAGE_ADDRESS, data)
            .map_err(|e| ChainError::Execution(e.to_string()))?;
        self.view.commit(outcome.state);
        Ok(())
    }

    /// Sets the field of the header that means nothing to the protocol: up to 32 bytes.
    pub fn extra_data(&mut self, data: B256) {
        self.header.extra_data = data.into();
    }

    /// Whether no transaction is in it yet.
    pub const fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Base fee of this block, in wei per gas.
    pub fn base_fee(&self) -> u64 {
        self.header.base_fee_per_gas.unwrap_or_default()
    }

    /// Gas that is left for further transactions.
    pub const fn gas_left(&self) -> u64 {
        self.header.gas_limit.saturating_sub(self.header.gas_used)
    }

    /// Nonce of an account after the transactions so far.
    pub fn nonce(&self, address: &Address) -> u64 {
        self.view.nonce(address)
    }

    /// Executes a transaction as the next one of the block.
    ///
    /// # Errors
    /// [`ExecuteError::Invalid`] when it cannot be part of this block (nothing has changed then).
    /// A transaction that reverts is valid: it is part of the block, with a receipt of failure.
    pub fn execute(&mut self, tx: SignedTx) -> Result<&TxReceiptRecord, ExecuteError> {
        if tx.gas_limit() > self.header.gas_limit {
            return Err(TxError::ExceedsBlockGas.into());
        }
        if tx.gas_limit() > self.gas_left() {
            return Err(TxError::BlockFull.into());
        }
        let (envelope, sender) = (tx.inner(), tx.signer());
        let mut cfg = cfg_env(self.chain.config.chain_id);
        cfg.disable_eip3607 = is_impersonated(envelope);
        let env = EvmEnv::new(cfg, block_env(&self.header));
        let tx_env = TxEnv::from_recovered_tx(envelope, sender);
        let mut evm = EthEvmFactory::default().create_evm(&mut self.view, env);
        let executed = evm.transact_commit(tx_env);
        drop(evm);
        let result = executed.map_err(|error| self.execute_error(error, envelope, sender))?;
        self.header.gas_used += result.tx_gas_used();
        let success = result.is_success();
        let logs = if success { result.into_logs() } else { Vec::new() };
        let receipt = receipt_envelope(envelope.tx_type(), success, self.header.gas_used, logs);
        let base_fee = self.header.base_fee_per_gas;
        let record = TxReceiptRecord::new(&tx, receipt, base_fee, self.receipts.last());
        self.receipts.push(record);
        self.transactions.push(tx);
        self.receipts.last().ok_or_else(|| ChainError::Execution("no receipt".to_owned()).into())
    }

    fn execute_error(
        &self,
        error: EVMError<Infallible>,
        envelope: &TxEnvelope,
        sender: Address,
    ) -> ExecuteError {
        match error {
            EVMError::Transaction(invalid) => {
                TxError::from_revm(invalid, &facts(self.chain, envelope, sender)).into()
            }
            other => ChainError::Execution(other.to_string()).into(),
        }
    }

    /// Ends the block.
    pub fn seal(self) -> SealedBlock {
        let mut header = self.header;
        header.state_root = self.view.root();
        let block = Block::seal(header, self.transactions, self.receipts);
        SealedBlock { block, state: self.view.state }
    }
}

fn facts(chain: &Chain, tx: &TxEnvelope, sender: Address) -> TxFacts {
    TxFacts {
        sender,
        max_fee: tx.max_fee_per_gas(),
        base_fee: chain.next_base_fee(),
        chain_id: tx.chain_id(),
        want_chain_id: chain.config.chain_id,
        init_code: tx.input().len(),
        init_code_limit: MAX_INITCODE_SIZE,
        code_hash: chain.state.basic(&sender).code_hash,
    }
}

impl Chain {
    /// Checks a transaction against the rules and the state now, as a node does before it takes one
    /// into its pool. A nonce that is ahead of the account's is fine: the pool waits for the others.
    ///
    /// # Errors
    /// The first rule that is broken, in geth's order.
    pub fn validate(&self, tx: &SignedTx) -> Result<(), TxError> {
        let (envelope, sender) = (tx.inner(), tx.signer());
        if envelope.is_eip4844() {
            return Err(TxError::TypeNotSupported);
        }
        let facts = facts(self, envelope, sender);
        if let Some(have) = tx.chain_id()
            && have != self.config.chain_id
        {
            return Err(TxError::ChainId { have, want: self.config.chain_id });
        }
        if tx.kind().is_create() && facts.init_code > facts.init_code_limit {
            return Err(TxError::InitCodeSize {
                size: facts.init_code,
                limit: facts.init_code_limit,
            });
        }
        if tx.gas_limit() > BLOCK_GAS_LIMIT {
            return Err(TxError::ExceedsBlockGas);
        }
        if tx.max_priority_fee_per_gas().is_some_and(|tip| tip > tx.max_fee_per_gas()) {
            return Err(TxError::TipAboveFee);
        }
        if tx.authorization_list().is_some_and(|list| list.is_empty()) {
            return Err(TxError::EmptyAuthList);
        }
        let tx_env = TxEnv::from_recovered_tx(envelope, sender);
        validate_initial_tx_gas(&tx_env, SPEC, false, false, u64::MAX, None)
            .map_err(|e| TxError::from_revm(e, &facts))?;
        if facts.max_fee < u128::from(facts.base_fee) {
            return Err(TxError::FeeBelowBase {
                sender,
                max_fee: facts.max_fee,
                base_fee: facts.base_fee,
            });
        }
        self.validate_sender(tx)
    }

    fn validate_sender(&self, tx: &SignedTx) -> Result<(), TxError> {
        let sender = tx.signer();
        let account = self.state.basic(&sender);
        if tx.nonce() < account.nonce {
            return Err(TxError::NonceTooLow { next: account.nonce, tx: tx.nonce() });
        }
        if tx.nonce() == u64::MAX {
            return Err(TxError::NonceMax);
        }
        let fee = U256::from(tx.gas_limit()).saturating_mul(U256::from(tx.max_fee_per_gas()));
        let cost = fee.saturating_add(tx.value());
        if account.balance < cost {
            return Err(TxError::InsufficientFunds { balance: account.balance, cost });
        }
        let has_code = account.code_hash != KECCAK256_EMPTY && !is_impersonated(tx.inner());
        if has_code && !self.state.code(&sender).is_eip7702() {
            return Err(TxError::SenderNotEoa { sender, code_hash: account.code_hash });
        }
        Ok(())
    }
}
