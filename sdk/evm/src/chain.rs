//! The chain: sealed blocks, the state of the head, and the way back from it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use alloy::consensus::Header;
use alloy::eips::eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE};
use alloy::primitives::{Address, B256, Bytes, U256, address, bytes};

use crate::block::{BLOCK_GAS_LIMIT, Block, GENESIS_BASE_FEE, empty_header};
use crate::builder::BlockBuilder;
use crate::error::{ChainError, StateError};
use crate::view::StateView;
use crate::world::{Basic, Undo, World};

/// How many blocks back the state can be read. The protocol's agents look back minutes at most; an
/// hour of a block a second leaves room for a debugger. Empty blocks cost almost nothing here.
pub const STATE_HISTORY_BLOCKS: usize = 4096;

/// A snapshot copies the whole state; more than this points to a test that forgets to revert.
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

#[derive(Debug, Clone)]
struct Snapshot {
    blocks: usize,
    world: World,
    undos: VecDeque<Arc<Undo>>,
    loose: Undo,
}

/// A chain in memory, from its genesis block on. One writer; readers need `&self` only.
#[derive(Debug)]
pub struct Chain {
    pub(crate) config: ChainConfig,
    pub(crate) world: World,
    /// All blocks: the index is the number. Never empty.
    pub(crate) blocks: Vec<Arc<Block>>,
    head: Arc<Block>,
    by_hash: HashMap<B256, u64>,
    transactions: HashMap<B256, (u64, usize)>,
    /// The newest undos: the last one leads from the head's state to its parent's.
    undos: VecDeque<Arc<Undo>>,
    /// What was written outside of blocks since the head (balances set by hand).
    pub(crate) loose: Undo,
    snapshots: BTreeMap<u64, Snapshot>,
    next_snapshot: u64,
}

impl Chain {
    /// Starts a chain with its genesis block.
    pub fn new(config: ChainConfig) -> Self {
        let mut world = World::default();
        let mut undo = Undo::default();
        for (address, code) in
            [(HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE.clone()), CREATE2_FACTORY]
        {
            let code_hash = world.put_code(code);
            // Nonce 1 as every contract has it, so that the account is never "empty".
            let basic = Basic { balance: U256::ZERO, nonce: 1, code_hash };
            world.put_basic(&mut undo, address, Some(basic));
        }
        for (address, balance) in &config.accounts {
            let basic = Basic { balance: *balance, ..world.basic(address).unwrap_or_default() };
            world.put_basic(&mut undo, *address, Some(basic));
        }
        let header = Header {
            state_root: world.digest(B256::ZERO, &undo),
            gas_limit: BLOCK_GAS_LIMIT,
            timestamp: config.genesis_timestamp,
            base_fee_per_gas: Some(GENESIS_BASE_FEE),
            beneficiary: config.beneficiary,
            ..empty_header()
        };
        let head = Arc::new(Block::seal(header, Vec::new(), Vec::new()));
        Self {
            config,
            world,
            by_hash: HashMap::from([(head.hash, 0)]),
            blocks: vec![Arc::clone(&head)],
            head,
            transactions: HashMap::new(),
            undos: VecDeque::new(),
            loose: Undo::default(),
            snapshots: BTreeMap::new(),
            next_snapshot: 1,
        }
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

    /// The state now: after the head, with what was set by hand since.
    pub fn state(&self) -> StateView<'_> {
        StateView::new(&self.world, &self.blocks, Undo::default())
    }

    /// The state after the block of that number.
    ///
    /// # Errors
    /// When there is no such block, or its state is older than [`STATE_HISTORY_BLOCKS`].
    pub fn state_at(&self, number: u64) -> Result<StateView<'_>, StateError> {
        let head = self.head.number();
        if number > head {
            return Err(StateError::UnknownBlock);
        }
        let back = usize::try_from(head - number).unwrap_or(usize::MAX);
        if back > self.undos.len() {
            return Err(StateError::Pruned { number, oldest: head - self.undos.len() as u64 });
        }
        if back == 0 {
            return Ok(self.state());
        }
        let mut past = self.loose.clone();
        for undo in self.undos.iter().rev().take(back) {
            past.absorb_older(undo);
        }
        Ok(StateView::new(&self.world, &self.blocks, past))
    }

    /// Begins the next block. Nothing stays of it unless it is sealed.
    ///
    /// # Errors
    /// When the time is before that of the head. Equal times are allowed: several blocks can come in
    /// one second, and a chain that ran ahead of the clock would break deadlines.
    pub fn begin_block(&mut self, timestamp: u64) -> Result<BlockBuilder<'_>, ChainError> {
        let parent = self.head.timestamp();
        if timestamp < parent {
            return Err(ChainError::Timestamp { timestamp, parent });
        }
        BlockBuilder::begin(self, timestamp)
    }

    /// Hands out what was written by hand since the head. It counts as part of the head's state from
    /// now on, so the head's undo takes it up.
    pub(crate) fn take_loose(&mut self) -> Undo {
        let loose = std::mem::take(&mut self.loose);
        if let Some(undo) = self.undos.pop_back() {
            let mut joined = loose.clone();
            joined.absorb_older(&undo);
            self.undos.push_back(Arc::new(joined));
        }
        loose
    }

    /// Takes in a sealed block with the undo that leads back from it.
    pub(crate) fn push(&mut self, block: Block, undo: Undo) -> Arc<Block> {
        let block = Arc::new(block);
        let number = block.number();
        self.by_hash.insert(block.hash, number);
        for (index, hash) in block.transaction_hashes().enumerate() {
            self.transactions.insert(hash, (number, index));
        }
        self.blocks.push(Arc::clone(&block));
        self.head = Arc::clone(&block);
        self.undos.push_back(Arc::new(undo));
        if self.undos.len() > STATE_HISTORY_BLOCKS {
            self.undos.pop_front();
        }
        block
    }

    /// Sets a balance outside of any block.
    pub fn set_balance(&mut self, address: Address, balance: U256) {
        let basic = Basic { balance, ..self.world.basic(&address).unwrap_or_default() };
        self.world.put_basic(&mut self.loose, address, Some(basic));
    }

    /// Sets a nonce outside of any block.
    pub fn set_nonce(&mut self, address: Address, nonce: u64) {
        let basic = Basic { nonce, ..self.world.basic(&address).unwrap_or_default() };
        self.world.put_basic(&mut self.loose, address, Some(basic));
    }

    /// Sets the code of an account outside of any block.
    pub fn set_code(&mut self, address: Address, code: Bytes) {
        let code_hash = self.world.put_code(code);
        let basic = Basic { code_hash, ..self.world.basic(&address).unwrap_or_default() };
        self.world.put_basic(&mut self.loose, address, Some(basic));
    }

    /// Sets a storage slot outside of any block.
    pub fn set_storage(&mut self, address: Address, slot: U256, value: U256) {
        self.world.put_slot(&mut self.loose, address, slot, value);
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
            world: self.world.clone(),
            undos: self.undos.clone(),
            loose: self.loose.clone(),
        };
        self.snapshots.insert(id, snapshot);
        Ok(id)
    }

    /// Goes back to a snapshot; it and all later ones are used up. Returns the blocks that are no
    /// longer part of the chain, oldest first, or `None` when there is no such snapshot.
    pub fn revert(&mut self, id: u64) -> Option<Vec<Arc<Block>>> {
        let snapshot = self.snapshots.remove(&id)?;
        self.snapshots.split_off(&id);
        let dropped = self.blocks.split_off(snapshot.blocks.min(self.blocks.len()));
        for block in &dropped {
            self.by_hash.remove(&block.hash);
            for hash in block.transaction_hashes() {
                self.transactions.remove(&hash);
            }
        }
        if let Some(head) = self.blocks.last() {
            self.head = Arc::clone(head);
        }
        self.world = snapshot.world;
        self.undos = snapshot.undos;
        self.loose = snapshot.loose;
        Some(dropped)
    }
}
