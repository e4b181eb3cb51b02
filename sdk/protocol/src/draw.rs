//! Which places a draw of nodes finds: a function of what was fixed when its ticket was given, of its seed, and of the
//! draws before it.

use std::collections::BTreeSet;

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::SolValue,
};

use crate::{
    money::BPS,
    num::{u40, u256},
};

/// Tries for each node of a draw.
pub const MAX_TRIES: u64 = 32;
/// Chance that a try takes what it hits at level 0, in hundredths of a percent, and for each level more.
pub const BASE_ACCEPTANCE_BPS: u64 = 5000;
/// See [`BASE_ACCEPTANCE_BPS`].
pub const LEVEL_ACCEPTANCE_BPS: u64 = 500;
/// `Place::active_until_s` of a place that nobody has given up.
pub const FOREVER_S: u64 = (1 << 40) - 1;

/// A place in a model's draws. Times in unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// 0 if it belongs to nobody.
    pub node: u32,
    /// Counts in draws from then on.
    pub active_from_s: u64,
    /// Counts in draws until the second before.
    pub active_until_s: u64,
    /// Draws of an earlier time do not find it: somebody had it.
    pub free_from_s: u64,
    /// Who has it; 0 for nobody.
    pub session: u64,
}

impl Place {
    /// Whether draws of that time count it.
    pub const fn is_active(&self, as_of_s: u64) -> bool {
        self.active_from_s <= as_of_s && as_of_s < self.active_until_s
    }

    /// Whether a draw of that time may have it.
    pub const fn is_open(&self, as_of_s: u64) -> bool {
        self.is_active(as_of_s) && self.session == 0 && self.free_from_s <= as_of_s
    }
}

/// What is known of a node when a try hits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Two nodes of one owner are never drawn together.
    pub owner: Address,
    /// See [`crate::level::Record::draw_level`].
    pub level: u8,
}

/// A draw with its ticket and its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Model whose places are looked at.
    pub model: u32,
    /// In the order of the model's draws.
    pub ticket: u64,
    /// Value of the draw's round.
    pub seed: B256,
    /// Places of the pool when the ticket was given.
    pub slots: u32,
    /// Unix seconds when it was given.
    pub as_of_s: u64,
    /// With fewer it finds nobody.
    pub min: u8,
    /// It stops at so many.
    pub max: u8,
}

/// A node that a draw found, and which of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The node.
    pub node: u32,
    /// Index into the model's places.
    pub place: u32,
}

impl Draw {
    /// Finds nodes of owners other than `taken`, which are those of the nodes that the session has already. `candidate`
    /// knows every node that may be drawn; `None` for one that was proven to have lied.
    pub fn find(
        &self,
        places: &[Place],
        taken: &[Address],
        candidate: impl Fn(u32) -> Option<Candidate>,
    ) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut owners: BTreeSet<Address> = taken.iter().copied().collect();
        let mut misses = 0;
        for number in 0.. {
            if hits.len() >= usize::from(self.max) || misses == MAX_TRIES || self.slots == 0 {
                break;
            }
            misses += 1;
            let (index, roll) = self.throw(number);
            let Some(place) = places.get(index as usize) else { continue };
            if !place.is_open(self.as_of_s) {
                continue;
            }
            let Some(found) = candidate(place.node) else { continue };
            if owners.contains(&found.owner) || roll >= acceptance_bps(found.level) {
                continue;
            }
            owners.insert(found.owner);
            hits.push(Hit { node: place.node, place: index });
            misses = 0;
        }
        if hits.len() < usize::from(self.min) { Vec::new() } else { hits }
    }

    /// Index of a place, and a number below [`BPS`].
    fn throw(&self, number: u64) -> (u32, u64) {
        let input = (self.seed, self.model, u40(self.ticket), U256::from(number));
        let hash = U256::from_be_bytes(keccak256(input.abi_encode()).0);
        let (low, high): (U256, U256) = (hash & U256::from(u128::MAX), hash >> 128);
        let index: u32 = (low % U256::from(self.slots)).saturating_to();
        (index, (high % u256(BPS)).saturating_to())
    }
}

/// Chance that a try which hits a node of this level takes it, in hundredths of a percent.
pub fn acceptance_bps(level: u8) -> u64 {
    BASE_ACCEPTANCE_BPS + LEVEL_ACCEPTANCE_BPS * u64::from(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: u32) -> Vec<Place> {
        let free = Place { active_until_s: FOREVER_S, ..Place::default() };
        (1..=count).map(|node| Place { node, ..free }).collect()
    }

    fn draw(seed: u64, slots: u32) -> Draw {
        let seed = B256::from(U256::from(seed));
        Draw { model: 1, ticket: 1, seed, slots, as_of_s: 10, min: 1, max: 3 }
    }

    fn owned(node: u32) -> Option<Candidate> {
        Some(Candidate { owner: Address::with_last_byte(node as u8), level: 0 })
    }

    #[test]
    fn places_that_are_not_open_are_not_found() {
        let mut places = places(4);
        places[0].active_from_s = 11;
        places[1].active_until_s = 10;
        places[2].free_from_s = 11;
        places[3].session = 7;
        for seed in 0..50 {
            assert_eq!(draw(seed, 4).find(&places, &[], owned), []);
        }
    }

    #[test]
    fn what_comes_after_the_ticket_changes_nothing() {
        let few = places(5);
        let many = places(50);
        for seed in 0..50 {
            let hits = draw(seed, 5).find(&few, &[], owned);
            assert_eq!(hits, draw(seed, 5).find(&many, &[], owned));
            assert!(hits.len() <= 3);
        }
    }

    #[test]
    fn a_level_doubles_the_weight_at_most() {
        let places = places(2);
        let levelled = |node| owned(node).map(|c| Candidate { level: 10 * (node as u8 - 1), ..c });
        let mut counts = [0_u32; 2];
        for seed in 0..3000 {
            let one = Draw { max: 1, ..draw(seed, 2) };
            for hit in one.find(&places, &[], levelled) {
                counts[hit.node as usize - 1] += 1;
            }
        }
        let ratio = f64::from(counts[1]) / f64::from(counts[0]);
        assert!((1.8..2.2).contains(&ratio), "{counts:?}");
    }

    #[test]
    fn nodes_of_one_owner_are_not_drawn_together_and_too_few_are_none() {
        let places = places(3);
        let one_owner = |_| Some(Candidate { owner: Address::ZERO, level: 10 });
        for seed in 0..20 {
            assert_eq!(draw(seed, 3).find(&places, &[], one_owner).len(), 1);
            assert_eq!(draw(seed, 3).find(&places, &[Address::ZERO], one_owner), []);
            assert_eq!(Draw { min: 2, ..draw(seed, 3) }.find(&places, &[], one_owner), []);
        }
    }
}
