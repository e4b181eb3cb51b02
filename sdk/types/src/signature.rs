//! Signatures of hashes, by Bitcoin Core's library: a router makes one and checks one for each answer, and this is
//! several times as fast as what `alloy` has.

use alloy::primitives::{Address, B256, Signature, U256};
use secp256k1::{
    Message, SECP256K1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};

/// The bytes are no private key: zero, or not below the curve's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no private key of secp256k1")]
pub struct BadKey;

/// A private key that signs hashes. The same signatures as `alloy`'s: deterministic (RFC 6979), with a low `s`.
#[derive(Clone)]
pub struct SigningKey(SecretKey);

impl SigningKey {
    /// A key from its bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn new(bytes: B256) -> Result<Self, BadKey> {
        SecretKey::from_byte_array(bytes.0).map(Self).map_err(|_| BadKey)
    }

    /// Signs a hash.
    pub fn sign_hash(&self, hash: &B256) -> Signature {
        let message = Message::from_digest(hash.0);
        let signed = SECP256K1.sign_ecdsa_recoverable(message, &self.0);
        let (id, bytes) = signed.serialize_compact();
        let (r, s) = bytes.split_at(32);
        let is_odd = i32::from(id) & 1 == 1;
        Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), is_odd)
    }
}

/// Who signed a hash; `None` if nobody can have.
pub(crate) fn recover(hash: &B256, signature: &Signature) -> Option<Address> {
    let id = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let mut bytes = [0_u8; 64];
    let (r, s) = bytes.split_at_mut(32);
    r.copy_from_slice(&signature.r().to_be_bytes::<32>());
    s.copy_from_slice(&signature.s().to_be_bytes::<32>());
    let signature = RecoverableSignature::from_compact(&bytes, id).ok()?;
    let key = SECP256K1.recover_ecdsa(Message::from_digest(hash.0), &signature).ok()?;
    // The first byte says how the key is written.
    Some(Address::from_raw_public_key(&key.serialize_uncompressed()[1..]))
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync, local::PrivateKeySigner};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_sign_and_are_recovered_as_alloys_are(key: [u8; 32], hash: [u8; 32]) {
            let hash = B256::from(hash);
            let (Ok(mine), Ok(theirs)) =
                (SigningKey::new(key.into()), PrivateKeySigner::from_bytes(&key.into()))
            else {
                return Ok(());
            };
            let signature = mine.sign_hash(&hash);
            prop_assert_eq!(signature, theirs.sign_hash_sync(&hash).unwrap());
            prop_assert_eq!(recover(&hash, &signature), Some(theirs.address()));
        }

        #[test]
        fn any_signature_is_recovered_as_by_alloy(r: [u8; 32], s: [u8; 32], v: bool, hash: [u8; 32]) {
            let hash = B256::from(hash);
            let signature = Signature::new(U256::from_be_bytes(r), U256::from_be_bytes(s), v);
            // Who takes a high `s` is asked for a low one first; both mean the same key.
            prop_assert_eq!(
                recover(&hash, &signature),
                signature.recover_address_from_prehash(&hash).ok()
            );
        }
    }

    #[test]
    fn zero_and_the_curves_order_are_no_keys() {
        let order = alloy::primitives::b256!(
            "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
        );
        assert!(SigningKey::new(B256::ZERO).is_err());
        assert!(SigningKey::new(order).is_err());
    }
}
