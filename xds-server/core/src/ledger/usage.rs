//! What was used, summed up per minute. These are the figures of `/api/usage`.

use std::ops::AddAssign;

use serde::Serialize;
use tollgate_proto::v1::Operation;

use super::measures::{Ending, Measures, Nonsense};

/// What usage is summed by. Its fields and those of [`Totals`] are a row of `/api/usage`, under these names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UsageKey {
    pub consumer: String,
    pub route: String,
    pub model: String,
    pub backend: String,
}

/// Sums over requests. They saturate, so that no report can make one wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    pub reasoning_tokens: u64,
    /// Requests, and further attempts of requests, whose tokens were estimated.
    pub estimated_requests: u64,
}

/// What finished requests used, or attempts of them, in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Unix milliseconds at the end of the last of them, as reported.
    pub ended_at: i64,
    /// The model's name is the pool's, which may be a pattern.
    pub key: UsageKey,
    /// The name that the client asked for, if it is not the pool's.
    pub asked: Option<String>,
    pub totals: Totals,
    pub operation: Operation,
    /// How the requests ended, and how they spread.
    pub measured: Result<(Ending, Measures), Nonsense>,
    pub books: Books,
}

/// Whether a row is in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    In,
    /// It is of requests that ended with an error and cost nothing, so it is in metrics alone.
    NotIn,
}

/// When a minute since the epoch begins, in Unix seconds.
pub fn second_of(minute: u64) -> i64 {
    i64::try_from(minute.saturating_mul(60)).unwrap_or(i64::MAX)
}

// === impl Totals ===

impl Totals {
    /// Of requests and answers together.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.requests, other.requests);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.cached_input_tokens, other.cached_input_tokens);
        add(&mut self.reasoning_tokens, other.reasoning_tokens);
        add(&mut self.estimated_requests, other.estimated_requests);
    }
}
