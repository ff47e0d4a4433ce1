//! The ledger's decisions about windows, leases and settlements, as pure steps. The store and the clocks are outside.
//!
//! ```text
//! SyncRequest -> call (valid) -> apply: state + rules + now -> answer, and changes for the store
//!                                  |
//!                     window, bucket: one decision each
//! timer ------> State::expire, State::prune
//! before the changes are taken: State::cross -> thresholds that buckets crossed
//! ```
//!
//! A step changes the state in memory and notes what it changed. The caller makes the changes of many steps durable at
//! once, and answers only then. When that fails, the state is loaded again from the store.
//!
//! A store that others write to as well is used in another way, by the same steps: `batch` says which records the calls
//! touch, they run on this excerpt, and what changed is written if nobody else has changed it. `reference` says what
//! such a store does.

mod apply;
mod asked;
mod batch;
mod bucket;
mod call;
mod excerpt;
pub mod measures;
mod reference;
pub mod series;
mod served;
mod state;
mod things;
mod thresholds;
mod upkeep;
pub mod usage;
pub mod window;

#[cfg(test)]
mod excerpt_test;
#[cfg(test)]
mod measures_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod shared_test;
#[cfg(test)]
mod step_test;
#[cfg(test)]
mod strangers_test;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod thresholds_test;

pub use apply::{Outcome, Past, apply};
pub use asked::{ASKED_NAMES, Asked, MAX_ASKED_NAME};
pub use batch::{Batch, Contended, MAX_LOADS};
pub use bucket::{Bucket, BucketKey, Lease};
pub use call::{Call, InvalidCall, MAX_ENTRIES, MAX_TEXT};
pub use excerpt::{Excerpt, Step, Touched};
pub use reference::{Committed, Reference};
pub use served::{Configured, SERVED_BEFORE};
pub use state::{Changes, Entry, Heard, HolderKey, Reason, Records, RefusedEntry, State, Worker, WorkerKey};
pub use things::{Thing, Things};
pub use thresholds::Crossing;
pub use upkeep::{BUCKET_KEPT, HOLDER_KEPT, USAGE_KEPT, Upkeep};

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use self::call::Named;
use self::served::Served;
use crate::ir::Limit;

/// A moment on two clocks. Windows follow the calendar. Leases must not jump when the clock on the wall is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    /// Time since some fixed moment of this process. It never goes back.
    pub steady: Duration,
}

/// What is configured, as the steps need it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    limits: BTreeMap<String, Limit>,
    served: Served,
    /// A lease that is not extended for this time is charged.
    pub lease_ttl: Duration,
}

// === impl Rules ===

impl Rules {
    pub fn new(configured: &Configured, lease_ttl: Duration) -> Self {
        Self { limits: by_id(&configured.limits), served: Served::new(configured.served.clone()), lease_ttl }
    }

    /// Takes over a new configuration.
    pub fn replace(&mut self, configured: &Configured, now: Now) {
        self.limits = by_id(&configured.limits);
        self.served.replace(configured.served.clone(), now);
    }

    /// The limits that are configured, by id.
    pub fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.limits.values()
    }

    pub(crate) fn limit(&self, id: &str) -> Option<&Limit> {
        self.limits.get(id)
    }

    fn serves(&self, identity: &str, thing: &Thing, now: Now) -> bool {
        self.served.has(identity, thing, now)
    }

    fn serves_budget(&self, identity: &str, bucket: &Named, now: Now) -> bool {
        let limit = match bucket {
            Named::Bucket { limit, .. } => self.limit(limit),
            Named::Nonsense => None,
        };
        self.served.has_budget(identity, bucket, limit, now)
    }
}

fn by_id(limits: &[Limit]) -> BTreeMap<String, Limit> {
    limits.iter().map(|limit| (limit.id.clone(), limit.clone())).collect()
}
