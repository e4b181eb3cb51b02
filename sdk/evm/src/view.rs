//! Reading a state: that of the head, of a past block, with overrides; and as the database of revm.

use std::convert::Infallible;
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::rpc::types::state::StateOverride;
use revm::state::{AccountInfo, Bytecode, EvmState};
use revm::{Database, DatabaseCommit};

use crate::block::Block;
use crate::state::{AccountProof, State};

/// A state and the blocks that led to it. What is changed here changes nothing elsewhere.
#[derive(Debug)]
pub struct StateView<'a> {
    pub(crate) state: State,
    blocks: &'a [Arc<Block>],
}

impl<'a> StateView<'a> {
    pub(crate) const fn new(state: State, blocks: &'a [Arc<Block>]) -> Self {
        Self { state, blocks }
    }

    /// The state by itself.
    pub fn into_state(self) -> State {
        self.state
    }

    /// Balance in wei; zero for an account that does not exist.
    pub fn balance(&self, address: &Address) -> U256 {
        self.state.basic(address).balance
    }

    /// Nonce; zero for an account that does not exist.
    pub fn nonce(&self, address: &Address) -> u64 {
        self.state.basic(address).nonce
    }

    /// Hash of the code; that of no bytes for an account without code.
    pub fn code_hash(&self, address: &Address) -> B256 {
        self.state.basic(address).code_hash
    }

    /// Code of a contract; empty for other accounts.
    pub fn code(&self, address: &Address) -> Bytes {
        self.state.code(address).original_bytes()
    }

    /// One storage slot; zero when never written.
    pub fn storage_at(&self, address: &Address, slot: &U256) -> U256 {
        self.state.slot(address, slot)
    }

    /// Root of the state: `stateRoot` of the block, unless something was set by hand since.
    pub fn root(&self) -> B256 {
        self.state.root()
    }

    /// Proves an account, and some of its slots, against [`StateView::root`].
    pub fn prove(&self, address: &Address, slots: &[U256]) -> AccountProof {
        self.state.prove(address, slots)
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
            let state = &mut self.state;
            if let Some(code) = change.code {
                let code = Bytecode::new_raw_checked(code).map_err(|e| e.to_string())?;
                state.set_code(&address, code);
            }
            if let Some(balance) = change.balance {
                state.set_balance(&address, balance);
            }
            if let Some(nonce) = change.nonce {
                state.set_nonce(&address, nonce);
            }
            if change.state.is_some() {
                state.clear_storage(&address);
            }
            for (slot, value) in change.state.into_iter().chain(change.state_diff).flatten() {
                state.set_slot(&address, &slot.into(), value.into());
            }
        }
        Ok(())
    }
}

impl Database for StateView<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.state.info(&address))
    }

    /// Never asked: accounts come with their code.
    fn code_by_hash(&mut self, _: B256) -> Result<Bytecode, Infallible> {
        Ok(Bytecode::default())
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.state.slot(&address, &slot))
    }

    /// revm asks only for the last 256 blocks (BLOCKHASH).
    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        let block = usize::try_from(number).ok().and_then(|index| self.blocks.get(index));
        Ok(block.map(|block| block.hash).unwrap_or_default())
    }
}

impl DatabaseCommit for StateView<'_> {
    fn commit(&mut self, changes: EvmState) {
        self.state.commit(changes);
    }
}
