//! Rounds of a drand network whose secret everyone knows: see `script/beacon-vectors`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy::primitives::{Bytes, U256, aliases::U40, uint};
use assay_bindings::{
    DrandBeacon::DrandNetwork, ProofOfInference::closeEpochCall, RandomBeacon::revealCall,
};
use assay_protocol::{
    Call,
    beacon::{Beacon, Drand},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::{
    people::People,
    sequence::agree,
    world::{START_S, World},
};

const VECTORS: &str = include_str!("../../../../../contracts/test/vectors/beacon.json");
pub const DRAND: Drand = Drand { genesis_s: START_S, period_s: 10, max_drift_s: 20 };
const MODULUS: U256 =
    uint!(0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47_U256);
const CALLS: u32 = 2000;
/// Every error that a relayed round is refused with, but for too little gas.
const REFUSALS: [&str; 7] = [
    "RandomBeacon_AlreadyRevealed",
    "DrandBeacon_RoundZero",
    "DrandBeacon_RoundNotReady",
    "DrandBeacon_ProofLength",
    "DrandBeacon_CoordinateTooLarge",
    "DrandBeacon_NotOnCurve",
    "DrandBeacon_WrongSignature",
];

/// The network, and what it signed by round.
pub struct Published {
    key: [U256; 4],
    signatures: BTreeMap<u64, Bytes>,
}

impl Published {
    pub fn read() -> Self {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let test = &vectors["test"];
        let bytes = |value: &Value| value.as_str().unwrap().parse::<Bytes>().unwrap();
        let key = bytes(&test["publicKey"]);
        let word = |place: usize| U256::from_be_slice(&key[32 * place..32 * (place + 1)]);
        let rounds = test["rounds"].as_array().unwrap().iter();
        let signed = |told: &Value| {
            (told["round"].as_str().unwrap().parse().unwrap(), bytes(&told["signature"]))
        };
        Self { key: [0, 1, 2, 3].map(word), signatures: rounds.map(signed).collect() }
    }

    pub fn network(&self) -> DrandNetwork {
        DrandNetwork { publicKey: self.key, genesis: DRAND.genesis_s, period: DRAND.period_s }
    }

    /// There is one signature of a round.
    pub fn is_signature(&self, round: u64, point: &[u8]) -> bool {
        self.signatures.get(&round).is_some_and(|signature| signature.as_ref() == point)
    }

    /// A round, and its signature or something that resembles it.
    fn relayed(&self, rng: &mut ChaCha8Rng, next: u64) -> (u64, Bytes) {
        let round = match rng.random_range(0..10) {
            0 => 0,
            1 => rng.random_range(0..=u64::MAX),
            2 => next,
            _ => rng.random_range(1..next.min(65)),
        };
        let signed = self.signatures.get(&round).or(self.signatures.get(&1)).unwrap().to_vec();
        let (x, y) = (U256::from_be_slice(&signed[..32]), U256::from_be_slice(&signed[32..]));
        let point = |x: U256, y: U256| [x.to_be_bytes::<32>(), y.to_be_bytes()].concat();
        let bytes = match rng.random_range(0..20) {
            0 => signed[..rng.random_range(0..64)].to_vec(),
            1 => [signed, vec![0]].concat(),
            2 => point(x + MODULUS, y),
            3 => point(x, y + MODULUS),
            4 => point(x, y ^ U256::from(1)),
            5 => point(U256::ZERO, U256::ZERO),
            // The same point on the other side.
            6 => point(x, MODULUS - y),
            7 => self.signatures[&rng.random_range(1..65)].to_vec(),
            _ => signed,
        };
        (round, bytes.into())
    }
}

/// `[E2]` The model predicts which rounds blocks name, and what becomes of every relayed one.
#[test]
fn contracts_and_model_agree_on_drands_rounds() {
    let mut world = World::deploy(Arc::new(People::new()), Beacon::Drand(DRAND));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut refused = BTreeSet::new();
    let (caller, epoch_s) = (world.people.keepers[0], 5);
    let mut time_s = world.now_s();
    for _ in 0..CALLS {
        time_s += u64::from(rng.random_ratio(1, 4));
        let (round, proof) = {
            let next = DRAND.round_at(time_s + DRAND.max_drift_s) + 1;
            world.published.relayed(&mut rng, next)
        };
        let call = match rng.random_ratio(1, 10) {
            true => closeEpochCall { epoch: U40::from(time_s / epoch_s - 1) }.into(),
            false => Call::Beacon(revealCall { round, proof }),
        };
        if let Err(refusal) = agree(&mut world, caller, &call, time_s) {
            let text = refusal.to_string();
            refused.insert(text.split('(').next().unwrap_or_default().to_owned());
        }
    }
    let (revealed, named) = (world.state.rounds.len(), world.state.proofs.rounds.len());
    assert!(revealed > 40 && named > 50, "{revealed} revealed, {named} named");
    for name in REFUSALS {
        assert!(refused.contains(name), "{name}: {refused:?}");
    }
}
