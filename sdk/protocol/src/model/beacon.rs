//! `RandomBeacon`: the values of rounds.

use alloy::primitives::{B256, U256, uint};
use assay_bindings::{BlockhashBeacon, DrandBeacon, RandomBeacon};
use sha2::{Digest, Sha256};

use super::Run;
use crate::{
    beacon::{Beacon, Drand, last_block},
    num::u256,
    refusal::{Failure, require},
};

/// Modulus of the field of BN254, whose curve is `y^2 = x^3 + 3`.
const MODULUS: U256 =
    uint!(0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47_U256);
const CURVE: U256 = uint!(3_U256);
/// Two coordinates of 32 bytes.
const PROOF_BYTES: usize = 64;

impl Run<'_> {
    /// The first round that nobody can know in this block.
    pub(super) fn next_round(&self) -> u64 {
        self.state.network.beacon.next_round(self.at.block, self.at.time_s)
    }

    pub(super) fn value_of(&self, round: u64) -> Option<B256> {
        self.state.rounds.get(&round).copied()
    }

    /// Whether a round's value can never be had.
    pub(super) fn is_missed(&self, round: u64) -> bool {
        self.value_of(round).is_none() && self.state.network.beacon.is_missed(round, self.at.block)
    }

    pub(super) fn reveal(&mut self, call: &RandomBeacon::revealCall) -> Result<(), Failure> {
        let round = call.round;
        require!(
            self.value_of(round).is_none(),
            RandomBeacon::RandomBeacon_AlreadyRevealed { round }
        );
        let value = match self.state.network.beacon {
            Beacon::Blockhash => self.block_hash(round, &call.proof)?,
            Beacon::Drand(drand) => self.relayed(&drand, round, &call.proof)?,
        };
        self.emit(RandomBeacon::RoundRevealed { round, value })
    }

    fn block_hash(&self, round: u64, proof: &[u8]) -> Result<B256, Failure> {
        let length = u256(proof.len() as u64);
        require!(proof.is_empty(), BlockhashBeacon::BlockhashBeacon_ProofNotEmpty { length });
        let ready = u256(u128::from(round) + 1);
        require!(
            self.at.block > round,
            BlockhashBeacon::BlockhashBeacon_RoundNotReady { round, readyAtBlock: ready }
        );
        let last = u256(last_block(round));
        require!(
            !self.is_missed(round),
            BlockhashBeacon::BlockhashBeacon_RoundMissed { round, lastBlock: last }
        );
        Ok(self.at.outside.block_hash(round))
    }

    /// The value of the signature that drand published: its sha-256.
    fn relayed(&self, drand: &Drand, round: u64, proof: &[u8]) -> Result<B256, Failure> {
        let published_s = drand.ready_at_s(round).ok_or(DrandBeacon::DrandBeacon_RoundZero {})?;
        let latest_s = u128::from(self.at.time_s) + u128::from(drand.max_drift_s);
        let accepted_s = u256(published_s.saturating_sub(u128::from(drand.max_drift_s)));
        require!(
            published_s <= latest_s,
            DrandBeacon::DrandBeacon_RoundNotReady { round, acceptedAt: accepted_s }
        );
        let (length, wanted) = (u256(proof.len() as u64), u256(PROOF_BYTES as u64));
        require!(length == wanted, DrandBeacon::DrandBeacon_ProofLength { length, wanted });
        let (x, y) = proof.split_at(PROOF_BYTES / 2);
        let (x, y) = (U256::from_be_slice(x), U256::from_be_slice(y));
        for coordinate in [x, y] {
            require!(
                coordinate < MODULUS,
                DrandBeacon::DrandBeacon_CoordinateTooLarge { coordinate, modulus: MODULUS }
            );
        }
        let cube = x.mul_mod(x, MODULUS).mul_mod(x, MODULUS);
        let on_curve = y.mul_mod(y, MODULUS) == cube.add_mod(CURVE, MODULUS);
        require!(on_curve, DrandBeacon::DrandBeacon_NotOnCurve { x, y });
        require!(
            self.at.outside.is_signature(round, proof),
            DrandBeacon::DrandBeacon_WrongSignature { round, x, y }
        );
        Ok(B256::from(<[u8; 32]>::from(Sha256::digest(proof))))
    }
}
