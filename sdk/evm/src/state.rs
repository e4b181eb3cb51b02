//! The state of all accounts: one trie of accounts, each with a trie of its storage.
//!
//! A copy takes no time (see [`crate::trie`]): the states of past blocks, of snapshots, of a block in
//! the making and of a call are all copies.

use alloy::consensus::TrieAccount;
use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy::rlp::Decodable;
use revm::state::{AccountInfo, Bytecode, EvmState};

use crate::change::AccountChange;
use crate::trie::{Trie, Value};

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

#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) basic: Basic,
    /// Empty also where it is not known: see [`Account::lacks_code`].
    pub(crate) code: Bytecode,
    pub(crate) storage: Trie<U256>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            basic: Basic { balance: U256::ZERO, nonce: 0, code_hash: KECCAK256_EMPTY },
            code: Bytecode::default(),
            storage: Trie::default(),
        }
    }
}

impl Account {
    /// Whether it has code that nobody has told yet.
    pub(crate) fn lacks_code(&self) -> bool {
        self.basic.code_hash != KECCAK256_EMPTY && self.code.is_empty()
    }

    /// As revm sees it.
    pub(crate) fn info(&self) -> AccountInfo {
        let Basic { balance, nonce, code_hash } = self.basic;
        let mut info = AccountInfo { balance, nonce, ..AccountInfo::default() };
        info.code_hash = code_hash;
        info.code = Some(self.code.clone());
        info
    }

    /// EIP-161: such an account does not exist.
    fn is_empty(&self) -> bool {
        let Basic { balance, nonce, code_hash } = self.basic;
        balance.is_zero() && nonce == 0 && code_hash == KECCAK256_EMPTY
    }

    fn set_slot(&mut self, key: &B256, value: U256) {
        if value.is_zero() {
            self.storage.remove(key);
        } else {
            self.storage.insert(key, value);
        }
    }

    fn set_code(&mut self, code: Bytecode) {
        self.basic.code_hash = code.hash_slow();
        self.code = code;
    }
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.basic == other.basic && self.storage.root() == other.storage.root()
    }
}

impl Value for Account {
    fn rlp(&self) -> Vec<u8> {
        let Basic { balance, nonce, code_hash } = self.basic;
        let storage_root = self.storage.root();
        alloy::rlp::encode(TrieAccount { nonce, balance, storage_root, code_hash })
    }

    fn from_rlp(mut bytes: &[u8]) -> alloy::rlp::Result<Self> {
        let TrieAccount { nonce, balance, storage_root, code_hash } =
            Decodable::decode(&mut bytes)?;
        let basic = Basic { balance, nonce, code_hash };
        Ok(Self { basic, code: Bytecode::default(), storage: Trie::behind(storage_root) })
    }
}

impl Value for U256 {
    fn rlp(&self) -> Vec<u8> {
        alloy::rlp::encode(self)
    }

    fn from_rlp(mut bytes: &[u8]) -> alloy::rlp::Result<Self> {
        Self::decode(&mut bytes)
    }
}

/// What `eth_getProof` says of an account, to be checked against the root of the state.
#[derive(Debug, Clone)]
pub struct AccountProof {
    /// The account; without balance, nonce and code where it does not exist.
    pub basic: Basic,
    /// Root of its storage.
    pub storage_root: B256,
    /// Encoded nodes on the way to the account.
    pub nodes: Vec<Bytes>,
    /// For every slot that was asked for: its value, and the nodes on the way to it.
    pub slots: Vec<(U256, Vec<Bytes>)>,
}

/// All accounts, their storage and code, at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(crate) accounts: Trie<Account>,
    /// Whether a slot that is cleared stays in its trie, with a zero.
    pub(crate) keeps_zeros: bool,
}

impl State {
    /// The hash that commits to everything in it: `stateRoot` of a block.
    pub fn root(&self) -> B256 {
        self.accounts.root()
    }

    fn account(&self, address: &Address) -> Option<&Account> {
        self.accounts.get(&keccak256(address))
    }

    /// An account as revm sees it.
    pub(crate) fn info(&self, address: &Address) -> Option<AccountInfo> {
        self.account(address).map(Account::info)
    }

    pub(crate) fn basic(&self, address: &Address) -> Basic {
        self.account(address).map_or_else(|| Account::default().basic, |account| account.basic)
    }

    pub(crate) fn code(&self, address: &Address) -> Bytecode {
        self.account(address).map(|account| account.code.clone()).unwrap_or_default()
    }

    pub(crate) fn slot(&self, address: &Address, slot: &U256) -> U256 {
        self.account(address)
            .and_then(|account| account.storage.get(&slot_key(slot)))
            .copied()
            .unwrap_or_default()
    }

    /// Proves an account and some of its slots.
    pub(crate) fn prove(&self, address: &Address, slots: &[U256]) -> AccountProof {
        let key = keccak256(address);
        let account = self.accounts.get(&key).cloned().unwrap_or_default();
        let slot = |slot: &U256| {
            let key = slot_key(slot);
            let value = account.storage.get(&key).copied().unwrap_or_default();
            (value, account.storage.prove(&key))
        };
        AccountProof {
            slots: slots.iter().map(slot).collect(),
            storage_root: account.storage.root(),
            nodes: self.accounts.prove(&key),
            basic: account.basic,
        }
    }

    /// Changes an account, or makes it. One that is left with nothing at all is taken out.
    pub(crate) fn change(&mut self, key: &B256, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(key) {
            change(account);
            if account.is_empty() && account.storage.is_empty() {
                self.accounts.remove(key);
            }
            return;
        }
        let mut account = Account::default();
        change(&mut account);
        if !account.is_empty() || !account.storage.is_empty() {
            self.accounts.insert(key, account);
        }
    }

    pub(crate) fn set_balance(&mut self, address: &Address, balance: U256) {
        self.change(&keccak256(address), |account| account.basic.balance = balance);
    }

    pub(crate) fn set_nonce(&mut self, address: &Address, nonce: u64) {
        self.change(&keccak256(address), |account| account.basic.nonce = nonce);
    }

    pub(crate) fn set_code(&mut self, address: &Address, code: Bytecode) {
        self.change(&keccak256(address), |account| account.set_code(code));
    }

    pub(crate) fn set_slot(&mut self, address: &Address, slot: &U256, value: U256) {
        self.change(&keccak256(address), |account| account.set_slot(&slot_key(slot), value));
    }

    pub(crate) fn clear_storage(&mut self, address: &Address) {
        self.change(&keccak256(address), |account| account.storage = Trie::default());
    }

    /// Applies what a transaction changed.
    pub(crate) fn commit(&mut self, changes: EvmState) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            let key = keccak256(address);
            if account.is_selfdestructed() || account.is_empty() {
                self.accounts.remove(&key);
                continue;
            }
            self.change(&key, |now| {
                if account.is_created() {
                    now.storage = Trie::default();
                }
                for (slot, value) in account.changed_storage_slots() {
                    now.set_slot(&slot_key(slot), value.present_value);
                }
                let AccountInfo { balance, nonce, code_hash, code, .. } = account.info;
                if let Some(code) = code.filter(|_| code_hash != now.basic.code_hash) {
                    now.code = code;
                }
                now.basic = Basic { balance, nonce, code_hash };
            });
        }
    }

    /// What has changed since an `older` state.
    pub fn changes_since(&self, older: &Self) -> Vec<AccountChange> {
        let mut changes = Vec::new();
        let none = Account::default();
        self.accounts.diff(&older.accounts, &mut |key, before, now| {
            let (was, is) = (before.unwrap_or(&none), now.unwrap_or(&none));
            let mut slots = Vec::new();
            is.storage.diff(&was.storage, &mut |slot, _, value| {
                slots.push((slot, value.copied().unwrap_or_default()));
            });
            let new_code = was.basic.code_hash != is.basic.code_hash;
            changes.push(AccountChange {
                key,
                basic: now.map(|account| account.basic),
                code: if new_code { is.code.original_bytes() } else { Bytes::new() },
                slots,
            });
        });
        changes
    }

    /// Applies what [`State::changes_since`] found.
    pub fn apply(&mut self, change: AccountChange) {
        let Some(basic) = change.basic else {
            self.accounts.remove(&change.key);
            return;
        };
        self.change(&change.key, |account| {
            if !change.code.is_empty() {
                account.code = bytecode(change.code);
            } else if basic.code_hash == KECCAK256_EMPTY {
                account.code = Bytecode::default();
            }
            account.basic = basic;
            for (slot, value) in &change.slots {
                account.set_slot(slot, *value);
            }
        });
    }
}

/// Code as the chain holds it; a delegation (EIP-7702) is recognised by its first bytes.
pub(crate) fn bytecode(code: Bytes) -> Bytecode {
    Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code))
}

pub(crate) fn slot_key(slot: &U256) -> B256 {
    keccak256(slot.to_be_bytes::<32>())
}
