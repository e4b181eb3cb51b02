//! `ModelRegistry`.

use std::collections::BTreeSet;

use alloy::primitives::{B256, aliases::U80};
use assay_bindings::ModelRegistry::{
    Floor, ModelDeprecated, ModelRegistered, ModelRegistration, ModelRegistry_AlreadyRegistered,
    ModelRegistry_AssetNotAccepted, ModelRegistry_AssetTwice, ModelRegistry_Deprecated,
    ModelRegistry_EmptyDigest, ModelRegistry_FloorCount, ModelRegistry_FloorOutOfBounds,
    ModelRegistry_NotPublisher, ModelRegistry_RoyaltyTooHigh, ModelRegistry_UnknownAsset,
    ModelRegistry_UnknownModel, ModelRegistryCalls,
};

use super::Run;
use crate::{
    num::{amount, u80, u256},
    refusal::{Failure, require},
    state::{Model, known},
};

/// Free work is no price.
const MIN_FLOOR: u128 = 1;
/// Five times a floor fits 80 bits.
const MAX_FLOOR: u128 = ((1 << 80) - 1) / 5;

impl Run<'_> {
    pub(super) fn models(&mut self, call: &ModelRegistryCalls) -> Result<(), Failure> {
        match call {
            ModelRegistryCalls::register(call) => self.register_model(&call.registration),
            ModelRegistryCalls::deprecate(call) => self.deprecate(call.modelId),
            _ => Ok(()),
        }
    }

    fn known_model(&self, id: B256) -> Result<(u32, &Model), Failure> {
        let index = self.state.model_index(id);
        let index = index.ok_or(ModelRegistry_UnknownModel { modelId: id })?;
        Ok((index, known(self.state.models.get(&index), "model", index)?))
    }

    /// Index of a model that takes new sessions and nodes.
    pub(super) fn open_model(&self, id: B256) -> Result<u32, Failure> {
        let (index, model) = self.known_model(id)?;
        require!(model.deprecated_at_s == 0, ModelRegistry_Deprecated { modelId: id });
        Ok(index)
    }

    /// Floors of a model in an asset.
    pub(super) fn floors(&self, index: u32, asset: u8) -> Result<(u128, u128), Failure> {
        let model = known(self.state.models.get(&index), "model", index)?;
        let floors = model.floors.get(&asset).copied();
        Ok(floors.ok_or(ModelRegistry_AssetNotAccepted { index, asset })?)
    }

    fn publishers(&self, id: B256) -> Result<(u32, &Model), Failure> {
        let (index, model) = self.known_model(id)?;
        let caller = self.at.caller;
        require!(model.publisher == caller, ModelRegistry_NotPublisher { modelId: id, caller });
        Ok((index, model))
    }

    fn register_model(&mut self, registration: &ModelRegistration) -> Result<(), Failure> {
        let id = registration.modelId;
        require!(
            !id.is_zero() && !registration.manifestDigest.is_zero(),
            ModelRegistry_EmptyDigest {}
        );
        require!(
            self.state.model_index(id).is_none(),
            ModelRegistry_AlreadyRegistered { modelId: id }
        );
        let max = self.state.network.max_royalty_bps;
        let royalty = registration.royaltyBps;
        require!(royalty <= max, ModelRegistry_RoyaltyTooHigh { royaltyBps: royalty, maxBps: max });
        let version = match registration.predecessor {
            B256::ZERO => 1,
            before => self.publishers(before)?.1.version + 1,
        };
        self.check_floors(&registration.floors)?;
        let index = self.state.models.len() as u32 + 1;
        self.emit(ModelRegistered {
            modelId: id,
            publisher: self.at.caller,
            index,
            manifestDigest: registration.manifestDigest,
            predecessor: registration.predecessor,
            version,
            royaltyBps: royalty,
            floors: registration.floors.clone(),
        })
    }

    fn check_floors(&self, floors: &[Floor]) -> Result<(), Failure> {
        let assets = self.state.network.assets;
        require!(
            (1..=usize::from(assets)).contains(&floors.len()),
            ModelRegistry_FloorCount { floors: u256(floors.len() as u64), max: u256(assets) }
        );
        let mut seen = BTreeSet::new();
        for floor in floors {
            let asset = floor.asset;
            require!(asset < assets, ModelRegistry_UnknownAsset { asset });
            require!(seen.insert(asset), ModelRegistry_AssetTwice { asset });
            let within = |floor: U80| {
                let (min, max) = (u80(MIN_FLOOR), u80(MAX_FLOOR));
                require!(
                    (MIN_FLOOR..=MAX_FLOOR).contains(&amount(floor)),
                    ModelRegistry_FloorOutOfBounds { asset, floor, min, max }
                );
                Ok::<(), Failure>(())
            };
            within(floor.priceIn)?;
            within(floor.priceOut)?;
        }
        Ok(())
    }

    fn deprecate(&mut self, id: B256) -> Result<(), Failure> {
        let (index, model) = self.publishers(id)?;
        require!(model.deprecated_at_s == 0, ModelRegistry_Deprecated { modelId: id });
        self.emit(ModelDeprecated { modelId: id, index })
    }
}
