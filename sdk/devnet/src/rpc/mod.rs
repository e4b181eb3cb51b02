//! The JSON-RPC methods.

mod blocks;
mod dev;
mod filters;
mod impersonate;
mod logs;
mod state;
mod subscribe;
mod transactions;

use std::sync::Arc;

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::U64;
use assay_evm::{Block, Chain};
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DevnetError, RpcError};
use crate::node::Node;

pub(crate) use filters::Filters;

/// What every method works on.
type Context = Node;
type Module = RpcModule<Context>;
type Answer<T> = Result<T, RpcError>;

/// All methods of the node.
pub(crate) fn module(node: Arc<Node>) -> Result<Module, DevnetError> {
    let mut module = RpcModule::from_arc(node);
    blocks::register(&mut module)?;
    state::register(&mut module)?;
    transactions::register(&mut module)?;
    logs::register(&mut module)?;
    filters::register(&mut module)?;
    dev::register(&mut module)?;
    impersonate::register(&mut module)?;
    subscribe::register(&mut module)?;
    Ok(module)
}

/// Registers a method that reads its parameters from an array and answers at once.
fn quick<P, T>(
    module: &mut Module,
    name: &'static str,
    method: fn(&Context, P) -> Answer<T>,
) -> Result<(), DevnetError>
where
    P: FromParams + 'static,
    T: Serialize + Clone + Send + 'static,
{
    module.register_method(name, move |params, context, _| {
        P::read(&params).and_then(|params| method(context, params)).map_err(ErrorObjectOwned::from)
    })?;
    Ok(())
}

/// Registers a method that executes code or scans blocks, on a thread of its own.
fn heavy<P, T>(
    module: &mut Module,
    name: &'static str,
    method: fn(&Context, P) -> Answer<T>,
) -> Result<(), DevnetError>
where
    P: FromParams + 'static,
    T: Serialize + Clone + Send + 'static,
{
    module.register_blocking_method(name, move |params, context, _| {
        P::read(&params).and_then(|params| method(&context, params)).map_err(ErrorObjectOwned::from)
    })?;
    Ok(())
}

/// Parameters of a method: a tuple read from an array. Options at the end may be missing.
trait FromParams: Sized {
    fn read(params: &Params<'_>) -> Answer<Self>;
}

impl FromParams for () {
    fn read(_: &Params<'_>) -> Answer<Self> {
        Ok(())
    }
}

/// A parameter that may be missing or null.
#[derive(Debug)]
struct Maybe<T>(Option<T>);

trait Param: Sized {
    fn take(sequence: &mut jsonrpsee::types::ParamsSequence<'_>) -> Answer<Self>;
}

/// A parameter that must be there.
#[derive(Debug)]
struct Must<T>(T);

impl<T: DeserializeOwned> Param for Must<T> {
    fn take(sequence: &mut jsonrpsee::types::ParamsSequence<'_>) -> Answer<Self> {
        sequence.next().map(Self).map_err(|e| invalid(&e))
    }
}

impl<T: DeserializeOwned> Param for Maybe<T> {
    fn take(sequence: &mut jsonrpsee::types::ParamsSequence<'_>) -> Answer<Self> {
        sequence.optional_next().map(Self).map_err(|e| invalid(&e))
    }
}

fn invalid(error: &ErrorObjectOwned) -> RpcError {
    let detail = error.data().map(|data| format!(": {}", data.get())).unwrap_or_default();
    RpcError::params(format!("invalid argument: {}{detail}", error.message()))
}

macro_rules! tuple_params {
    ($($name:ident),+) => {
        impl<$($name: Param),+> FromParams for ($($name,)+) {
            fn read(params: &Params<'_>) -> Answer<Self> {
                let mut sequence = params.sequence();
                Ok(($($name::take(&mut sequence)?,)+))
            }
        }
    };
}

tuple_params!(A);
tuple_params!(A, B);
tuple_params!(A, B, C);

/// The block that a number or tag means. There is no pending block: `pending` is the head. So are
/// `safe` and `finalized`: only the methods of a development chain can reorganise this one.
fn by_tag(chain: &Chain, tag: BlockNumberOrTag) -> Option<&Arc<Block>> {
    match tag {
        BlockNumberOrTag::Number(number) => chain.block(number),
        BlockNumberOrTag::Earliest => chain.block(0),
        _ => Some(chain.head()),
    }
}

/// The block that an id means.
fn by_id(chain: &Chain, id: BlockId) -> Option<&Arc<Block>> {
    match id {
        BlockId::Hash(hash) => chain.block_by_hash(&hash.block_hash),
        BlockId::Number(tag) => by_tag(chain, tag),
    }
}

fn quantity(value: u64) -> U64 {
    U64::from(value)
}
