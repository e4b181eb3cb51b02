//! The chain: sealed blocks, the state of the head, and the way back from it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use alloy::consensus::Header;
use alloy::eips::eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE};
use alloy::primitives::{Address, B256, Bytes, U256, address, bytes};

use crate::block::{BLOCK_GAS_LIMIT, Block, GENESIS_BASE_FEE, empty_header};
use crate::builder::{BlockBuilder, SealedBlock};
use crate::error::{ChainError, StateError};
use crate::state::{State, bytecode};
use crate::view::StateView;

/// How many blocks back the state can be read. The protocol's agents look back minutes at most; an
/// hour of a block a second leaves room for a debugger. A block costs the nodes of the tries that it
/// changed: with the block itself 2.6 kB when it is empty, 11 kB when a transaction writes eight slots.
pub const STATE_HISTORY_BLOCKS: usize = 4096;

/// A snapshot keeps the states of its time in memory; more than this points to a test that forgets to
/// revert.
pub const MAX_SNAPSHOTS: usize = 64;

/// Where tools such as `forge script` expect the CREATE2 factory, and its code.
const CREATE2_FACTORY: (Address, Bytes) = (
    address!("4e59b44847b379578588920ca78fbf26c0b4956c"),
    bytes!(
        "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
    ),
);

/// What the genesis block holds.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Time of the genesis block in unix seconds.
    pub genesis_timestamp: u64,
    /// Who has how much wei at the start.
    pub accounts: Vec<(Address, U256)>,
    /// Who receives the tips.
    pub beneficiary: Address,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            chain_id: 31337,
            genesis_timestamp: 0,
            accounts: Vec::new(),
            beneficiary: Address::ZERO,
        }
    }
}

impl ChainConfig {
    /// The block that a chain of this configuration starts with, and the state after it.
    pub fn genesis(&self) -> SealedBlock {
        let mut state = State::default();
        for (address, code) in
            [(HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE.clone()), CREATE2_FACTORY]
        {
            state.set_code(&address, bytecode(code));
            // Nonce 1 as every contract has it, so that the account is never "empty".
            state.set_nonce(&address, 1);
        }
        for (address, balance) in &self.accounts {
            state.set_balance(address, *balance);
        }
        let header = Header {
            state_root: state.root(),
            gas_limit: BLOCK_GAS_LIMIT,
            timestamp: self.genesis_timestamp,
            base_fee_per_gas: Some(GENESIS_BASE_FEE),
            beneficiary: self.beneficiary,
            ..empty_header()
        };
        SealedBlock { block: Block::seal(header, Vec::new(), Vec::new()), state }
    }
}

#[derive(Debug, Clone)]
struct Snapshot {
    blocks: usize,
    state: State,
    history: VecDeque<State>,
}

/// A chain in memory, from its genesis block on. One writer; readers need `&self` only.
#[derive(Debug)]
pub struct Chain {
    pub(crate) config: ChainConfig,
    /// The state now: after the head, with what was set by hand since.
    pub(crate) state: State,
    /// All blocks: the index is the number. Never empty.
    blocks: Vec<Arc<Block>>,
    head: Arc<Block>,
    by_hash: HashMap<B256, u64>,
    transactions: HashMap<B256, (u64, usize)>,
    /// The states after the newest blocks; the last one is the head's.
    history: VecDeque<State>,
    /// The state that the first block was made with: whoever replays the chain begins with it.
    genesis: State,
    snapshots: BTreeMap<u64, Snapshot>,
    next_snapshot: u64,
}

impl Chain {
    /// Starts a chain with its genesis block.
    pub fn new(config: ChainConfig) -> Self {
        let genesis = config.genesis();
        Self::from_genesis(config, genesis)
    }

    fn from_genesis(config: ChainConfig, genesis: SealedBlock) -> Self {
        let head = Arc::new(genesis.block);
        Self {
            config,
            state: genesis.state.clone(),
            by_hash: HashMap::from([(head.hash, 0)]),
            blocks: vec![Arc::clone(&head)],
            head,
            transactions: HashMap::new(),
            history: VecDeque::from([genesis.state.clone()]),
            genesis: genesis.state,
            snapshots: BTreeMap::new(),
            next_snapshot: 1,
        }
    }

    /// Continues a chain that was stored: all its blocks from genesis on, the state after genesis, and the states
    /// after the newest blocks, oldest first.
    ///
    /// # Errors
    /// [`ChainError::Stored`] when the blocks are no chain, or the last state is not that of the head.
    pub fn resume(
        config: ChainConfig,
        blocks: Vec<Block>,
        genesis: State,
        mut history: VecDeque<State>,
    ) -> Result<Self, ChainError> {
        let mut blocks = blocks.into_iter();
        let (Some(first), Some(state)) = (blocks.next(), history.back().cloned()) else {
            return Err(ChainError::Stored("there is no block or no state".to_owned()));
        };
        let mut chain = Self::from_genesis(config, SealedBlock { block: first, state });
        chain.genesis = genesis;
        for block in blocks {
            let expected = (chain.head.hash, chain.head.number() + 1);
            if (block.header.parent_hash, block.number()) != expected {
                let number = block.number();
                return Err(ChainError::Stored(format!("block {number} has another parent")));
            }
            chain.append(Arc::new(block));
        }
        if chain.state.root() != chain.head.header.state_root {
            let number = chain.head.number();
            return Err(ChainError::Stored(format!("the state is not that after block {number}")));
        }
        while history.len() > STATE_HISTORY_BLOCKS + 1 {
            history.pop_front();
        }
        chain.history = history;
        Ok(chain)
    }

    /// Chain id (EIP-155).
    pub const fn chain_id(&self) -> u64 {
        self.config.chain_id
    }

    /// The newest block.
    pub const fn head(&self) -> &Arc<Block> {
        &self.head
    }

    /// The block of that number.
    pub fn block(&self, number: u64) -> Option<&Arc<Block>> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    /// The block of that hash.
    pub fn block_by_hash(&self, hash: &B256) -> Option<&Arc<Block>> {
        self.block(*self.by_hash.get(hash)?)
    }

    /// The block that holds the transaction, and its place in there.
    pub fn transaction(&self, hash: &B256) -> Option<(&Arc<Block>, usize)> {
        let (number, index) = self.transactions.get(hash)?;
        Some((self.block(*number)?, *index))
    }

    /// Base fee of the next block, in wei per gas.
    pub fn next_base_fee(&self) -> u64 {
        self.head.next_base_fee()
    }

    /// Nonce of an account now.
    pub fn nonce(&self, address: &Address) -> u64 {
        self.state.basic(address).nonce
    }

    /// The state now: after the head, with what was set by hand since.
    pub fn state(&self) -> StateView<'_> {
        StateView::new(self.state.clone(), &self.blocks)
    }

    /// The state after the block of that number, as its `stateRoot` has it.
    ///
    /// # Errors
    /// When there is no such block, or its state is older than [`STATE_HISTORY_BLOCKS`].
    pub fn state_at(&self, number: u64) -> Result<StateView<'_>, StateError> {
        let past = self.past_state(number)?;
        Ok(StateView::new(past.clone(), &self.blocks))
    }

    fn past_state(&self, number: u64) -> Result<&State, StateError> {
        let head = self.head.number();
        let back = head.checked_sub(number).ok_or(StateError::UnknownBlock)?;
        let oldest = (head + 1).saturating_sub(self.history.len() as u64);
        usize::try_from(back)
            .ok()
            .and_then(|back| self.history.iter().rev().nth(back))
            .ok_or(StateError::Pruned { number, oldest })
    }

    /// The state after the genesis block, however long ago that was.
    pub const fn genesis_state(&self) -> &State {
        &self.genesis
    }

    /// The state after the head, without what was set by hand since.
    pub fn head_state(&self) -> &State {
        self.history.back().unwrap_or(&self.state)
    }

    /// Begins the next block. Nothing stays of it unless it is sealed and [pushed](Chain::push).
    ///
    /// # Errors
    /// When the time is before that of the head. Equal times are allowed: several blocks can come in
    /// one second, and a chain that ran ahead of the clock would break deadlines.
    pub fn begin_block(&self, timestamp: u64) -> Result<BlockBuilder<'_>, ChainError> {
        let parent = self.head.timestamp();
        if timestamp < parent {
            return Err(ChainError::Timestamp { timestamp, parent });
        }
        BlockBuilder::begin(self, timestamp)
    }

    /// Takes in a sealed block: it becomes the head.
    ///
    /// # Errors
    /// [`ChainError::NotOnHead`] when it was built on another block.
    pub fn push(&mut self, sealed: SealedBlock) -> Result<Arc<Block>, ChainError> {
        let parent = sealed.block.header.parent_hash;
        if parent != self.head.hash {
            return Err(ChainError::NotOnHead { parent, head: self.head.hash });
        }
        let block = Arc::new(sealed.block);
        self.append(Arc::clone(&block));
        self.state = sealed.state.clone();
        self.history.push_back(sealed.state);
        if self.history.len() > STATE_HISTORY_BLOCKS + 1 {
            self.history.pop_front();
        }
        Ok(block)
    }

    fn append(&mut self, block: Arc<Block>) {
        let number = block.number();
        self.by_hash.insert(block.hash, number);
        for (index, hash) in block.transaction_hashes().enumerate() {
            self.transactions.insert(hash, (number, index));
        }
        self.blocks.push(Arc::clone(&block));
        self.head = block;
    }

    /// Sets a balance outside of any block. Like everything that is set so, it is part of the state
    /// now and of the next block; the head keeps the state that it was sealed with.
    pub fn set_balance(&mut self, address: Address, balance: U256) {
        self.state.set_balance(&address, balance);
    }

    /// Sets a nonce outside of any block.
    pub fn set_nonce(&mut self, address: Address, nonce: u64) {
        self.state.set_nonce(&address, nonce);
    }

    /// Sets the code of an account outside of any block.
    pub fn set_code(&mut self, address: Address, code: Bytes) {
        self.state.set_code(&address, bytecode(code));
    }

    /// Sets a storage slot outside of any block.
    pub fn set_storage(&mut self, address: Address, slot: U256, value: U256) {
        self.state.set_slot(&address, &slot, value);
    }

    /// Remembers the state and the head; the number is for [`Chain::revert`].
    ///
    /// # Errors
    /// When there are [`MAX_SNAPSHOTS`] already.
    pub fn snapshot(&mut self) -> Result<u64, ChainError> {
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            return Err(ChainError::TooManySnapshots(MAX_SNAPSHOTS));
        }
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let snapshot = Snapshot {
            blocks: self.blocks.len(),
            state: self.state.clone(),
            history: self.history.clone(),
        };
        self.snapshots.insert(id, snapshot);
        Ok(id)
    }

    /// The number of the head that a snapshot remembers.
    pub fn snapshot_head(&self, id: u64) -> Option<u64> {
        self.snapshots.get(&id).map(|snapshot| snapshot.blocks.saturating_sub(1) as u64)
    }

    /// Goes back to a snapshot; it and all later ones are used up. Returns the blocks that are no
    /// longer part of the chain, oldest first, or `None` when there is no such snapshot.
    pub fn revert(&mut self, id: u64) -> Option<Vec<Arc<Block>>> {
        let snapshot = self.snapshots.remove(&id)?;
        self.snapshots.split_off(&id);
        let dropped = self.drop_blocks(snapshot.blocks);
        self.state = snapshot.state;
        self.history = snapshot.history;
        Some(dropped)
    }

    /// Goes back to the block of that number, as a reorganisation does: later blocks, what was set by
    /// hand and snapshots of later blocks are gone. Returns the blocks that are no longer part of the
    /// chain, oldest first.
    ///
    /// # Errors
    /// When there is no such block, or its state is older than [`STATE_HISTORY_BLOCKS`].
    pub fn rewind(&mut self, number: u64) -> Result<Vec<Arc<Block>>, StateError> {
        let state = self.past_state(number)?.clone();
        let back = usize::try_from(self.head.number() - number).unwrap_or(usize::MAX);
        self.history.truncate(self.history.len().saturating_sub(back));
        let keep = self.blocks.len().saturating_sub(back);
        self.snapshots.retain(|_, snapshot| snapshot.blocks <= keep);
        self.state = state;
        Ok(self.drop_blocks(keep))
    }

    fn drop_blocks(&mut self, keep: usize) -> Vec<Arc<Block>> {
        let dropped = self.blocks.split_off(keep.clamp(1, self.blocks.len()));
        for block in &dropped {
            self.by_hash.remove(&block.hash);
            for hash in block.transaction_hashes() {
                self.transactions.remove(&hash);
            }
        }
        if let Some(head) = self.blocks.last() {
            self.head = Arc::clone(head);
        }
        dropped
    }
}
