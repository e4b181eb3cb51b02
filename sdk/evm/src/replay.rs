//! Blocks that another node made, executed again.
//!
//! Nothing of a block is decided here: time, base fee, beneficiary, randomness and the order of the transactions are
//! those of its header and body. What comes out is what the header and the receipts must say.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use alloy::consensus::{Header, Transaction, TxEnvelope};
use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::eips::eip4788::{BEACON_ROOTS_ADDRESS, SYSTEM_ADDRESS};
use alloy::eips::eip4895::Withdrawal;
use alloy::eips::eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS;
use alloy::eips::eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS;
use alloy::primitives::{Address, B256, Bytes, Log, TxKind, U256};
use alloy_evm::eth::EthEvmFactory;
use alloy_evm::{Evm, EvmFactory, FromRecoveredTx};
use revm::context::result::{EVMError, ExecutionResult, HaltReason};
use revm::context::{ContextTr, TxEnv};
use revm::database_interface::WrapDatabaseRef;
use revm::interpreter::{CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome};
use revm::primitives::eip3860::MAX_INITCODE_SIZE;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode};
use revm::{DatabaseCommit, DatabaseRef, Inspector};

use crate::block::{SignedTx, TxReceiptRecord, is_impersonated, receipt_envelope};
use crate::call::CALL_GAS_LIMIT;
use crate::error::{CallError, ChainError, TxError, TxFacts};
use crate::forks::Forks;
use crate::overlay::Overlay;
use crate::state::{AccountProof, State};
use crate::trie::Found;
use crate::witness::{Missing, ProofError};

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
    /// Parts of the state that are not known must be revealed first.
    #[error("{} parts of the state are not known", .0.len())]
    Missing(BTreeSet<Missing>),
    /// The rules of the block are not known here.
    #[error(
        "it follows rules that this program does not know: those before proof of stake, or newer ones than Osaka"
    )]
    Rules,
    /// The execution itself failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// What code can read: a state, and the newest blocks' hashes by number.
#[derive(Debug)]
pub(crate) struct Readable {
    pub(crate) state: State,
    hashes: BTreeMap<u64, B256>,
    /// What was asked for and is not known. Whoever asks gets nothing, and asks again when it is.
    missing: Mutex<BTreeSet<Missing>>,
}

impl Readable {
    fn miss(&self, missing: Missing) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(missing);
    }

    pub(crate) fn take_missing(&self) -> BTreeSet<Missing> {
        std::mem::take(&mut *self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn info(&self, address: &Address) -> Option<AccountInfo> {
        match self.state.find(address) {
            Found::Value(account) => Some(account.info()),
            Found::Nothing => None,
            Found::Hidden => {
                self.miss(Missing::Account(*address));
                None
            }
        }
    }

    pub(crate) fn slot(&self, address: &Address, slot: &U256) -> U256 {
        match self.state.find_slot(address, slot) {
            Found::Value(value) => value,
            Found::Nothing => U256::ZERO,
            Found::Hidden => {
                self.miss(Missing::Slot(*address, *slot));
                U256::ZERO
            }
        }
    }
}

impl DatabaseRef for Readable {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.info(&address))
    }

    /// Never asked: accounts come with their code.
    fn code_by_hash_ref(&self, _: B256) -> Result<Bytecode, Infallible> {
        Ok(Bytecode::default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.slot(&address, &slot))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        Ok(self.hashes.get(&number).copied().unwrap_or_default())
    }
}

/// A state that blocks are executed on, one after the other.
#[derive(Debug)]
pub struct Replay {
    chain_id: u64,
    forks: Forks,
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
            forks: Forks::Development,
            now: Readable {
                state,
                hashes: BTreeMap::from([(number, hash)]),
                missing: Mutex::default(),
            },
            watched: BTreeSet::new(),
            calls_out: BTreeSet::new(),
        }
    }

    /// Takes the rules of blocks from there.
    pub const fn follow(&mut self, forks: Forks) {
        self.forks = forks;
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

    /// What was asked for since the last time and is not known: whoever asked got nothing.
    pub fn take_missing(&self) -> BTreeSet<Missing> {
        self.now.take_missing()
    }

    /// Tells more of the state.
    ///
    /// # Errors
    /// As [`State::reveal`].
    pub fn inform(
        &mut self,
        tell: impl FnOnce(&mut State) -> Result<(), ProofError>,
    ) -> Result<(), ProofError> {
        tell(&mut self.now.state)
    }

    /// Code of an account; empty without any.
    pub fn code(&self, address: &Address) -> Bytes {
        self.now.info(address).and_then(|info| info.code).unwrap_or_default().original_bytes()
    }

    /// One slot; zero when never written.
    pub fn slot(&self, address: &Address, slot: &U256) -> U256 {
        self.now.slot(address, slot)
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
    /// When a transaction is not valid there, or parts of the state that it needs are not known; the state is then what it
    /// was.
    pub fn block(
        &mut self,
        header: &Header,
        hash: B256,
        transactions: &[SignedTx],
        withdrawals: &[Withdrawal],
    ) -> Result<Executed, ReplayError> {
        self.now.take_missing();
        let (executed, state) = self.execute(header, transactions, withdrawals)?;
        self.now.state = state;
        self.now.hashes.insert(header.number, hash);
        while self.now.hashes.len() > KNOWN_HASHES {
            self.now.hashes.pop_first();
        }
        Ok(executed)
    }

    fn execute(
        &self,
        header: &Header,
        transactions: &[SignedTx],
        withdrawals: &[Withdrawal],
    ) -> Result<(Executed, State), ReplayError> {
        let env = self.forks.env(self.chain_id, header).ok_or(ReplayError::Rules)?;
        let spec = env.cfg_env.spec;
        let tracer = Tracer::new(&self.watched);
        let factory = EthEvmFactory::default();
        let mut evm = factory.create_evm_with_inspector(Overlay::new(&self.now), env, tracer);
        evm.disable_inspector();
        self.begin(&mut evm, header, spec)?;
        let mut executed = Executed::default();
        let mut gas_used = 0;
        for (index, tx) in transactions.iter().enumerate() {
            let (result, entries) = match self.transact(&mut evm, tx) {
                Ok(done) => done,
                Err(error) => {
                    // What is not known may be what it lacks.
                    let missing = self.now.take_missing();
                    if missing.is_empty() {
                        return Err(self.error(error, (header, tx), index));
                    }
                    return Err(ReplayError::Missing(missing));
                }
            };
            gas_used += result.tx_gas_used();
            let success = result.is_success();
            let logs = if success { result.into_logs() } else { Vec::new() };
            let receipt = receipt_envelope(tx.inner().tx_type(), success, gas_used, logs);
            let previous = executed.receipts.last();
            let record = TxReceiptRecord::new(tx, receipt, header.base_fee_per_gas, previous);
            executed.receipts.push(record);
            executed.entries.push(entries);
        }
        for withdrawal in withdrawals {
            evm.db_mut().credit(withdrawal.address, withdrawal.amount_wei());
        }
        if self.forks == Forks::Public && spec.is_enabled_in(SpecId::PRAGUE) {
            system_call(&mut evm, WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, Bytes::new())?;
            system_call(&mut evm, CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, Bytes::new())?;
        }
        let (overlay, _) = evm.finish();
        overlay.finish().map(|state| (executed, state)).map_err(ReplayError::Missing)
    }

    /// What a block does before its transactions: EIP-2935, and EIP-4788, which the embedded chain and anvil leave out.
    fn begin(
        &self,
        evm: &mut BlockEvm<'_, '_>,
        header: &Header,
        spec: SpecId,
    ) -> Result<(), ReplayError> {
        if spec.is_enabled_in(SpecId::PRAGUE) {
            system_call(evm, HISTORY_STORAGE_ADDRESS, header.parent_hash.into())?;
        }
        match header.parent_beacon_block_root {
            Some(root) if self.forks == Forks::Public => {
                system_call(evm, BEACON_ROOTS_ADDRESS, root.into())
            }
            _ => Ok(()),
        }
    }

    /// Executes one transaction, under the eyes of a tracer where strangers may call a watched contract: that takes
    /// twice the time.
    fn transact<'a>(
        &'a self,
        evm: &mut BlockEvm<'_, 'a>,
        tx: &SignedTx,
    ) -> Result<(ExecutionResult<HaltReason>, Vec<Entry>), EVMError<Infallible>> {
        let (envelope, sender) = (tx.inner(), tx.signer());
        evm.cfg.disable_eip3607 = is_impersonated(envelope);
        let tx_env = TxEnv::from_recovered_tx(envelope, sender);
        let direct = self.entered_directly(envelope);
        evm.set_inspector_enabled(direct.is_none());
        *evm.inspector_mut() = Tracer::new(&self.watched);
        let outcome = evm.transact_raw(tx_env)?;
        let entries = match direct {
            Some(contract) => {
                let entry = Entry {
                    caller: sender,
                    contract,
                    input: envelope.input().clone(),
                    is_creation: false,
                    logs: 0..outcome.result.logs().len(),
                };
                outcome.result.is_success().then_some(entry).into_iter().collect()
            }
            None => std::mem::take(&mut evm.inspector_mut().entries),
        };
        evm.db_mut().commit(outcome.state);
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
        let unknown = || ChainError::Execution(ReplayError::Rules.to_string());
        let mut env = self.forks.env(self.chain_id, header).ok_or_else(unknown)?;
        env.block_env.basefee = 0;
        env.cfg_env.disable_eip3607 = true;
        let tx = TxEnv {
            gas_limit: CALL_GAS_LIMIT.min(header.gas_limit),
            kind: TxKind::Call(to),
            data: input,
            chain_id: Some(self.chain_id),
            nonce: self.now.info(&Address::ZERO).unwrap_or_default().nonce,
            ..TxEnv::default()
        };
        let outcome = EthEvmFactory::default()
            .create_evm(WrapDatabaseRef(&self.now), env)
            .transact_raw(tx)
            .map_err(|error| CallError::Chain(ChainError::Execution(error.to_string())))?;
        match outcome.result {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(CallError::Revert(output)),
            ExecutionResult::Halt { reason, .. } => Err(CallError::Halt(reason)),
        }
    }
}

/// Executes the transactions of one block.
type BlockEvm<'a, 'b> = <EthEvmFactory as EvmFactory>::Evm<Overlay<'a>, Tracer<'b>>;

/// A call of the protocol itself, if there is somebody to be called.
fn system_call(
    evm: &mut BlockEvm<'_, '_>,
    contract: Address,
    input: Bytes,
) -> Result<(), ReplayError> {
    if !evm.db_mut().has_code(contract) {
        return Ok(());
    }
    let outcome = evm
        .transact_system_call(SYSTEM_ADDRESS, contract, input)
        .map_err(|error| ChainError::Execution(error.to_string()))?;
    evm.db_mut().commit(outcome.state);
    Ok(())
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
