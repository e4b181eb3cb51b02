//! Tunables and models.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, U256};
use assay_bindings::{
    ModelRegistry::{ModelDeprecated, ModelRegistered, PairAttested, PairCalibrated},
    Parameters::{
        AssetTerms, GovernorChanged, NodeTerms, SessionTerms, Terms, TermsProposed, TermsWithdrawn,
    },
};

use super::{Gap, State, known};
use crate::num::{amount, int};

/// Versions of the tunables, and who may propose the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tunables {
    /// By version, counted from 1; the last may still wait.
    pub versions: BTreeMap<u16, Terms>,
    /// Unix seconds from which on the last version holds.
    pub effective_at_s: u64,
    /// Proposes.
    pub governor: Address,
    /// May become governor; zero for nobody.
    pub successor: Address,
}

impl Tunables {
    /// The last version that was proposed and not withdrawn.
    pub fn latest(&self) -> u16 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }

    /// The version that holds at a time.
    pub fn version_at(&self, time_s: u64) -> u16 {
        if time_s < self.effective_at_s { self.latest().saturating_sub(1) } else { self.latest() }
    }

    fn terms(&self, version: u16) -> Result<&Terms, Gap> {
        known(self.versions.get(&version), "version", version)
    }

    /// What sessions of a version live by.
    pub fn session_terms(&self, version: u16) -> Result<&SessionTerms, Gap> {
        Ok(&self.terms(version)?.session)
    }

    /// What nodes of a version live by.
    pub fn node_terms(&self, version: u16) -> Result<&NodeTerms, Gap> {
        Ok(&self.terms(version)?.node)
    }

    /// Amounts of a version in an asset.
    pub fn asset_terms(&self, version: u16, asset: u8) -> Result<&AssetTerms, Gap> {
        known(self.terms(version)?.assets.get(usize::from(asset)), "asset", asset)
    }

    /// The tip of a version in an asset, minor units.
    pub fn tip(&self, version: u16, asset: u8) -> Result<u128, Gap> {
        Ok(amount(self.asset_terms(version, asset)?.tip))
    }

    pub(super) fn proposed(&mut self, event: &TermsProposed) {
        self.versions.insert(event.version, event.terms.clone());
        self.effective_at_s = int(event.effectiveAt);
    }

    pub(super) fn withdrawn(&mut self, time_s: u64, event: &TermsWithdrawn) {
        self.versions.remove(&event.version);
        self.effective_at_s = time_s;
    }

    pub(super) fn governed(&mut self, event: &GovernorChanged) {
        (self.governor, self.successor) = (event.newGovernor, Address::ZERO);
    }
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// keccak256 of the manifest.
    pub id: B256,
    /// Earns the royalty.
    pub publisher: Address,
    /// Hundredths of a percent.
    pub royalty_bps: u16,
    /// Unix seconds.
    pub registered_at_s: u64,
    /// Unix seconds; 0 while it takes new sessions.
    pub deprecated_at_s: u64,
    /// Counted from 1 along its predecessors.
    pub version: u32,
    /// Zero for a first version.
    pub predecessor: B256,
    /// sha-256 of the manifest.
    pub manifest_digest: B256,
    /// Smallest prices by asset, of a prompt's and of an answer's tokens: minor units per million.
    pub floors: BTreeMap<u8, (u128, u128)>,
    /// Calibrated pairs of numeric classes, the miner's first: with one, sessions that open are proven.
    pub pairs: BTreeMap<(B256, B256), Pair>,
}

impl Model {
    /// Contrasts that its miners record at each position: the same for all pairs; 0 without one.
    pub fn contrasts(&self) -> u8 {
        const CONTRASTS_BYTE: usize = 6;
        self.pairs.values().next().map_or(0, |pair| pair.word.byte(CONTRASTS_BYTE))
    }
}

/// What is known of a pair of numeric classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The calibration, packed.
    pub word: U256,
    /// Unix seconds.
    pub calibrated_at_s: u64,
    /// Owners whose nodes have measured the same.
    pub attested: BTreeSet<Address>,
}

impl State {
    /// Index of a model.
    pub fn model_index(&self, id: B256) -> Option<u32> {
        self.models.iter().find(|(_, model)| model.id == id).map(|(index, _)| *index)
    }

    pub(super) fn model_registered(&mut self, time_s: u64, event: &ModelRegistered) {
        let floors = event.floors.iter();
        let model = Model {
            id: event.modelId,
            publisher: event.publisher,
            royalty_bps: event.royaltyBps,
            registered_at_s: time_s,
            deprecated_at_s: 0,
            version: event.version,
            predecessor: event.predecessor,
            manifest_digest: event.manifestDigest,
            floors: floors.map(|f| (f.asset, (amount(f.priceIn), amount(f.priceOut)))).collect(),
            pairs: BTreeMap::new(),
        };
        self.models.insert(event.index, model);
    }

    pub(super) fn pair_calibrated(
        &mut self,
        time_s: u64,
        event: &PairCalibrated,
    ) -> Result<(), Gap> {
        let model = known(self.models.get_mut(&event.index), "model", event.index)?;
        let pair = Pair { word: event.word, calibrated_at_s: time_s, attested: BTreeSet::new() };
        model.pairs.insert((event.minerClass, event.validatorClass), pair);
        Ok(())
    }

    pub(super) fn pair_attested(&mut self, event: &PairAttested) -> Result<(), Gap> {
        let model = known(self.models.get_mut(&event.index), "model", event.index)?;
        let pair = model.pairs.get_mut(&(event.minerClass, event.validatorClass));
        known(pair, "a pair of model", event.index)?.attested.insert(event.owner);
        Ok(())
    }

    pub(super) fn model_deprecated(
        &mut self,
        time_s: u64,
        event: &ModelDeprecated,
    ) -> Result<(), Gap> {
        let model = known(self.models.get_mut(&event.index), "model", event.index)?;
        model.deprecated_at_s = time_s;
        Ok(())
    }
}
