//! A program without traces.

use std::convert::Infallible;

use assay_runtime::BoxError;
use assay_types::{NodeId, TaskId};
use tokio_util::sync::CancellationToken;

use super::{Stage, TracesError};
use crate::{
    http::error::ApiError,
    tasks::{running::Finish, telemetry::Telemetry},
};

/// Makes no traces.
#[derive(Clone, Debug, Default)]
pub struct Traces;

/// Sends no spans: there is none.
#[derive(Debug)]
pub struct Exporting(Infallible);

/// No trace.
#[derive(Clone, Debug, Default)]
pub struct Trace;

impl Traces {
    /// No traces.
    ///
    /// # Errors
    /// If some are wanted.
    pub fn open(endpoint: Option<&str>) -> Result<(Self, Option<Exporting>), TracesError> {
        endpoint.map_or(Ok((Self, None)), |_| Err(TracesError::NotBuilt))
    }

    /// No trace.
    pub fn begin(&self, _: &Telemetry) -> Trace {
        Trace
    }
}

impl Exporting {
    /// Cannot be.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, _: CancellationToken) -> Result<(), BoxError> {
        match self.0 {}
    }
}

impl Trace {
    /// A stage ends now.
    pub fn stage(&self, _: Stage, _: Option<TaskId>) {}

    /// The answer is complete.
    pub fn complete(&self, _: (TaskId, NodeId), _: &Finish) {}

    /// There is no whole answer.
    pub fn failed(&self, _: Option<TaskId>, _: &ApiError) {}
}
