//! What the transactions of one block read and write, on top of the state before it.
//!
//! The state itself changes once, when the block is over: what is written twice is hashed once, and what is left beside a
//! cleared slot (see [`Missing::BesideSlot`]) is that of the block's end.

use std::collections::BTreeSet;
use std::convert::Infallible;

use alloy::primitives::map::{AddressMap, U256Map};
use alloy::primitives::{Address, B256, U256, keccak256};
use revm::state::{AccountInfo, Bytecode, EvmState};
use revm::{Database, DatabaseCommit, DatabaseRef};

use crate::replay::Readable;
use crate::state::{Basic, State, slot_key};
use crate::trie::Trie;
use crate::witness::Missing;

/// A slot before the block and now.
#[derive(Debug)]
struct Slot {
    was: U256,
    is: U256,
}

#[derive(Debug)]
struct Account {
    /// `None` if it does not exist.
    info: Option<AccountInfo>,
    is_changed: bool,
    /// Whether what its storage held before the block is gone.
    is_new: bool,
    slots: U256Map<Slot>,
}

/// A block on its way.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    before: &'a Readable,
    accounts: AddressMap<Account>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(before: &'a Readable) -> Self {
        Self { before, accounts: AddressMap::default() }
    }

    fn account(&mut self, address: Address) -> &mut Account {
        self.accounts.entry(address).or_insert_with(|| Account {
            info: self.before.info(&address),
            is_changed: false,
            is_new: false,
            slots: U256Map::default(),
        })
    }

    pub(crate) fn has_code(&mut self, address: Address) -> bool {
        self.account(address).info.as_ref().is_some_and(|info| !info.is_empty_code_hash())
    }

    /// Adds wei that come from nowhere: those of a withdrawal (EIP-4895).
    pub(crate) fn credit(&mut self, address: Address, wei: U256) {
        let account = self.account(address);
        let mut info = account.info.clone().unwrap_or_default();
        info.balance = info.balance.saturating_add(wei);
        account.info = (!info.is_empty()).then_some(info);
        account.is_changed = true;
    }

    /// The state after the block.
    ///
    /// # Errors
    /// What must be known for that.
    pub(crate) fn finish(self) -> Result<State, BTreeSet<Missing>> {
        let mut missing = self.before.take_missing();
        let mut state = self.before.state.clone();
        if missing.is_empty() {
            let changed = self.accounts.into_iter().filter(|(_, account)| account.is_changed);
            let (there, gone): (Vec<_>, Vec<_>) =
                changed.partition(|(_, account)| account.info.is_some());
            for (address, account) in there {
                account.apply(address, &mut state, &mut missing);
            }
            // What is left beside them is known when everything else is there.
            for (address, _) in gone.into_iter().filter(|_| !state.keeps_zeros) {
                let key = keccak256(address);
                match state.accounts.orphan(&key) {
                    Some(_) => _ = missing.insert(Missing::BesideAccount(address)),
                    None => state.accounts.remove(&key),
                }
            }
        }
        if missing.is_empty() { Ok(state) } else { Err(missing) }
    }
}

impl Account {
    fn apply(self, address: Address, state: &mut State, missing: &mut BTreeSet<Missing>) {
        let keeps_zeros = state.keeps_zeros;
        let Some(AccountInfo { balance, nonce, code_hash, code, .. }) = self.info else { return };
        state.change(&keccak256(address), |now| {
            if self.is_new {
                now.storage = Trie::default();
            }
            let changed = self.slots.iter().filter(|(_, slot)| slot.was != slot.is);
            let (cleared, set): (Vec<_>, Vec<_>) =
                changed.partition(|(_, slot)| slot.is.is_zero() && !keeps_zeros);
            for (slot, value) in set {
                now.storage.insert(&slot_key(slot), value.is);
            }
            for (slot, _) in cleared {
                let key = slot_key(slot);
                match now.storage.orphan(&key) {
                    Some(_) => _ = missing.insert(Missing::BesideSlot(address, *slot)),
                    None => now.storage.remove(&key),
                }
            }
            if let Some(code) = code.filter(|_| code_hash != now.basic.code_hash) {
                now.code = code;
            }
            now.basic = Basic { balance, nonce, code_hash };
        });
    }
}

impl Database for Overlay<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.account(address).info.clone())
    }

    /// Never asked: accounts come with their code.
    fn code_by_hash(&mut self, _: B256) -> Result<Bytecode, Infallible> {
        Ok(Bytecode::default())
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        let before = self.before;
        let account = self.account(address);
        let read = || if account.is_new { U256::ZERO } else { before.slot(&address, &slot) };
        let slot = account.slots.entry(slot).or_insert_with(|| {
            let was = read();
            Slot { was, is: was }
        });
        Ok(slot.is)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        self.before.block_hash_ref(number)
    }
}

impl DatabaseCommit for Overlay<'_> {
    fn commit(&mut self, changes: EvmState) {
        for (address, change) in changes {
            if !change.is_touched() {
                continue;
            }
            let account = self.account(address);
            account.is_changed = true;
            if change.is_selfdestructed() || change.is_empty() {
                (account.info, account.is_new) = (None, true);
                account.slots.clear();
                continue;
            }
            if change.is_created() {
                account.is_new = true;
                account.slots.clear();
            }
            for (slot, value) in change.changed_storage_slots() {
                let was = value.original_value;
                let slot = account.slots.entry(*slot);
                slot.or_insert(Slot { was, is: was }).is = value.present_value;
            }
            account.info = Some(change.info);
        }
    }
}
