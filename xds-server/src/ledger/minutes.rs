//! Usage for the audit log and for a collector, once its minute has passed. The audit log has a line for each minute, consumer,
//! route and model, the collector a record for each backend of it besides. What is settled later is told by itself.

use std::collections::BTreeMap;

use tollgate_core::ir::Schema;
use tollgate_core::ledger::Changes;
use tollgate_core::ledger::usage::{Totals, UsageKey};

use crate::audit::{Audit, Event, minute};
use crate::otlp::{Events, Usage};

/// What ended in a minute is settled within some seconds after it, mostly.
const AFTER: i64 = 5;

/// What is settled and not told yet.
#[derive(Debug, Default)]
pub struct Minutes(BTreeMap<(u64, UsageKey), Totals>);

// === impl Minutes ===

impl Minutes {
    pub fn add(&mut self, changes: &Changes) {
        for (key, totals) in &changes.usage {
            *self.0.entry(key.clone()).or_default() += *totals;
        }
    }

    /// Tells of the minutes that are over at this second. `schemas`: what backends speak, by their display names.
    pub fn tell(&mut self, second: i64, audit: &Audit, events: &Events, schemas: &BTreeMap<String, Schema>) {
        let over = self.over(second);
        record(&over, audit);
        for ((minute, key), totals) in over {
            let schema = schemas.get(&key.backend).copied();
            events.record(Usage { minute, key, schema, totals });
        }
    }

    fn over(&mut self, second: i64) -> BTreeMap<(u64, UsageKey), Totals> {
        let current = u64::try_from(second.saturating_sub(AFTER).div_euclid(60)).unwrap_or_default();
        let [consumer, route, model, backend] = [const { String::new() }; 4];
        let later = self.0.split_off(&(current, UsageKey { consumer, route, model, backend }));
        std::mem::replace(&mut self.0, later)
    }
}

fn record(over: &BTreeMap<(u64, UsageKey), Totals>, audit: &Audit) {
    let mut lines: BTreeMap<(u64, &str, &str, &str), Totals> = BTreeMap::new();
    for ((minute, key), totals) in over {
        *lines.entry((*minute, &key.consumer, &key.route, &key.model)).or_default() += *totals;
    }
    for ((at, consumer, route, model), totals) in lines {
        audit.record(Event::Usage {
            minute: minute(at),
            consumer,
            route,
            model,
            requests: totals.requests,
            input_tokens: totals.input_tokens,
            output_tokens: totals.output_tokens,
            estimated_requests: totals.estimated_requests,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(backend: &str) -> UsageKey {
        let [consumer, route, model] = ["app", "chat", "smol"].map(str::to_owned);
        UsageKey { consumer, route, model, backend: backend.to_owned() }
    }

    fn settled(minute: u64, backend: &str, input_tokens: u64) -> Changes {
        let totals = Totals { requests: 1, input_tokens, ..Totals::default() };
        Changes { usage: [((minute, key(backend)), totals)].into(), ..Changes::default() }
    }

    /// Minute, backend and tokens of what is over.
    fn over(minutes: &mut Minutes, second: i64) -> Vec<(u64, String, u64)> {
        let over = minutes.over(second).into_iter();
        over.map(|((minute, key), totals)| (minute, key.backend, totals.input_tokens)).collect()
    }

    #[test]
    fn a_minute_is_told_when_it_is_over_and_what_comes_late_by_itself() {
        let mut minutes = Minutes::default();
        for (minute, backend, tokens) in [(10, "a", 1), (10, "b", 2), (10, "a", 4), (11, "a", 8)] {
            minutes.add(&settled(minute, backend, tokens));
        }
        assert_eq!(over(&mut minutes, 11 * 60 + AFTER - 1), []);
        assert_eq!(over(&mut minutes, 11 * 60 + AFTER), [(10, "a".into(), 5), (10, "b".into(), 2)]);
        minutes.add(&settled(10, "a", 16));
        assert_eq!(over(&mut minutes, 11 * 60 + AFTER), [(10, "a".into(), 16)]);
        assert_eq!(over(&mut minutes, i64::MAX), [(11, "a".into(), 8)]);
        assert_eq!(over(&mut minutes, i64::MAX), []);
    }
}
