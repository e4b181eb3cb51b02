//! Places for answers that are under way at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::config::MAX_REQUESTS;

/// The places that are left. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_REQUESTS)))
    }
}

impl Places {
    /// Takes places for so many answers, until the permit is dropped.
    ///
    /// # Errors
    /// 429 if there are not so many.
    pub fn take(&self, answers: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let wanted = u32::try_from(answers).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(wanted).map_err(|_| {
            let message =
                format!("{MAX_REQUESTS} answers are under way: send the request again in a moment");
            ApiError::limited("overloaded", message, 2)
        })
    }
}
