//! The signed request for one task (EIP-712).

use std::borrow::Cow;

use alloy::{
    primitives::{Address, B256, Signature, U256},
    sol_types::{Eip712Domain, SolStruct},
};

use crate::{Lane, Nonce, SessionId, TaskId, task_id};

alloy::sol! {
    /// A request for one task. Whoever holds the lane signs it or sends it.
    #[derive(Debug, PartialEq, Eq)]
    struct TaskRequest {
        uint64 sessionId;
        uint32 lane;
        uint64 nonce;
        bytes32 requestDigest;
        uint32 maxPrompt;
        uint32 maxOutput;
        uint128 feeCap;
        uint64 deadline;
        uint32 nodeId;
    }
}

/// EIP-712 domain of requests: name, version, chain and the `SessionQueue` that reads them.
pub fn domain(chain_id: u64, queue: Address) -> Eip712Domain {
    Eip712Domain {
        name: Some(Cow::Borrowed("Assay")),
        version: Some(Cow::Borrowed("1")),
        chain_id: Some(U256::from(chain_id)),
        verifying_contract: Some(queue),
        salt: None,
    }
}

/// Why a signature does not speak for anybody.
#[derive(Debug, thiserror::Error)]
pub enum RequestSignatureError {
    /// Not a signature over this request.
    #[error("the signature cannot be recovered: {0}")]
    Malformed(#[from] alloy::primitives::SignatureError),
    /// A second signature can be made from one with a high `s`; contracts refuse it.
    #[error("the signature's s is in the upper half of the curve order: sign again with a low s")]
    Malleable,
}

impl TaskRequest {
    /// Id of the task that this request asks for.
    pub fn task_id(&self, queue: Address) -> TaskId {
        task_id(queue, SessionId(self.sessionId), Lane(self.lane), Nonce(self.nonce))
    }

    /// The hash to sign.
    pub fn signing_hash(&self, chain_id: u64, queue: Address) -> B256 {
        self.eip712_signing_hash(&domain(chain_id, queue))
    }

    /// Who signed.
    pub fn signer(
        &self,
        chain_id: u64,
        queue: Address,
        signature: &Signature,
    ) -> Result<Address, RequestSignatureError> {
        if signature.normalize_s().is_some() {
            return Err(RequestSignatureError::Malleable);
        }
        Ok(signature.recover_address_from_prehash(&self.signing_hash(chain_id, queue))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::signers::{SignerSync, local::PrivateKeySigner};

    fn request() -> TaskRequest {
        TaskRequest {
            sessionId: 1,
            lane: 1,
            nonce: 7,
            requestDigest: B256::repeat_byte(3),
            maxPrompt: 100,
            maxOutput: 64,
            feeCap: 10_000,
            deadline: 1_800_000_000,
            nodeId: 2,
        }
    }

    #[test]
    fn signer_is_recovered_and_bound_to_chain_and_queue() {
        let key = PrivateKeySigner::random();
        let queue = Address::repeat_byte(9);
        let signature = key.sign_hash_sync(&request().signing_hash(31337, queue)).unwrap();
        assert_eq!(request().signer(31337, queue, &signature).unwrap(), key.address());
        assert_ne!(request().signer(1, queue, &signature).unwrap(), key.address());
        let other = Address::repeat_byte(8);
        assert_ne!(request().signer(31337, other, &signature).unwrap(), key.address());
    }
}
