//! Salts that the operator's key gives again: the same tokens make the same commitment, also with a database that
//! was lost or restored from a backup.

use alloy::{
    primitives::{B256, keccak256},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolValue,
};
use assay_types::{CommitScope, NodeId};

/// Domain of what the operator signs to get them. The signature is a secret: it never leaves this module.
const DOMAIN: &str = "assay.miner.salts.v1";

/// Salts of one task on one node.
#[derive(Clone, Copy)]
pub(crate) struct Salts {
    /// Of the result block.
    pub block: B256,
    /// Of H1.
    pub tokens: B256,
    /// Of H2.
    pub proof: B256,
}

impl Salts {
    /// By the operator's signature (RFC 6979: it has no randomness of its own) over the task and the node.
    pub(crate) fn of(
        operator: &PrivateKeySigner,
        scope: &CommitScope,
    ) -> Result<Self, alloy::signers::Error> {
        let secret = secret(operator, scope)?;
        let salt = |purpose: u32| keccak256((secret, purpose).abi_encode());
        Ok(Self { block: salt(1), tokens: salt(2), proof: salt(3) })
    }
}

/// Salt of what this node seals about the answer of `miner`.
pub(crate) fn audit_salt(
    operator: &PrivateKeySigner,
    scope: &CommitScope,
    miner: NodeId,
) -> Result<B256, alloy::signers::Error> {
    const AUDIT: u32 = 4;
    Ok(keccak256((secret(operator, scope)?, AUDIT, miner.0).abi_encode()))
}

fn secret(operator: &PrivateKeySigner, scope: &CommitScope) -> Result<B256, alloy::signers::Error> {
    let domain = keccak256(DOMAIN.as_bytes());
    let of = (domain, scope.chain_id, scope.queue, scope.task.0, scope.node.0);
    let signature = operator.sign_hash_sync(&keccak256(of.abi_encode()))?;
    Ok(keccak256(signature.as_bytes()))
}

#[cfg(test)]
mod tests {
    use assay_types::{Address, TaskId};

    use super::*;

    fn all(key: &PrivateKeySigner, task: u8, node: u32) -> [B256; 5] {
        let task = TaskId(B256::repeat_byte(task));
        let scope = CommitScope { chain_id: 1, queue: Address::ZERO, task, node: NodeId(node) };
        let salts = Salts::of(key, &scope).unwrap();
        let audit = |miner| audit_salt(key, &scope, NodeId(miner)).unwrap();
        [salts.block, salts.tokens, salts.proof, audit(5), audit(6)]
    }

    #[test]
    fn salts_are_the_same_again_and_different_for_all_else() {
        let (key, other) = (PrivateKeySigner::random(), PrivateKeySigner::random());
        assert_eq!(all(&key, 1, 1), all(&key, 1, 1));
        let mut seen =
            [all(&key, 1, 1), all(&key, 2, 1), all(&key, 1, 2), all(&other, 1, 1)].concat();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 20);
    }
}
