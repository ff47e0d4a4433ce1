//! Usage for the audit log: a line for each minute, consumer, route and model, once the minute has passed.

use std::collections::BTreeMap;

use tollgate_core::ledger::Changes;
use tollgate_core::ledger::usage::Totals;

use crate::audit::{Audit, Event, minute};

/// What ended in a minute is settled within some seconds after it, mostly.
const AFTER: i64 = 5;

/// What is settled and not recorded yet.
#[derive(Debug, Default)]
pub struct Minutes(BTreeMap<(u64, String, String, String), Totals>);

// === impl Minutes ===

impl Minutes {
    pub fn add(&mut self, changes: &Changes) {
        for ((minute, key), totals) in &changes.usage {
            let key = (*minute, key.consumer.clone(), key.route.clone(), key.model.clone());
            *self.0.entry(key).or_default() += *totals;
        }
    }

    /// Records the minutes that are over at this second.
    pub fn record(&mut self, second: i64, audit: &Audit) {
        let current = u64::try_from(second.saturating_sub(AFTER).div_euclid(60)).unwrap_or_default();
        let later = self.0.split_off(&(current, String::new(), String::new(), String::new()));
        for ((at, consumer, route, model), totals) in std::mem::replace(&mut self.0, later) {
            audit.record(Event::Usage {
                minute: minute(at),
                consumer: &consumer,
                route: &route,
                model: &model,
                requests: totals.requests,
                input_tokens: totals.input_tokens,
                output_tokens: totals.output_tokens,
                estimated_requests: totals.estimated_requests,
            });
        }
    }
}
