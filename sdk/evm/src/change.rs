//! How two states differ, and the form in which that is stored.

use alloy::primitives::{B256, Bytes, U256};
use alloy::rlp::{Decodable, Encodable, Header, encode_list};

use crate::state::Basic;

/// How an account differs between two states. In RLP it is a list of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChange {
    /// Keccak-256 of the address: what the trie knows of it.
    pub key: B256,
    /// What it is now; `None` when it no longer exists.
    pub basic: Option<Basic>,
    /// Its code now, if it has another one; empty if not.
    pub code: Bytes,
    /// Storage that has changed: keccak-256 of the slot, and its value now. Zero when it is cleared.
    pub slots: Vec<(B256, U256)>,
}

impl Encodable for AccountChange {
    fn encode(&self, out: &mut dyn alloy::rlp::BufMut) {
        let mut fields: Vec<&dyn Encodable> = vec![&self.key, &self.code];
        let slots = self.slots.iter().flat_map(|(key, value)| [key as &dyn Encodable, value]);
        let slots_len = self.slots.len() as u64;
        fields.push(&slots_len);
        fields.extend(slots);
        if let Some(Basic { balance, nonce, code_hash }) = &self.basic {
            fields.extend([balance as &dyn Encodable, nonce, code_hash]);
        }
        encode_list::<_, dyn Encodable>(&fields, out);
    }
}

impl Decodable for AccountChange {
    fn decode(buf: &mut &[u8]) -> alloy::rlp::Result<Self> {
        let mut fields = Header::decode_bytes(buf, true)?;
        let fields = &mut fields;
        let (key, code) = (B256::decode(fields)?, Bytes::decode(fields)?);
        let slots = (0..u64::decode(fields)?)
            .map(|_| Ok((B256::decode(fields)?, U256::decode(fields)?)))
            .collect::<alloy::rlp::Result<_>>()?;
        let basic = if fields.is_empty() {
            None
        } else {
            Some(Basic {
                balance: U256::decode(fields)?,
                nonce: u64::decode(fields)?,
                code_hash: B256::decode(fields)?,
            })
        };
        Ok(Self { key, basic, code, slots })
    }
}
