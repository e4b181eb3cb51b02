//! The state of all accounts in memory, and what is needed to go back from it.

use std::collections::HashMap;

use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Keccak256, U256};
use revm::state::{Account, AccountInfo, Bytecode, EvmState};

/// Balance, nonce and code of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basic {
    /// Balance in wei.
    pub balance: U256,
    /// Number of transactions sent, or of contracts created.
    pub nonce: u64,
    /// Keccak-256 of the code; [`KECCAK256_EMPTY`] without code.
    pub code_hash: B256,
}

impl Default for Basic {
    fn default() -> Self {
        Self { balance: U256::ZERO, nonce: 0, code_hash: KECCAK256_EMPTY }
    }
}

/// The values that a block replaced: applied to the state after the block they give the state before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undo {
    pub(crate) accounts: HashMap<Address, Option<Basic>>,
    pub(crate) storage: HashMap<Address, HashMap<U256, U256>>,
}

impl Undo {
    /// Lays an older undo over this one: the result leads from the newer state to the oldest.
    pub(crate) fn absorb_older(&mut self, older: &Self) {
        for (address, before) in &older.accounts {
            self.accounts.insert(*address, *before);
        }
        for (address, slots) in &older.storage {
            self.storage.entry(*address).or_default().extend(slots.iter().map(|(k, v)| (*k, *v)));
        }
    }
}

/// All accounts, their storage and code.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    accounts: HashMap<Address, Basic>,
    storage: HashMap<Address, HashMap<U256, U256>>,
    codes: HashMap<B256, Bytecode>,
}

impl World {
    pub(crate) fn basic(&self, address: &Address) -> Option<Basic> {
        self.accounts.get(address).copied()
    }

    pub(crate) fn slot(&self, address: &Address, slot: &U256) -> U256 {
        self.storage.get(address).and_then(|slots| slots.get(slot)).copied().unwrap_or_default()
    }

    pub(crate) fn code(&self, hash: &B256) -> Bytecode {
        self.codes.get(hash).cloned().unwrap_or_default()
    }

    /// Writes an account, and notes its former value once per undo.
    pub(crate) fn put_basic(&mut self, undo: &mut Undo, address: Address, basic: Option<Basic>) {
        let before = match basic {
            Some(basic) => self.accounts.insert(address, basic),
            None => self.accounts.remove(&address),
        };
        undo.accounts.entry(address).or_insert(before);
    }

    /// Writes a storage slot, and notes its former value once per undo.
    pub(crate) fn put_slot(&mut self, undo: &mut Undo, address: Address, slot: U256, value: U256) {
        let slots = self.storage.entry(address).or_default();
        let before = if value.is_zero() { slots.remove(&slot) } else { slots.insert(slot, value) };
        undo.storage
            .entry(address)
            .or_default()
            .entry(slot)
            .or_insert_with(|| before.unwrap_or_default());
    }

    /// Keeps code under its hash. Code is never dropped: a hash always means the same bytes.
    pub(crate) fn put_code(&mut self, code: Bytes) -> B256 {
        if code.is_empty() {
            return KECCAK256_EMPTY;
        }
        let code = Bytecode::new_legacy(code);
        let hash = code.hash_slow();
        self.codes.insert(hash, code);
        hash
    }

    /// Applies what a transaction changed.
    pub(crate) fn commit(&mut self, undo: &mut Undo, changes: EvmState) {
        for (address, account) in changes {
            if account.is_touched() {
                self.commit_account(undo, address, account);
            }
        }
    }

    fn commit_account(&mut self, undo: &mut Undo, address: Address, account: Account) {
        if account.is_selfdestructed() || account.is_created() {
            // A created account starts with empty storage, a destroyed one ends with it.
            let slots: Vec<U256> =
                self.storage.get(&address).map(|s| s.keys().copied().collect()).unwrap_or_default();
            for slot in slots {
                self.put_slot(undo, address, slot, U256::ZERO);
            }
        }
        // EIP-161: an empty account that was touched does not exist.
        if account.is_selfdestructed() || account.is_empty() {
            self.put_basic(undo, address, None);
            return;
        }
        for (slot, value) in account.changed_storage_slots() {
            self.put_slot(undo, address, *slot, value.present_value);
        }
        let AccountInfo { balance, nonce, code_hash, code, .. } = account.info;
        if code_hash != KECCAK256_EMPTY
            && let Some(code) = code
        {
            self.codes.entry(code_hash).or_insert(code);
        }
        let basic = Basic { balance, nonce, code_hash };
        if self.accounts.get(&address) != Some(&basic) {
            self.put_basic(undo, address, Some(basic));
        }
    }

    /// Goes back to the state before `undo` was recorded.
    pub(crate) fn revert(&mut self, undo: Undo) {
        for (address, before) in undo.accounts {
            match before {
                Some(basic) => self.accounts.insert(address, basic),
                None => self.accounts.remove(&address),
            };
        }
        for (address, slots) in undo.storage {
            let storage = self.storage.entry(address).or_default();
            for (slot, before) in slots {
                if before.is_zero() {
                    storage.remove(&slot);
                } else {
                    storage.insert(slot, before);
                }
            }
        }
    }

    /// Keccak-256 of the parent's digest and of every value that the block wrote, in the order of
    /// addresses and slots. It is the same for the same writes, and commits to the whole history.
    pub(crate) fn digest(&self, parent: B256, undo: &Undo) -> B256 {
        let mut hasher = Keccak256::new();
        hasher.update(parent);
        let mut addresses: Vec<_> = undo.accounts.keys().collect();
        addresses.sort_unstable();
        for address in addresses {
            hasher.update(address);
            match self.accounts.get(address) {
                None => hasher.update([0]),
                Some(basic) => {
                    hasher.update([1]);
                    hasher.update(basic.balance.to_be_bytes::<32>());
                    hasher.update(basic.nonce.to_be_bytes());
                    hasher.update(basic.code_hash);
                }
            }
        }
        let mut written: Vec<_> = undo
            .storage
            .iter()
            .flat_map(|(address, slots)| slots.keys().map(move |slot| (address, slot)))
            .collect();
        written.sort_unstable();
        for (address, slot) in written {
            hasher.update(address);
            hasher.update(slot.to_be_bytes::<32>());
            hasher.update(self.slot(address, slot).to_be_bytes::<32>());
        }
        hasher.finalize()
    }
}
