//! Blocks that another node made, executed again.
//!
//! Nothing of a block is decided here: time, base fee, beneficiary, randomness and the order of the transactions are
//! those of its header and body. What comes out is what the header and the receipts must say.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;

use alloy::consensus::{Header, Transaction, TxEnvelope};
use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::eips::eip4788::SYSTEM_ADDRESS;
use alloy::primitives::{Address, B256, Bytes, Log, TxKind, U256};
use alloy_evm::eth::EthEvmFactory;
use alloy_evm::{Evm, EvmEnv, EvmFactory, FromRecoveredTx};
use revm::context::result::{EVMError, ExecutionResult, HaltReason};
use revm::context::{ContextTr, TxEnv};
use revm::database_interface::WrapDatabaseRef;
use revm::interpreter::{CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome};
use revm::primitives::eip3860::MAX_INITCODE_SIZE;
use revm::state::{AccountInfo, Bytecode};
use revm::{DatabaseRef, Inspector};

use crate::block::{SignedTx, TxReceiptRecord, is_impersonated, receipt_envelope};
use crate::builder::{block_env, cfg_env};
use crate::call::CALL_GAS_LIMIT;
use crate::error::{CallError, ChainError, TxError, TxFacts};
use crate::state::{AccountProof, State};

/// Blocks whose hash the EVM can ask for (BLOCKHASH).
const KNOWN_HASHES: usize = 256;

/// Somebody outside of the watched contracts called one of them, or one of them was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who called.
    pub caller: Address,
    /// The contract.
    pub contract: Address,
    /// Calldata; empty for a creation.
    pub input: Bytes,
    /// Whether the contract was created by this.
    pub is_creation: bool,
    /// Places, among the transaction's logs, of those that were emitted meanwhile.
    pub logs: Range<usize>,
}

/// What the transactions of a block did.
#[derive(Debug, Default)]
pub struct Executed {
    /// Receipts, in the order of the transactions.
    pub receipts: Vec<TxReceiptRecord>,
    /// For each transaction, the entries into watched contracts that were not reverted, in the order of their begin.
    pub entries: Vec<Vec<Entry>>,
}

/// A block cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A transaction has no place in this block.
    #[error("transaction {index} of the block is not valid there: {source}")]
    Invalid {
        /// Its place in the block.
        index: usize,
        /// The rule that it breaks.
        source: TxError,
    },
    /// The execution itself failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// What code can read: a state, and the newest blocks' hashes by number.
#[derive(Debug, Clone)]
struct Readable {
    state: State,
    hashes: BTreeMap<u64, B256>,
}

impl DatabaseRef for Readable {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.state.info(&address))
    }

    /// Never asked: accounts come with their code.
    fn code_by_hash_ref(&self, _: B256) -> Result<Bytecode, Infallible> {
        Ok(Bytecode::default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.state.slot(&address, &slot))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        Ok(self.hashes.get(&number).copied().unwrap_or_default())
    }
}

/// A state that blocks are executed on, one after the other.
#[derive(Debug, Clone)]
pub struct Replay {
    chain_id: u64,
    now: Readable,
    /// Contracts whose entries are told.
    watched: BTreeSet<Address>,
    /// Watched contracts' functions that call strangers, by selector: what these do is told, too.
    calls_out: BTreeSet<[u8; 4]>,
}

impl Replay {
    /// Begins after the block of this number and hash, whose state this is.
    pub fn new(chain_id: u64, state: State, (number, hash): (u64, B256)) -> Self {
        Self {
            chain_id,
            now: Readable { state, hashes: BTreeMap::from([(number, hash)]) },
            watched: BTreeSet::new(),
            calls_out: BTreeSet::new(),
        }
    }

    /// Tells the entries into these contracts from now on. `calls_out` are selectors of their functions that call
    /// contracts of strangers.
    pub fn watch(
        &mut self,
        contracts: impl IntoIterator<Item = Address>,
        calls_out: impl IntoIterator<Item = [u8; 4]>,
    ) {
        self.watched = contracts.into_iter().collect();
        self.calls_out = calls_out.into_iter().collect();
    }

    /// Hashes of blocks before the first one that is executed, for BLOCKHASH.
    pub fn remember(&mut self, hashes: impl IntoIterator<Item = (u64, B256)>) {
        self.now.hashes.extend(hashes);
    }

    /// The newest blocks' hashes by number: what [`Replay::remember`] needs to go on elsewhere.
    pub const fn hashes(&self) -> &BTreeMap<u64, B256> {
        &self.now.hashes
    }

    /// The state now.
    pub const fn state(&self) -> &State {
        &self.now.state
    }

    /// Code of an account; empty without any.
    pub fn code(&self, address: &Address) -> Bytes {
        self.now.state.code(address).original_bytes()
    }

    /// An account and some of its slots as the state has them, with the root of its storage.
    pub fn account(&self, address: &Address, slots: &[U256]) -> AccountProof {
        self.now.state.prove(address, slots)
    }

    /// Sees to it that an account has so much wei: for a chain on which ether can be set by hand, and whose roots do
    /// not tell. Whether that took any.
    pub fn grant(&mut self, address: &Address, wei: U256) -> bool {
        let lacks = self.now.state.basic(address).balance < wei;
        if lacks {
            self.now.state.set_balance(address, wei);
        }
        lacks
    }

    /// Executes a block on the state.
    ///
    /// # Errors
    /// When a transaction is not valid there; the state is then that after the ones before it.
    pub fn block(
        &mut self,
        header: &Header,
        hash: B256,
        transactions: &[SignedTx],
    ) -> Result<Executed, ReplayError> {
        self.store_parent_hash(header)?;
        let mut executed = Executed::default();
        let mut gas_used = 0;
        for (index, tx) in transactions.iter().enumerate() {
            let (result, entries) = self
                .transact(header, tx)
                .map_err(|error| self.error(error, (header, tx), index))?;
            gas_used += result.tx_gas_used();
            let success = result.is_success();
            let logs = if success { result.into_logs() } else { Vec::new() };
            let receipt = receipt_envelope(tx.inner().tx_type(), success, gas_used, logs);
            let previous = executed.receipts.last();
            let record = TxReceiptRecord::new(tx, receipt, header.base_fee_per_gas, previous);
            executed.receipts.push(record);
            executed.entries.push(entries);
        }
        self.now.hashes.insert(header.number, hash);
        while self.now.hashes.len() > KNOWN_HASHES {
            self.now.hashes.pop_first();
        }
        Ok(executed)
    }

    /// EIP-2935, as the embedded chain and anvil do it.
    fn store_parent_hash(&mut self, header: &Header) -> Result<(), ReplayError> {
        let env = EvmEnv::new(cfg_env(self.chain_id), block_env(header));
        let mut evm = EthEvmFactory::default().create_evm(WrapDatabaseRef(&self.now), env);
        let data = Bytes::copy_from_slice(header.parent_hash.as_slice());
        let outcome = evm
            .transact_system_call(SYSTEM_ADDRESS, HISTORY_STORAGE_ADDRESS, data)
            .map_err(|e| ChainError::Execution(e.to_string()))?;
        drop(evm);
        self.now.state.commit(outcome.state);
        Ok(())
    }

    /// Executes one transaction, under the eyes of a tracer where strangers may call a watched contract: that takes
    /// twice the time.
    fn transact(
        &mut self,
        header: &Header,
        tx: &SignedTx,
    ) -> Result<(ExecutionResult<HaltReason>, Vec<Entry>), EVMError<Infallible>> {
        let (envelope, sender) = (tx.inner(), tx.signer());
        let mut cfg = cfg_env(self.chain_id);
        cfg.disable_eip3607 = is_impersonated(envelope);
        let env = EvmEnv::new(cfg, block_env(header));
        let tx_env = TxEnv::from_recovered_tx(envelope, sender);
        let reader = WrapDatabaseRef(&self.now);
        let (outcome, entries) = match self.entered_directly(envelope) {
            Some(contract) => {
                let outcome =
                    EthEvmFactory::default().create_evm(reader, env).transact_raw(tx_env)?;
                let entry = Entry {
                    caller: sender,
                    contract,
                    input: envelope.input().clone(),
                    is_creation: false,
                    logs: 0..outcome.result.logs().len(),
                };
                let entries = outcome.result.is_success().then_some(entry);
                (outcome, entries.into_iter().collect())
            }
            None => {
                let mut tracer = Tracer::new(&self.watched);
                let outcome = EthEvmFactory::default()
                    .create_evm_with_inspector(reader, env, &mut tracer)
                    .transact_raw(tx_env)?;
                (outcome, tracer.entries)
            }
        };
        self.now.state.commit(outcome.state);
        Ok((outcome.result, entries))
    }

    /// The watched contract that the transaction calls, if nobody else can be called by that.
    fn entered_directly(&self, tx: &TxEnvelope) -> Option<Address> {
        let TxKind::Call(to) = tx.kind() else { return None };
        let selector = tx.input().first_chunk::<4>();
        let calls_out = selector.is_some_and(|selector| self.calls_out.contains(selector));
        (self.watched.contains(&to) && !calls_out).then_some(to)
    }

    fn error(
        &self,
        error: EVMError<Infallible>,
        (header, tx): (&Header, &SignedTx),
        index: usize,
    ) -> ReplayError {
        let EVMError::Transaction(invalid) = error else {
            return ChainError::Execution(error.to_string()).into();
        };
        let facts = TxFacts {
            sender: tx.signer(),
            max_fee: tx.max_fee_per_gas(),
            base_fee: header.base_fee_per_gas.unwrap_or_default(),
            chain_id: tx.chain_id(),
            want_chain_id: self.chain_id,
            init_code: tx.input().len(),
            init_code_limit: MAX_INITCODE_SIZE,
            code_hash: self.now.state.basic(&tx.signer()).code_hash,
        };
        ReplayError::Invalid { index, source: TxError::from_revm(invalid, &facts) }
    }

    /// Runs a call in the block of this header, after its transactions, from nobody; nothing stays of it.
    ///
    /// # Errors
    /// [`CallError::Revert`] and [`CallError::Halt`] when the code fails.
    pub fn call(&self, header: &Header, to: Address, input: Bytes) -> Result<Bytes, CallError> {
        let mut block = block_env(header);
        block.basefee = 0;
        let mut cfg = cfg_env(self.chain_id);
        cfg.disable_eip3607 = true;
        let tx = TxEnv {
            gas_limit: CALL_GAS_LIMIT.min(header.gas_limit),
            kind: TxKind::Call(to),
            data: input,
            chain_id: Some(self.chain_id),
            nonce: self.now.state.basic(&Address::ZERO).nonce,
            ..TxEnv::default()
        };
        let outcome = EthEvmFactory::default()
            .create_evm(WrapDatabaseRef(&self.now), EvmEnv::new(cfg, block))
            .transact_raw(tx)
            .map_err(|error| CallError::Chain(ChainError::Execution(error.to_string())))?;
        match outcome.result {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(CallError::Revert(output)),
            ExecutionResult::Halt { reason, .. } => Err(CallError::Halt(reason)),
        }
    }
}

/// Notes the entries into watched contracts.
#[derive(Debug)]
struct Tracer<'a> {
    watched: &'a BTreeSet<Address>,
    entries: Vec<Entry>,
    /// Logs of the transaction so far that were not reverted.
    logs: usize,
    frames: Vec<Frame>,
}

/// A call on its way.
#[derive(Debug)]
struct Frame {
    /// Entries and logs before it.
    before: (usize, usize),
    /// Place of its own entry.
    entry: Option<usize>,
}

impl<'a> Tracer<'a> {
    const fn new(watched: &'a BTreeSet<Address>) -> Self {
        Self { watched, entries: Vec::new(), logs: 0, frames: Vec::new() }
    }

    fn begin(&mut self, entry: Option<Entry>) {
        let before = (self.entries.len(), self.logs);
        let place = entry.is_some().then_some(self.entries.len());
        self.entries.extend(entry);
        self.frames.push(Frame { before, entry: place });
    }

    fn end(&mut self, success: bool) {
        let Some(frame) = self.frames.pop() else { return };
        if !success {
            self.entries.truncate(frame.before.0);
            self.logs = frame.before.1;
        } else if let Some(entry) = frame.entry.and_then(|place| self.entries.get_mut(place)) {
            entry.logs.end = self.logs;
        }
    }
}

impl<CTX: ContextTr> Inspector<CTX> for Tracer<'_> {
    fn log(&mut self, _: &mut CTX, _: Log) {
        self.logs += 1;
    }

    fn call(&mut self, context: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let enters = inputs.scheme == CallScheme::Call
            && self.watched.contains(&inputs.target_address)
            && !self.watched.contains(&inputs.caller);
        let entry = enters.then(|| Entry {
            caller: inputs.caller,
            contract: inputs.target_address,
            input: inputs.input.bytes(context),
            is_creation: false,
            logs: self.logs..self.logs,
        });
        self.begin(entry);
        None
    }

    fn call_end(&mut self, _: &mut CTX, _: &CallInputs, outcome: &mut CallOutcome) {
        self.end(outcome.result.is_ok());
    }

    fn create(&mut self, _: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let caller = inputs.caller();
        self.begin(Some(Entry {
            caller,
            contract: Address::ZERO,
            input: Bytes::new(),
            is_creation: true,
            logs: self.logs..self.logs,
        }));
        None
    }

    /// Only now the address is known; the creation of any other contract is nobody's business.
    fn create_end(&mut self, _: &mut CTX, _: &CreateInputs, outcome: &mut CreateOutcome) {
        let place = self.frames.last().and_then(|frame| frame.entry);
        self.end(outcome.result.is_ok());
        let Some(place) = place.filter(|place| *place < self.entries.len()) else { return };
        match outcome.address.filter(|address| self.watched.contains(address)) {
            Some(address) => {
                if let Some(entry) = self.entries.get_mut(place) {
                    entry.contract = address;
                }
            }
            None => drop(self.entries.remove(place)),
        }
    }
}
