//! The model's state against the contracts' storage, through their views.

use alloy::rpc::types::{TransactionInput, TransactionRequest};
use assay_evm::CallAt;
pub use assay_replay::Touched;
use assay_replay::probes;

use super::world::World;

/// Everything that a call may have changed is in storage what the events say, and the sums of all accounts are right.
pub fn compare(world: &World, touched: &Touched) {
    let touched = Touched { money: true, ..touched.clone() };
    for probe in probes(&world.state, &touched, world.now_s()) {
        let request = TransactionRequest {
            to: Some(probe.contract.into()),
            input: TransactionInput::new(probe.input),
            ..TransactionRequest::default()
        };
        let stored = world.chain.call(&request, CallAt::Head, None);
        let stored = stored.unwrap_or_else(|error| panic!("{}: {error}", probe.what));
        let (left, right) = ((probe.show)(&stored), (probe.show)(&probe.expected));
        assert_eq!(left, right, "left the contracts, right the model: {}", probe.what);
        assert_eq!(stored, probe.expected, "{}", probe.what);
    }
}
