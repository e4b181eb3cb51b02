//! `ModelRegistry`.

use std::collections::BTreeSet;

use alloy::primitives::{B256, aliases::U80};
use assay_bindings::ModelRegistry::{
    Floor, ModelDeprecated, ModelRegistered, ModelRegistration, ModelRegistry_AlreadyAttested,
    ModelRegistry_AlreadyCalibrated, ModelRegistry_AlreadyRegistered,
    ModelRegistry_AssetNotAccepted, ModelRegistry_AssetTwice, ModelRegistry_BadCalibration,
    ModelRegistry_Deprecated, ModelRegistry_EmptyClass, ModelRegistry_EmptyDigest,
    ModelRegistry_FloorCount, ModelRegistry_FloorOutOfBounds, ModelRegistry_NotAbleToAttest,
    ModelRegistry_NotCalibrated, ModelRegistry_NotOperator, ModelRegistry_NotPublisher,
    ModelRegistry_OtherContrasts, ModelRegistry_OtherMeasurement, ModelRegistry_RoyaltyTooHigh,
    ModelRegistry_TooManyPairs, ModelRegistry_UnknownAsset, ModelRegistry_UnknownModel,
    ModelRegistryCalls, PairAttested, PairCalibrated, attestCall, calibrateCall,
};

use assay_proof::Calibration;

use super::Run;
use crate::{
    num::{amount, u80, u256},
    refusal::{Failure, require},
    state::{Model, NodeState, known},
};

/// Free work is no price.
const MIN_FLOOR: u128 = 1;
/// Calibrated pairs of numeric classes of one model.
const MAX_PAIRS: usize = 256;
/// Five times a floor fits 80 bits.
const MAX_FLOOR: u128 = ((1 << 80) - 1) / 5;

impl Run<'_> {
    pub(super) fn models(&mut self, call: &ModelRegistryCalls) -> Result<(), Failure> {
        match call {
            ModelRegistryCalls::register(call) => self.register_model(&call.registration),
            ModelRegistryCalls::deprecate(call) => self.deprecate(call.modelId),
            ModelRegistryCalls::calibrate(call) => self.calibrate(call),
            ModelRegistryCalls::attest(call) => self.attest(call),
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

    fn calibrate(&mut self, call: &calibrateCall) -> Result<(), Failure> {
        let (miner_class, validator_class) = (call.minerClass, call.validatorClass);
        let (index, model) = self.publishers(call.modelId)?;
        require!(!miner_class.is_zero() && !validator_class.is_zero(), ModelRegistry_EmptyClass {});
        let word = call.word;
        let given = Calibration::unpack(word).map_err(|_| ModelRegistry_BadCalibration { word })?;
        require!(
            !model.pairs.contains_key(&(miner_class, validator_class)),
            ModelRegistry_AlreadyCalibrated {
                index,
                minerClass: miner_class,
                validatorClass: validator_class,
            }
        );
        let limit = u256(MAX_PAIRS as u64);
        require!(model.pairs.len() != MAX_PAIRS, ModelRegistry_TooManyPairs { index, limit });
        require!(model.floors.contains_key(&0), ModelRegistry_AssetNotAccepted { index, asset: 0 });
        let (contrasts, wanted) = (u8::from(given.width), model.contrasts());
        require!(
            model.pairs.is_empty() || contrasts == wanted,
            ModelRegistry_OtherContrasts { index, contrasts: u256(contrasts), wanted }
        );
        self.emit(PairCalibrated {
            index,
            minerClass: miner_class,
            validatorClass: validator_class,
            word,
        })
    }

    fn attest(&mut self, call: &attestCall) -> Result<(), Failure> {
        let (miner_class, validator_class) = (call.minerClass, call.validatorClass);
        let (index, model) = self.known_model(call.modelId)?;
        let pair = model.pairs.get(&(miner_class, validator_class));
        let pair = pair.ok_or(ModelRegistry_NotCalibrated {
            index,
            minerClass: miner_class,
            validatorClass: validator_class,
        })?;
        let (word, registered) = (call.word, pair.word);
        require!(word == registered, ModelRegistry_OtherMeasurement { word, registered });
        let (id, caller) = (call.nodeId, self.at.caller);
        let node = self.known_node(id)?;
        let owner = node.owner;
        require!(node.operator == caller, ModelRegistry_NotOperator { nodeId: id, caller });
        let measures = node.class == miner_class || node.class == validator_class;
        let staked = matches!(node.state, NodeState::Ephemeral | NodeState::Dedicated);
        let offers = node.places.iter().any(|(model, _)| *model == index);
        require!(measures && staked && offers, ModelRegistry_NotAbleToAttest { nodeId: id });
        require!(!pair.attested.contains(&owner), ModelRegistry_AlreadyAttested { index, owner });
        // A counter that is full stays full.
        let attested = u8::try_from(pair.attested.len() + 1).unwrap_or(u8::MAX);
        self.emit(PairAttested {
            index,
            nodeId: id,
            owner,
            minerClass: miner_class,
            validatorClass: validator_class,
            attested,
        })
    }
}
