//! Calls and gas estimates: execution that leaves no trace.

use alloy::primitives::{Address, Bytes, TxKind, U256};
use alloy::rpc::types::TransactionRequest;
use alloy::rpc::types::state::StateOverride;
use alloy_evm::eth::EthEvmFactory;
use alloy_evm::{Evm, EvmEnv, EvmFactory};
use revm::context::result::{EVMError, ExecutionResult};
use revm::context::{BlockEnv, TxEnv};
use revm::context_interface::either::Either;
use revm::primitives::eip3860::MAX_INITCODE_SIZE;

use crate::block::BLOCK_GAS_LIMIT;
use crate::builder::{block_env, cfg_env, next_header};
use crate::chain::Chain;
use crate::error::{CallError, ChainError, TxError, TxFacts};
use crate::view::StateView;

/// Gas of a call without a limit of its own. A call holds up the chain's lock, so it may not run longer
/// than a block may.
pub const CALL_GAS_LIMIT: u64 = BLOCK_GAS_LIMIT;

/// An estimate may be this much (in thousandths) above the lowest gas that suffices: geth's tolerance.
const ESTIMATE_TOLERANCE_PERMILLE: u64 = 15;

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;

/// Gas that a call with value gives to the callee on top.
const CALL_STIPEND: u64 = 2_300;

/// On which state, and in which block, a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAt {
    /// In the block that comes next, at this time in unix seconds.
    Pending(u64),
    /// In the head, after its transactions and what was set by hand since.
    Head,
    /// In the block of that number, after its transactions.
    Block(u64),
}

impl Chain {
    /// Runs a call and returns its output.
    ///
    /// # Errors
    /// [`CallError::Revert`] and [`CallError::Halt`] when the code fails; the others when it cannot run.
    pub fn call(
        &self,
        request: &TransactionRequest,
        at: CallAt,
        overrides: Option<StateOverride>,
    ) -> Result<Bytes, CallError> {
        let (view, block) = self.prepare(at, overrides)?;
        let gas = request.gas.unwrap_or(CALL_GAS_LIMIT).min(CALL_GAS_LIMIT);
        let mut run = Run::new(self, view, block, request)?;
        match run.execute(gas)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(CallError::Revert(output)),
            ExecutionResult::Halt { reason, .. } => Err(CallError::Halt(reason)),
        }
    }

    /// Finds a gas limit with which the transaction succeeds: at most 1.5 % above the lowest one.
    ///
    /// # Errors
    /// As [`Chain::call`]; [`CallError::Allowance`] when no gas that the sender can pay suffices.
    pub fn estimate_gas(
        &self,
        request: &TransactionRequest,
        at: CallAt,
        overrides: Option<StateOverride>,
    ) -> Result<u64, CallError> {
        let (view, block) = self.prepare(at, overrides)?;
        let mut highest = request.gas.filter(|gas| *gas >= TRANSFER_GAS).unwrap_or(BLOCK_GAS_LIMIT);
        highest = highest.min(BLOCK_GAS_LIMIT);
        let allowance = allowance(&view, request)?;
        highest = highest.min(allowance.unwrap_or(u64::MAX));
        let mut run = Run::new(self, view, block, request)?;
        if run.is_plain_transfer() && highest >= TRANSFER_GAS && run.succeeds(TRANSFER_GAS)? {
            return Ok(TRANSFER_GAS);
        }
        let (spent, refunded) = match run.execute(highest) {
            Ok(ExecutionResult::Success { gas, .. }) => {
                (gas.tx_gas_used().max(gas.total_gas_spent()), gas.inner_refunded())
            }
            Ok(ExecutionResult::Revert { output, .. }) => return Err(CallError::Revert(output)),
            Ok(ExecutionResult::Halt { reason, .. }) => {
                return Err(match reason {
                    revm::context::result::HaltReason::OutOfGas(_) => CallError::Allowance(highest),
                    other => CallError::Halt(other),
                });
            }
            Err(CallError::Invalid(TxError::IntrinsicGas { .. } | TxError::FloorGas { .. })) => {
                return Err(CallError::Allowance(highest));
            }
            Err(error) => return Err(error),
        };
        run.search(spent, refunded, highest)
    }

    fn prepare(
        &self,
        at: CallAt,
        overrides: Option<StateOverride>,
    ) -> Result<(StateView<'_>, BlockEnv), CallError> {
        let (mut view, block) = match at {
            CallAt::Pending(timestamp) => (self.state(), block_env(&next_header(self, timestamp))),
            CallAt::Head => (self.state(), block_env(&self.head().header)),
            CallAt::Block(number) => {
                let view = self.state_at(number)?;
                let block = self.block(number).ok_or(crate::error::StateError::UnknownBlock)?;
                (view, block_env(&block.header))
            }
        };
        if let Some(overrides) = overrides {
            view.apply_overrides(overrides).map_err(CallError::Request)?;
        }
        Ok((view, block))
    }
}

/// The gas that the sender can pay for at the price of the request, if it names one.
fn allowance(view: &StateView<'_>, request: &TransactionRequest) -> Result<Option<u64>, CallError> {
    let price = request.gas_price.or(request.max_fee_per_gas).unwrap_or_default();
    if price == 0 {
        return Ok(None);
    }
    let balance = view.balance(&request.from.unwrap_or_default());
    let value = request.value.unwrap_or_default();
    let Some(available) = balance.checked_sub(value) else {
        return Err(TxError::InsufficientFunds { balance, cost: value }.into());
    };
    Ok(Some((available / U256::from(price)).saturating_to()))
}

/// One request on one state; it can be executed with several gas limits.
struct Run<'a> {
    view: StateView<'a>,
    env: EvmEnv,
    tx: TxEnv,
    has_code: bool,
}

impl<'a> Run<'a> {
    fn new(
        chain: &Chain,
        view: StateView<'a>,
        mut block: BlockEnv,
        request: &TransactionRequest,
    ) -> Result<Self, CallError> {
        let chain_id = chain.chain_id();
        let tx = tx_env(request, &view, &block, chain_id)?;
        if tx.gas_price == 0 {
            // As in geth: a call that names no price runs in a block without a base fee.
            block.basefee = 0;
        }
        let mut cfg = cfg_env(chain_id);
        // A call may come "from" a contract.
        cfg.disable_eip3607 = true;
        let has_code = match tx.kind {
            TxKind::Call(to) => !view.code(&to).is_empty(),
            TxKind::Create => true,
        };
        Ok(Self { view, env: EvmEnv::new(cfg, block), tx, has_code })
    }

    fn is_plain_transfer(&self) -> bool {
        !self.has_code
            && self.tx.data.is_empty()
            && self.tx.access_list.is_empty()
            && self.tx.authorization_list.is_empty()
    }

    fn execute(&mut self, gas: u64) -> Result<ExecutionResult, CallError> {
        let tx = TxEnv { gas_limit: gas, ..self.tx.clone() };
        let mut evm = EthEvmFactory::default().create_evm(&mut self.view, self.env.clone());
        match evm.transact_raw(tx) {
            Ok(outcome) => Ok(outcome.result),
            Err(EVMError::Transaction(invalid)) => {
                drop(evm);
                Err(TxError::from_revm(invalid, &self.facts()).into())
            }
            Err(other) => Err(CallError::Chain(ChainError::Execution(other.to_string()))),
        }
    }

    fn facts(&self) -> TxFacts {
        TxFacts {
            sender: self.tx.caller,
            max_fee: self.tx.gas_price,
            base_fee: self.env.block_env.basefee,
            chain_id: self.tx.chain_id,
            want_chain_id: self.env.cfg_env.chain_id,
            init_code: self.tx.data.len(),
            init_code_limit: MAX_INITCODE_SIZE,
            code_hash: self.view.code_hash(&self.tx.caller),
        }
    }

    fn succeeds(&mut self, gas: u64) -> Result<bool, CallError> {
        match self.execute(gas) {
            Ok(result) => Ok(result.is_success()),
            Err(CallError::Invalid(TxError::IntrinsicGas { .. } | TxError::FloorGas { .. })) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Halves the distance between a gas that is too low and one that suffices, as geth does.
    fn search(&mut self, spent: u64, refunded: u64, mut highest: u64) -> Result<u64, CallError> {
        let mut lowest = spent.saturating_sub(refunded).saturating_sub(1);
        let likely = (spent + refunded + CALL_STIPEND).saturating_mul(64) / 63;
        if likely < highest {
            if self.succeeds(likely)? {
                highest = likely;
            } else {
                lowest = lowest.max(likely);
            }
        }
        while lowest + 1 < highest {
            if (highest - lowest) * 1000 < highest * ESTIMATE_TOLERANCE_PERMILLE {
                break;
            }
            // Most need little more than what they use: lean to the low side.
            let middle = (lowest + (highest - lowest) / 2).min(lowest.saturating_mul(2).max(1));
            if self.succeeds(middle)? {
                highest = middle;
            } else {
                lowest = middle;
            }
        }
        Ok(highest)
    }
}

fn tx_env(
    request: &TransactionRequest,
    view: &StateView<'_>,
    block: &BlockEnv,
    chain_id: u64,
) -> Result<TxEnv, CallError> {
    if request.gas_price.is_some()
        && (request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some())
    {
        return Err(CallError::Request(
            "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified".to_owned(),
        ));
    }
    if request.blob_versioned_hashes.is_some() || request.sidecar.is_some() {
        return Err(TxError::TypeNotSupported.into());
    }
    let data = request.input.clone().try_into_unique_input().map_err(|_| {
        CallError::Request(
            r#"both "data" and "input" are set and not equal. Please use "input" to pass transaction call data"#
                .to_owned(),
        )
    })?;
    let caller: Address = request.from.unwrap_or_default();
    let kind = request.to.unwrap_or(TxKind::Create);
    let data = data.unwrap_or_default();
    let (tx_type, gas_price, tip) = fees(request, block);
    Ok(TxEnv {
        tx_type,
        caller,
        gas_limit: CALL_GAS_LIMIT,
        gas_price,
        kind,
        value: request.value.unwrap_or_default(),
        data,
        // The nonce of a call means nothing, as in geth.
        nonce: view.nonce(&caller),
        chain_id: Some(request.chain_id.unwrap_or(chain_id)),
        access_list: request.access_list.clone().unwrap_or_default(),
        gas_priority_fee: tip,
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: request
            .authorization_list
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(Either::Left)
            .collect(),
    })
}

/// Transaction type, fee per gas and tip of a call.
fn fees(request: &TransactionRequest, block: &BlockEnv) -> (u8, u128, Option<u128>) {
    let max_fee = request.max_fee_per_gas;
    let tip = request.max_priority_fee_per_gas;
    if request.authorization_list.as_ref().is_some_and(|list| !list.is_empty()) {
        return (4, max_fee.unwrap_or_default(), Some(tip.unwrap_or_default()));
    }
    if max_fee.is_some() || tip.is_some() {
        let tip = tip.unwrap_or_default();
        let fee = max_fee.unwrap_or_else(|| u128::from(block.basefee) * 2 + tip);
        return (2, fee, Some(tip));
    }
    let tx_type = u8::from(request.access_list.is_some());
    (tx_type, request.gas_price.unwrap_or_default(), None)
}
