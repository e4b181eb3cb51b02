//! Which rules a block follows.

use alloy::consensus::Header;
use alloy::eips::eip7840::BlobParams;
use alloy_evm::{EvmEnv, spec_by_timestamp_and_block_number};
use alloy_hardforks::{EthereumChainHardforks, EthereumHardfork, EthereumHardforks};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::hardfork::SpecId;

use crate::builder::{block_env, cfg_env};

const MAINNET: u64 = 1;
const SEPOLIA: u64 = 11_155_111;
const HOLESKY: u64 = 17_000;
const HOODI: u64 = 560_048;

/// Where the rules of a chain's blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    /// Prague in every block, without the calls of the consensus layer: development chains.
    Development,
    /// The calendars of Ethereum and its test networks; for other chains the fields of each block's header, which tell
    /// all hardforks apart from Paris to Prague. What Osaka changed is taken for Prague there.
    Public,
}

impl Forks {
    /// The hardfork of a block; `None` if its rules are not known here.
    pub(crate) fn spec(self, chain_id: u64, header: &Header) -> Option<SpecId> {
        let spec = match (self, calendar(chain_id)) {
            (Self::Development, _) => SpecId::PRAGUE,
            (Self::Public, Some(forks)) => {
                spec_by_timestamp_and_block_number(&forks, header.timestamp, header.number)
            }
            (Self::Public, None) if header.requests_hash.is_some() => SpecId::PRAGUE,
            (Self::Public, None) if header.parent_beacon_block_root.is_some() => SpecId::CANCUN,
            (Self::Public, None) if header.withdrawals_root.is_some() => SpecId::SHANGHAI,
            (Self::Public, None) => SpecId::MERGE,
        };
        let has_stake = header.difficulty.is_zero() && header.base_fee_per_gas.is_some();
        let known = SpecId::MERGE..=SpecId::OSAKA;
        (has_stake && known.contains(&spec)).then_some(spec)
    }

    /// What code can ask about a block, and the rules that it runs by.
    pub(crate) fn env(self, chain_id: u64, header: &Header) -> Option<EvmEnv> {
        let spec = self.spec(chain_id, header)?;
        let (mut cfg, mut block) = (cfg_env(chain_id), block_env(header));
        if self == Self::Public {
            cfg = revm::context::CfgEnv::new_with_spec(spec).with_chain_id(chain_id);
            let blobs = blob_params(chain_id, spec, header.timestamp);
            cfg.set_max_blobs_per_tx(blobs.max_blobs_per_tx);
            block.blob_excess_gas_and_price =
                header.excess_blob_gas.map(|excess_blob_gas| BlobExcessGasAndPrice {
                    excess_blob_gas,
                    blob_gasprice: blobs.calc_blob_fee(excess_blob_gas),
                });
        }
        Some(EvmEnv::new(cfg, block))
    }
}

fn calendar(chain_id: u64) -> Option<EthereumChainHardforks> {
    match chain_id {
        MAINNET => Some(EthereumChainHardforks::mainnet()),
        SEPOLIA => Some(EthereumChainHardforks::sepolia()),
        HOLESKY => Some(EthereumChainHardforks::holesky()),
        HOODI => Some(EthereumChainHardforks::hoodi()),
        _ => None,
    }
}

fn blob_params(chain_id: u64, spec: SpecId, timestamp_s: u64) -> BlobParams {
    let is_active = |fork: EthereumHardfork| {
        calendar(chain_id)
            .is_some_and(|forks| forks.is_ethereum_fork_active_at_timestamp(fork, timestamp_s))
    };
    match spec {
        _ if is_active(EthereumHardfork::Bpo2) => BlobParams::bpo2(),
        _ if is_active(EthereumHardfork::Bpo1) => BlobParams::bpo1(),
        SpecId::OSAKA => BlobParams::osaka(),
        SpecId::PRAGUE => BlobParams::prague(),
        _ => BlobParams::cancun(),
    }
}
