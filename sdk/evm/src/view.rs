//! Reading state: of the head, of a past block, with overrides; and the databases that revm reads.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy::rpc::types::state::StateOverride;
use revm::state::{AccountInfo, Bytecode, EvmState};
use revm::{Database, DatabaseCommit};

use crate::block::Block;
use crate::world::{Basic, Undo, World};

/// The state after one block, to be read and called but not changed.
#[derive(Debug)]
pub struct StateView<'a> {
    world: &'a World,
    blocks: &'a [Arc<Block>],
    /// Values of the past that differ from the head's.
    past: Undo,
    codes: HashMap<B256, Bytecode>,
    /// Accounts whose storage is only what `past` says.
    replaced_storage: Vec<Address>,
}

impl<'a> StateView<'a> {
    pub(crate) fn new(world: &'a World, blocks: &'a [Arc<Block>], past: Undo) -> Self {
        Self { world, blocks, past, codes: HashMap::new(), replaced_storage: Vec::new() }
    }

    fn account(&self, address: &Address) -> Option<Basic> {
        match self.past.accounts.get(address) {
            Some(before) => *before,
            None => self.world.basic(address),
        }
    }

    /// Balance in wei; zero for an account that does not exist.
    pub fn balance(&self, address: &Address) -> U256 {
        self.account(address).unwrap_or_default().balance
    }

    /// Nonce; zero for an account that does not exist.
    pub fn nonce(&self, address: &Address) -> u64 {
        self.account(address).unwrap_or_default().nonce
    }

    /// Hash of the code; that of no bytes for an account without code.
    pub fn code_hash(&self, address: &Address) -> B256 {
        self.account(address).unwrap_or_default().code_hash
    }

    /// Code of a contract; empty for other accounts.
    pub fn code(&self, address: &Address) -> Bytes {
        match self.code_hash(address) {
            KECCAK256_EMPTY => Bytes::new(),
            hash => self.bytecode(&hash).original_bytes(),
        }
    }

    /// One storage slot; zero when never written.
    pub fn storage_at(&self, address: &Address, slot: &U256) -> U256 {
        if let Some(value) = self.past.storage.get(address).and_then(|slots| slots.get(slot)) {
            return *value;
        }
        if self.replaced_storage.contains(address) {
            return U256::ZERO;
        }
        self.world.slot(address, slot)
    }

    fn bytecode(&self, hash: &B256) -> Bytecode {
        self.codes.get(hash).cloned().unwrap_or_else(|| self.world.code(hash))
    }

    /// Replaces parts of the state for one call, as `eth_call` allows it.
    ///
    /// # Errors
    /// When an override asks for something that this chain does not do, or contradicts itself.
    pub fn apply_overrides(&mut self, overrides: StateOverride) -> Result<(), String> {
        for (address, change) in overrides {
            if change.move_precompile_to.is_some() {
                return Err("state override movePrecompileToAddress is not supported".to_owned());
            }
            if change.state.is_some() && change.state_diff.is_some() {
                return Err(format!("account {address} has both 'state' and 'stateDiff'"));
            }
            let mut basic = self.account(&address).unwrap_or_default();
            basic.balance = change.balance.unwrap_or(basic.balance);
            basic.nonce = change.nonce.unwrap_or(basic.nonce);
            if let Some(code) = change.code {
                let code = Bytecode::new_raw_checked(code).map_err(|e| e.to_string())?;
                basic.code_hash = code.hash_slow();
                self.codes.insert(basic.code_hash, code);
            }
            self.past.accounts.insert(address, Some(basic));
            let slots = self.past.storage.entry(address).or_default();
            if let Some(state) = change.state {
                slots.clear();
                self.replaced_storage.push(address);
                slots.extend(
                    state
                        .into_iter()
                        .map(|(k, v)| (U256::from_be_bytes(k.0), U256::from_be_bytes(v.0))),
                );
            }
            if let Some(diff) = change.state_diff {
                slots.extend(
                    diff.into_iter()
                        .map(|(k, v)| (U256::from_be_bytes(k.0), U256::from_be_bytes(v.0))),
                );
            }
        }
        Ok(())
    }
}

fn info(basic: Basic) -> AccountInfo {
    let mut info = AccountInfo { balance: basic.balance, nonce: basic.nonce, ..Default::default() };
    info.code_hash = basic.code_hash;
    if basic.code_hash != KECCAK256_EMPTY {
        info.code = None;
    }
    info
}

/// revm asks only for the last 256 blocks (BLOCKHASH).
fn block_hash(blocks: &[Arc<Block>], number: u64) -> B256 {
    usize::try_from(number).ok().and_then(|i| blocks.get(i)).map(|b| b.hash).unwrap_or_default()
}

impl Database for StateView<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.account(&address).map(info))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.bytecode(&hash))
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.storage_at(&address, &slot))
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        Ok(block_hash(self.blocks, number))
    }
}

/// The head's state while a block is being built on it.
#[derive(Debug)]
pub(crate) struct BuildDb<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) undo: &'a mut Undo,
    pub(crate) blocks: &'a [Arc<Block>],
}

impl Database for BuildDb<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.world.basic(&address).map(info))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.world.code(&hash))
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.world.slot(&address, &slot))
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        Ok(block_hash(self.blocks, number))
    }
}

impl DatabaseCommit for BuildDb<'_> {
    fn commit(&mut self, changes: EvmState) {
        self.world.commit(self.undo, changes);
    }
}
