//! States of which only a part is known: what must be told of them, and who may tell it.
//!
//! A state begins as a root. Proofs of its accounts and slots (`eth_getProof`) open it where they lead, and can tell
//! nothing else than what the root commits to.

use std::fmt;

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};

use crate::state::{Account, State, bytecode, slot_key};
use crate::trie::{Found, Nodes, Trie};

/// Something of a state that is not known, and must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    /// An account with its code.
    Account(Address),
    /// A slot of its storage.
    Slot(Address, U256),
    /// What is left beside an account that a block takes out: a proof after the block tells it.
    BesideAccount(Address),
    /// What is left beside a slot that a block clears: a proof after the block tells it.
    BesideSlot(Address, U256),
}

/// What is told of an account does not follow from the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A node on the way is missing.
    #[error("the proof lacks the node with hash {hash}")]
    Lacks {
        /// The hash, which the node above names.
        hash: B256,
    },
    /// A node that cannot be in a trie of Ethereum.
    #[error("the node with hash {hash} is no node of a state trie")]
    NoNode {
        /// Its hash.
        hash: B256,
    },
    /// The code is another one.
    #[error("the code has hash {found}, not {expected}")]
    Code {
        /// What the account says.
        expected: B256,
        /// What was told.
        found: B256,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(address) | Self::BesideAccount(address) => write!(f, "account {address}"),
            Self::Slot(address, slot) | Self::BesideSlot(address, slot) => {
                write!(f, "slot {slot:#x} of {address}")
            }
        }
    }
}

impl State {
    /// A state with this root, of which nothing else is known. If it `keeps_zeros`, a slot that is cleared stays in its
    /// trie with a zero, as on anvil.
    pub fn behind(root: B256, keeps_zeros: bool) -> Self {
        Self { accounts: Trie::behind(root), keeps_zeros }
    }

    /// Takes in the nodes of proofs of an account and some of its slots.
    ///
    /// # Errors
    /// When they do not lead from the root to there.
    pub fn reveal(
        &mut self,
        address: &Address,
        slots: &[U256],
        nodes: &[Bytes],
    ) -> Result<(), ProofError> {
        let nodes = Nodes::new(nodes);
        let Some(account) = self.accounts.reveal(&keccak256(address), &nodes)? else {
            return Ok(());
        };
        for slot in slots {
            account.storage.reveal(&slot_key(slot), &nodes)?;
        }
        Ok(())
    }

    /// Takes in the nodes of proofs of a later state, in which an account, or slots of it, are gone: see
    /// [`Missing::BesideAccount`].
    ///
    /// # Errors
    /// When they do not tell what was left beside.
    pub fn adopt(
        &mut self,
        address: &Address,
        slots: &[U256],
        nodes: &[Bytes],
    ) -> Result<(), ProofError> {
        let (key, nodes) = (keccak256(address), Nodes::new(nodes));
        if slots.is_empty() {
            return self.accounts.adopt(&key, &nodes);
        }
        let Some(account) = self.accounts.reveal(&key, &nodes)? else { return Ok(()) };
        for slot in slots {
            account.storage.adopt(&slot_key(slot), &nodes)?;
        }
        Ok(())
    }

    /// Hash of the code of a known account whose code is not known.
    pub fn lacks_code(&self, address: &Address) -> Option<B256> {
        match self.accounts.find(&keccak256(address)) {
            Found::Value(account) if account.lacks_code() => Some(account.basic.code_hash),
            _ => None,
        }
    }

    /// Takes in the code of an account.
    ///
    /// # Errors
    /// When it is another one.
    pub fn learn_code(&mut self, address: &Address, code: Bytes) -> Result<(), ProofError> {
        let Some(expected) = self.lacks_code(address) else { return Ok(()) };
        let found = keccak256(&code);
        if found != expected {
            return Err(ProofError::Code { expected, found });
        }
        let nothing = Nodes::new([]);
        if let Some(account) = self.accounts.reveal(&keccak256(address), &nothing)? {
            account.code = bytecode(code);
        }
        Ok(())
    }

    /// An account, if it is known whole but for its storage.
    pub(crate) fn find(&self, address: &Address) -> Found<&Account> {
        match self.accounts.find(&keccak256(address)) {
            Found::Value(account) if account.lacks_code() => Found::Hidden,
            found => found,
        }
    }

    /// A slot; what is not there is zero.
    pub(crate) fn find_slot(&self, address: &Address, slot: &U256) -> Found<U256> {
        match self.accounts.find(&keccak256(address)) {
            Found::Value(account) => match account.storage.find(&slot_key(slot)) {
                Found::Value(value) => Found::Value(*value),
                Found::Nothing => Found::Nothing,
                Found::Hidden => Found::Hidden,
            },
            Found::Nothing => Found::Nothing,
            Found::Hidden => Found::Hidden,
        }
    }
}
