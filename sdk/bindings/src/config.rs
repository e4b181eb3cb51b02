//! What the contracts are deployed with.

use alloy::primitives::{
    Address,
    aliases::{U24, U40, U96},
};
use serde::{Deserialize, Serialize};

use crate::{Deployment, DeploymentError, Parameters, ProofOfInference};

/// One COR in minor units.
pub const COR: u128 = 1_000_000_000_000_000_000;

/// Where rounds of randomness come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BeaconConfig {
    /// Hashes of blocks: development chains only.
    Blockhash,
    /// drand's `evmnet`.
    Drand {
        /// How far, in seconds, the chain's clock may be from the time at which a block is made; at least one period.
        max_drift_s: u64,
    },
}

/// What tasks and sessions live by. Times in seconds, shares in hundredths of a percent: see `SessionTerms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the members are those of the contract's struct")]
pub struct SessionTermsConfig {
    pub miner_bps: u16,
    pub router_bps: u16,
    pub max_deadline_s: u32,
    pub attempt_time_s: u32,
    pub reveal_time_s: u32,
    pub settle_delay_s: u32,
    pub max_attempts: u8,
    pub notice_period_s: u32,
    pub reservation_timeout_s: u32,
    pub reserve_period_s: u32,
    pub max_tasks: u32,
}

/// What nodes live by: see `NodeTerms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the members are those of the contract's struct")]
pub struct NodeTermsConfig {
    pub activation_delay_s: u32,
    pub unbonding_period_s: u32,
    /// Minor units of COR.
    #[serde(with = "minor_units")]
    pub collateral_per_slot: u128,
    pub slash_bps: u16,
    pub reporter_bps: u16,
}

/// What audits live by, for ever: see `ProofConfig`. Times in seconds, shares in hundredths of a percent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the members are those of the contract's struct")]
pub struct ProofSettings {
    pub epoch_length_s: u64,
    pub round_timeout_s: u64,
    pub seal_time_s: u64,
    pub open_time_s: u64,
    pub reveal_time_s: u64,
    pub appeal_time_s: u64,
    pub min_probability_bps: u16,
    pub gain_bps: u16,
    pub power_bps: u16,
    pub audit_share_bps: u16,
    pub audit_pay_bps: u16,
    pub slash_bps: u16,
    pub duty_bps: u16,
    pub prover_bps: u16,
    pub client_bps: u16,
    pub appeal_bps: u16,
}

/// A token that sessions may be paid in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetConfig {
    /// Its address; absent for COR, which comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Address>,
    /// What whoever moves a task or session on earns at most, minor units.
    #[serde(with = "minor_units")]
    pub tip: u128,
    /// Smallest deposit of a session, minor units.
    #[serde(with = "minor_units")]
    pub min_deposit: u128,
}

/// A file like `script/deployments/<chain id>.toml`: what `assay deploy` and `script/Deploy.s.sol` deploy, and where it
/// stands then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentFile {
    /// What to deploy.
    pub config: DeployConfig,
    /// Where it stands; absent before the first deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contracts: Option<Deployment>,
}

/// What the contracts are deployed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployConfig {
    /// Receives the whole supply; the deployer if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_holder: Option<Address>,
    /// Who may propose tunables; the deployer if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<Address>,
    /// Supply of COR in minor units, below 2^96.
    #[serde(with = "minor_units")]
    pub supply: u128,
    /// From a proposal of tunables until they hold.
    pub parameters_delay_s: u64,
    /// Longest that a draw of nodes may wait; a place that a node left is given again after it.
    pub draw_window_s: u64,
    /// Longest that audits of a task may take: no unbonding is shorter than the longest life of a task and this.
    pub longest_audit_s: u64,
    /// Largest share of a model's publisher, hundredths of a percent.
    pub max_royalty_bps: u16,
    /// Levels count in draws as they stood when an epoch began; at least the draw window.
    pub epoch_length_s: u64,
    /// Without a success for so long a node loses a level.
    pub level_period_s: u64,
    /// Randomness.
    pub beacon: BeaconConfig,
    /// First terms of sessions.
    pub session: SessionTermsConfig,
    /// First terms of nodes.
    pub node: NodeTermsConfig,
    /// Audits of answers.
    pub proof: ProofSettings,
    /// COR first.
    pub assets: Vec<AssetConfig>,
}

impl DeployConfig {
    /// Windows of seconds, for chains that one person runs: a task settles within ten seconds.
    pub fn development() -> Self {
        Self {
            token_holder: None,
            governor: None,
            supply: 1_000_000_000 * COR,
            parameters_delay_s: 60,
            draw_window_s: 120,
            longest_audit_s: 620,
            max_royalty_bps: 300,
            epoch_length_s: 120,
            level_period_s: 86_400,
            beacon: BeaconConfig::Blockhash,
            session: SessionTermsConfig {
                miner_bps: 9000,
                router_bps: 500,
                max_deadline_s: 300,
                attempt_time_s: 60,
                reveal_time_s: 30,
                settle_delay_s: 2,
                max_attempts: 3,
                notice_period_s: 600,
                reservation_timeout_s: 60,
                reserve_period_s: 86_400,
                max_tasks: 100_000,
            },
            node: NodeTermsConfig {
                activation_delay_s: 1,
                unbonding_period_s: 1180,
                collateral_per_slot: 100 * COR,
                slash_bps: 5000,
                reporter_bps: 1000,
            },
            proof: ProofSettings {
                epoch_length_s: 4,
                round_timeout_s: 30,
                seal_time_s: 60,
                open_time_s: 30,
                reveal_time_s: 30,
                appeal_time_s: 5,
                min_probability_bps: 500,
                gain_bps: 6000,
                power_bps: 9500,
                audit_share_bps: 200,
                audit_pay_bps: 2500,
                slash_bps: 10_000,
                duty_bps: 100,
                prover_bps: 5000,
                client_bps: 2000,
                appeal_bps: 1000,
            },
            assets: vec![AssetConfig { token: None, tip: COR / 1000, min_deposit: COR }],
        }
    }

    /// The tokens of all assets, given that of COR.
    pub(crate) fn tokens(&self, cor: Address) -> Vec<Address> {
        self.assets.iter().map(|asset| asset.token.unwrap_or(cor)).collect()
    }

    /// The proof's tunables as its contract takes them.
    ///
    /// # Errors
    /// If a time is too large for its member. Its bounds are checked by the contract.
    pub fn proof(&self) -> Result<ProofOfInference::ProofConfig, DeploymentError> {
        let p = &self.proof;
        Ok(ProofOfInference::ProofConfig {
            epochLength: seconds("proof.epoch_length_s", p.epoch_length_s)?,
            roundTimeout: seconds("proof.round_timeout_s", p.round_timeout_s)?,
            sealTime: seconds("proof.seal_time_s", p.seal_time_s)?,
            openTime: seconds("proof.open_time_s", p.open_time_s)?,
            revealTime: seconds("proof.reveal_time_s", p.reveal_time_s)?,
            appealTime: seconds("proof.appeal_time_s", p.appeal_time_s)?,
            minProbabilityBps: p.min_probability_bps,
            gainBps: p.gain_bps,
            powerBps: p.power_bps,
            auditShareBps: p.audit_share_bps,
            auditPayBps: p.audit_pay_bps,
            slashBps: p.slash_bps,
            dutyBps: p.duty_bps,
            proverBps: p.prover_bps,
            clientBps: p.client_bps,
            appealBps: p.appeal_bps,
        })
    }

    /// The first set of tunables as `Parameters` takes it.
    ///
    /// # Errors
    /// If a value is too large for its member. Its bounds are checked by the contract.
    pub fn terms(&self) -> Result<Parameters::Terms, DeploymentError> {
        let (s, n) = (&self.session, &self.node);
        let session = Parameters::SessionTerms {
            minerBps: s.miner_bps,
            routerBps: s.router_bps,
            maxDeadline: short("max_deadline_s", s.max_deadline_s)?,
            attemptTime: short("attempt_time_s", s.attempt_time_s)?,
            revealTime: short("reveal_time_s", s.reveal_time_s)?,
            settleDelay: short("settle_delay_s", s.settle_delay_s)?,
            maxAttempts: s.max_attempts,
            noticePeriod: short("notice_period_s", s.notice_period_s)?,
            reservationTimeout: short("reservation_timeout_s", s.reservation_timeout_s)?,
            reservePeriod: short("reserve_period_s", s.reserve_period_s)?,
            maxTasks: s.max_tasks,
        };
        let node = Parameters::NodeTerms {
            activationDelay: n.activation_delay_s,
            unbondingPeriod: n.unbonding_period_s,
            collateralPerSlot: n.collateral_per_slot,
            slashBps: n.slash_bps,
            reporterBps: n.reporter_bps,
        };
        let asset = |asset: &AssetConfig| {
            Ok(Parameters::AssetTerms {
                tip: amount("tip", asset.tip)?,
                minDeposit: amount("min_deposit", asset.min_deposit)?,
            })
        };
        let assets = self.assets.iter().map(asset).collect::<Result<_, DeploymentError>>()?;
        Ok(Parameters::Terms { session, node, assets })
    }
}

fn short(field: &'static str, value: u32) -> Result<U24, DeploymentError> {
    let hint = "a time of at most 2^24 - 1 seconds, about 194 days";
    U24::try_from(value).map_err(|_| config_error(field, value, hint))
}

pub(crate) fn seconds(field: &'static str, value: u64) -> Result<U40, DeploymentError> {
    let hint = "a time of less than 2^40 seconds";
    U40::try_from(value).map_err(|_| config_error(field, value, hint))
}

fn amount(field: &'static str, value: u128) -> Result<U96, DeploymentError> {
    let hint = "an amount of less than 2^96 minor units";
    U96::try_from(value).map_err(|_| config_error(field, value, hint))
}

fn config_error(field: &'static str, value: impl ToString, hint: &'static str) -> DeploymentError {
    DeploymentError::Config { field, value: value.to_string(), hint }
}

/// Amounts are decimal text: TOML's integers have 64 bits.
mod minor_units {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            D::Error::custom(format!("{text:?} is no amount: write minor units as \"1000\""))
        })
    }
}
