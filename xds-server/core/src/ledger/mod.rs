//! The ledger's decisions: windows, leases and settlement as pure steps. The store and the clocks are outside.
//!
//! ```text
//! SyncRequest -> call (valid) -> apply: state + rules + now -> answer, and changes for the store
//!                                  |
//!                     window, bucket: one decision each
//! timer ------> State::expire, State::prune
//! ```
//!
//! A step changes the state in memory and notes what it changed; the caller makes a batch of those
//! durable at once and answers only then. When that fails, the state is loaded again from the store.

mod apply;
mod bucket;
mod call;
mod state;
mod upkeep;
pub mod usage;
pub mod window;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod step_test;
#[cfg(test)]
mod test_support;

pub use apply::{Outcome, Past, apply};
pub use bucket::{Bucket, BucketKey, Lease};
pub use call::{Call, InvalidCall, MAX_ENTRIES, MAX_TEXT};
pub use state::{Changes, HolderKey, Records, State, Worker, WorkerKey};
pub use upkeep::{BUCKET_KEPT, HOLDER_KEPT, USAGE_KEPT};

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::ir::Limit;

/// A moment on both clocks: windows follow the calendar, leases must not jump when it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    /// Since some fixed moment of this process; never goes back.
    pub steady: Duration,
}

/// What is configured, as the steps need it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    limits: BTreeMap<String, Limit>,
    /// A lease that is not extended for this long is charged.
    pub lease_ttl: Duration,
}

// === impl Rules ===

impl Rules {
    pub fn new(limits: &[Limit], lease_ttl: Duration) -> Self {
        Self { limits: limits.iter().map(|limit| (limit.id.clone(), limit.clone())).collect(), lease_ttl }
    }

    pub(crate) fn limit(&self, id: &str) -> Option<&Limit> {
        self.limits.get(id)
    }
}
