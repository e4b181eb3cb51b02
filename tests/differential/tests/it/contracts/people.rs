//! Who takes part: accounts with keys, and contracts that hold lanes and sessions.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address, B256, Bytes, bytes, keccak256},
    signers::{SignerSync, local::PrivateKeySigner},
};

/// Accounts of each role.
const CLIENTS: u8 = 4;
const ROUTERS: u8 = 3;
const OWNERS: u8 = 6;
const OPERATORS: u8 = 40;
/// With one who owns no other node each, there are enough owners for the panel of an appeal.
const JURORS: u8 = 12;

/// Answers every call with EIP-1271's magic word: a wallet that accepts every signature, and a consumer that takes
/// every answer.
const AGREEABLE: Bytes =
    bytes!("7f1626ba7e000000000000000000000000000000000000000000000000000000005f5260205ff3");
/// What a call of it costs: two pushes of three gas, two of two, and a first word of memory for six.
pub const AGREEABLE_GAS: u32 = 16;
/// Reverts every call.
const CONTRARY: Bytes = bytes!("5f5ffd");

pub struct People {
    pub governors: [Address; 2],
    pub publishers: [Address; 2],
    pub keepers: [Address; 2],
    /// The last two are the contracts below.
    pub clients: Vec<Address>,
    /// The last one is the agreeable contract.
    pub routers: Vec<Address>,
    pub owners: Vec<Address>,
    pub operators: Vec<Address>,
    /// Owners and operators of nodes that only networks with proven sessions have.
    pub jurors: Vec<Address>,
    pub agreeable: Address,
    pub contrary: Address,
    keys: BTreeMap<Address, PrivateKeySigner>,
}

fn key(role: &str, number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(format!("{role} {number}"))).unwrap()
}

impl People {
    pub fn new() -> Self {
        let mut keys = BTreeMap::new();
        let mut group = |role: &str, count: u8| -> Vec<Address> {
            let signers = (0..count).map(|number| key(role, number));
            signers.map(|key| (key.address(), keys.insert(key.address(), key)).0).collect()
        };
        let pair = |group: Vec<Address>| [group[0], group[1]];
        let (agreeable, contrary) = (Address::repeat_byte(0xa1), Address::repeat_byte(0xc0));
        Self {
            governors: pair(group("governor", 2)),
            publishers: pair(group("publisher", 2)),
            keepers: pair(group("keeper", 2)),
            clients: [group("client", CLIENTS), vec![agreeable, contrary]].concat(),
            routers: [group("router", ROUTERS), vec![agreeable]].concat(),
            owners: group("owner", OWNERS),
            operators: group("operator", OPERATORS),
            jurors: group("juror", JURORS),
            agreeable,
            contrary,
            keys,
        }
    }

    pub fn all(&self) -> Vec<Address> {
        let few = [self.governors, self.publishers, self.keepers].concat();
        let owners = [&self.owners, &self.operators, &self.jurors[..]].concat();
        [&few, &self.clients, &self.routers, &owners[..]].concat()
    }

    pub fn contracts(&self) -> [(Address, Bytes); 2] {
        [(self.agreeable, AGREEABLE), (self.contrary, CONTRARY)]
    }

    /// A signature by the account's key; of an account without one any bytes.
    pub fn sign(&self, account: Address, hash: B256) -> Bytes {
        match self.keys.get(&account) {
            Some(key) => key.sign_hash_sync(&hash).unwrap().as_bytes().to_vec().into(),
            None => vec![7; 65].into(),
        }
    }
}
