//! Counters for Envoy's stats. Requests add to plain numbers, and the root's tick takes them over. So a metric costs a
//! request no host call.

use crate::errors::Code;

/// The names of the other counters, in the order of [`Counters::take`].
pub const NAMES: [&str; 10] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "estimated",
    "ledger_calls",
    "ledger_calls_refused",
    "usage_rows_dropped",
    "workers_lost",
    "connections_refused",
    "keys_taken",
];

/// What was counted since the root's last tick.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub estimated: u64,
    pub ledger_calls: u64,
    pub calls_refused: u64,
    pub dropped: u64,
    /// Dead workers that this one has buried.
    pub workers_lost: u64,
    /// Connections of sources that have as many as they may.
    pub connections_refused: u64,
    /// Answers about keys that were taken. A proxy waits for the first one before it says that it is ready.
    pub keys_taken: u64,
    /// In the order of [`Code::ALL`].
    refused: [u64; Code::ALL.len()],
}

// === impl Counters ===

impl Counters {
    pub fn refused(&mut self, code: Code) {
        if let Some(count) = self.refused.get_mut(code as usize) {
            *count += 1;
        }
    }

    /// Takes what was counted: first [`NAMES`], then [`Code::ALL`].
    pub fn take(&mut self) -> impl Iterator<Item = u64> + use<> {
        let taken = std::mem::take(self);
        let counts = [
            taken.requests,
            taken.input_tokens,
            taken.output_tokens,
            taken.estimated,
            taken.ledger_calls,
            taken.calls_refused,
            taken.dropped,
            taken.workers_lost,
            taken.connections_refused,
            taken.keys_taken,
        ];
        counts.into_iter().chain(taken.refused)
    }
}

/// The names of all metrics, in the order of [`Counters::take`].
pub fn metric_names() -> impl Iterator<Item = String> {
    NAMES
        .iter()
        .map(|name| format!("tollgate.{name}"))
        .chain(Code::ALL.iter().map(|code| format!("tollgate.refused.{}", code.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_counted_once() {
        let mut counters = Counters { requests: 2, ..Counters::default() };
        counters.refused(Code::ModelNotFound);
        let taken: Vec<(String, u64)> = metric_names().zip(counters.take()).filter(|(_, count)| *count > 0).collect();
        let expected = [("tollgate.requests", 2), ("tollgate.refused.model_not_found", 1)];
        assert_eq!(taken, expected.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(counters, Counters::default());
    }

    #[test]
    fn every_count_has_its_name() {
        let mut counters = Counters {
            requests: 1,
            input_tokens: 2,
            output_tokens: 3,
            estimated: 4,
            ledger_calls: 5,
            calls_refused: 6,
            dropped: 7,
            workers_lost: 8,
            connections_refused: 9,
            keys_taken: 10,
            ..Counters::default()
        };
        for (place, code) in Code::ALL.into_iter().enumerate() {
            (0..11 + place).for_each(|_| counters.refused(code));
        }
        let expected = NAMES.into_iter().map(|name| format!("tollgate.{name}"));
        let expected = expected.chain(Code::ALL.iter().map(|code| format!("tollgate.refused.{}", code.name())));
        assert_eq!(metric_names().zip(counters.take()).collect::<Vec<_>>(), expected.zip(1..).collect::<Vec<_>>());
    }
}
