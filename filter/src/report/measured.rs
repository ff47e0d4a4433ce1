//! How the requests of a row spread: how many are in each bucket of each measure. The bounds are in `tollgate_proto`,
//! because the control plane tells of the same buckets.

use tollgate_proto::{measures::Measure, v1 as wire};

use crate::usage::Tokens;

/// What was measured of some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    duration_ms: u64,
    first_token_ms: u64,
    per_token_us: u64,
    /// Pairs, as the wire has them: the number of a bucket, and how many are in it.
    spread: Vec<u32>,
}

/// When a request began, spoke and ended, in unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub began: u64,
    /// The first text of a stream.
    pub spoke: Option<u64>,
    pub ended: u64,
}

// === impl Times ===

impl Times {
    /// How long the client waited for the first text of a stream.
    pub fn first_token_ms(&self) -> Option<u64> {
        Some(self.spoke?.saturating_sub(self.began))
    }
}

// === impl Measured ===

impl Measured {
    /// An attempt used these.
    pub fn tokens(&mut self, tokens: Tokens) {
        self.count(Measure::InputTokens, tokens.input);
        self.count(Measure::OutputTokens, tokens.output);
    }

    /// A request took so long, for so many tokens of output.
    pub fn took(&mut self, times: &Times, output: u64) {
        let duration = times.ended.saturating_sub(times.began);
        self.duration_ms = self.duration_ms.saturating_add(duration);
        self.count(Measure::Duration, duration);
        let (Some(spoke), Some(first)) = (times.spoke, times.first_token_ms()) else {
            return;
        };
        self.first_token_ms = self.first_token_ms.saturating_add(first);
        self.count(Measure::FirstToken, first);
        // The first token is the one that the time before it was measured for.
        if let Some(each) = times.ended.saturating_sub(spoke).saturating_mul(1000).checked_div(output.saturating_sub(1))
        {
            self.per_token_us = self.per_token_us.saturating_add(each);
            self.count(Measure::PerToken, each);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
        self.first_token_ms = self.first_token_ms.saturating_add(other.first_token_ms);
        self.per_token_us = self.per_token_us.saturating_add(other.per_token_us);
        for pair in other.spread.chunks_exact(2) {
            if let [bucket, more] = pair {
                self.put(*bucket, *more);
            }
        }
    }

    /// Says it in a row of the wire.
    pub fn tell(&self, row: &mut wire::Usage) {
        row.duration_ms = self.duration_ms;
        row.first_token_ms = self.first_token_ms;
        row.per_token_us = self.per_token_us;
        row.spread.clone_from(&self.spread);
    }

    fn count(&mut self, measure: Measure, value: u64) {
        self.put(u32::try_from(measure.bucket(value)).unwrap_or(0), 1);
    }

    fn put(&mut self, bucket: u32, more: u32) {
        let found = self.spread.chunks_exact_mut(2).find(|pair| pair.first() == Some(&bucket));
        match found {
            Some([_, count]) => *count = count.saturating_add(more),
            _ => self.spread.extend([bucket, more]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(measured: &Measured) -> wire::Usage {
        let mut row = wire::Usage::default();
        measured.tell(&mut row);
        row
    }

    fn pair(measure: Measure, value: u64, count: u32) -> [u32; 2] {
        [u32::try_from(measure.bucket(value)).unwrap(), count]
    }

    #[test]
    fn tokens_of_each_attempt_are_in_their_buckets() {
        let mut measured = Measured::default();
        measured.tokens(Tokens { input: 17, output: 0, cached: 9, reasoning: 9 });
        measured.tokens(Tokens { input: 64, output: 5, ..Tokens::default() });
        let spread =
            [pair(Measure::InputTokens, 64, 2), pair(Measure::OutputTokens, 0, 1), pair(Measure::OutputTokens, 16, 1)];
        assert_eq!(told(&measured), wire::Usage { spread: spread.concat(), ..wire::Usage::default() });
    }

    #[test]
    fn a_stream_has_a_first_token_and_a_time_for_each_other() {
        let mut measured = Measured::default();
        measured.took(&Times { began: 1000, spoke: Some(1040), ended: 1250 }, 8);
        let spread =
            [pair(Measure::Duration, 320, 1), pair(Measure::FirstToken, 40, 1), pair(Measure::PerToken, 30_000, 1)];
        let row = wire::Usage {
            duration_ms: 250,
            first_token_ms: 40,
            per_token_us: 30_000,
            spread: spread.concat(),
            ..wire::Usage::default()
        };
        assert_eq!(told(&measured), row);
    }

    #[test]
    fn what_did_not_stream_has_a_duration_alone() {
        for (spoke, output, buckets) in [(None, 8, 1), (Some(1040), 1, 2), (Some(1040), 0, 2), (Some(1040), 2, 3)] {
            let mut measured = Measured::default();
            measured.took(&Times { began: 1000, spoke, ended: 1250 }, output);
            assert_eq!(told(&measured).spread.len(), 2 * buckets, "{spoke:?} {output}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_age() {
        let mut measured = Measured::default();
        measured.took(&Times { began: 1000, spoke: Some(900), ended: 800 }, 3);
        let row = told(&measured);
        assert_eq!((row.duration_ms, row.first_token_ms, row.per_token_us), (0, 0, 0));
    }

    #[test]
    fn rows_add_up() {
        let of = |ended, output| {
            let mut measured = Measured::default();
            measured.took(&Times { began: 1000, spoke: Some(1040), ended }, output);
            measured.tokens(Tokens { output, ..Tokens::default() });
            measured
        };
        let mut sum = of(1250, 8);
        sum.add(&of(1250, 8));
        sum.add(&of(9000, 2));
        let row = told(&sum);
        assert_eq!((row.duration_ms, row.first_token_ms, row.per_token_us), (8500, 120, 8_020_000));
        let count = |measure: Measure, value: u64| {
            let bucket = u32::try_from(measure.bucket(value)).unwrap();
            row.spread.chunks(2).find(|pair| pair[0] == bucket).map(|pair| pair[1])
        };
        assert_eq!((count(Measure::Duration, 250), count(Measure::Duration, 8000)), (Some(2), Some(1)));
        assert_eq!((count(Measure::FirstToken, 40), count(Measure::OutputTokens, 8)), (Some(3), Some(2)));
        assert_eq!((count(Measure::InputTokens, 0), count(Measure::PerToken, u64::MAX)), (Some(3), Some(1)));
    }
}
