//! What a request used. It is read from what the backend says, in the words of each API, or estimated if the backend
//! says nothing. The way of an answer's bytes:
//!
//! ```text
//! bytes ─▶ reader ─▶ document ─▶ tally ─▶ used: exactly, about, nothing
//!          (names)   (figures)             ▲
//! request ─▶ weighed ─▶ habits ────────────┘ learn from exact answers, estimate the others
//! ```
//!
//! Nothing here keeps a copy of an answer, because [`reader`] is a state machine over bytes.

pub mod figures;
pub mod habits;
mod names;
pub mod reader;
pub mod tally;
pub mod weigh;

pub use habits::{Habit, Habits, Sample};
pub use tally::Tally;
pub use weigh::Weighed;

use tollgate_proto::v1::Operation;

use crate::config::Weights;

/// The API that a request speaks. Its path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Messages,
    /// Anthropic's count of tokens. Nothing is generated, so nothing is charged.
    CountTokens,
    Other,
}

/// The tokens of one request. `cached` is a part of `input`, and `reasoning` is a part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub reasoning: u64,
}

/// What an answer used, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// The backend said so.
    Exactly(Tokens),
    /// The backend did not say so, and this is an estimate.
    About(Tokens),
    /// Nothing is charged: no backend had it, or the answer was an error without usage.
    Nothing,
}

// === impl Tokens ===

impl Tokens {
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cached: self.cached.saturating_add(other.cached),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }

    /// Whether no figure is above this one.
    pub fn are_at_most(self, most: u64) -> bool {
        self.input.max(self.output).max(self.cached).max(self.reasoning) <= most
    }

    /// The larger of each figure.
    pub fn at_least(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cached: self.cached.max(other.cached),
            reasoning: self.reasoning.max(other.reasoning),
        }
    }
}

// === impl Api ===

impl Api {
    /// Tells the API from the path below the client's `/v1`, without the query.
    pub fn of(path: &str) -> Self {
        match path.trim_end_matches('/') {
            "/chat/completions" => Self::Chat,
            "/completions" => Self::Completions,
            "/responses" => Self::Responses,
            "/embeddings" => Self::Embeddings,
            "/messages" => Self::Messages,
            "/messages/count_tokens" => Self::CountTokens,
            _ => Self::Other,
        }
    }

    /// What OpenTelemetry calls it.
    pub fn operation(self) -> Operation {
        match self {
            Self::Chat | Self::Responses | Self::Messages => Operation::Chat,
            Self::Completions => Operation::TextCompletion,
            Self::Embeddings => Operation::Embeddings,
            Self::CountTokens | Self::Other => Operation::Unspecified,
        }
    }

    /// Whether backends tell usage in a stream only when they are asked to.
    pub fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}

// === impl Weights ===

impl Weights {
    /// What tokens cost under this count.
    pub fn cost(&self, tokens: Tokens) -> u64 {
        let sum = self.constant
            + self.input * tokens.input as f64
            + self.output * tokens.output as f64
            + self.cached * tokens.cached as f64
            + self.reasoning * tokens.reasoning as f64;
        // The conversion saturates: a negative sum becomes 0.
        sum.ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_never_negative() {
        let weights = Weights { constant: 0.0, input: 1.0, output: 4.0, cached: -0.9, reasoning: 0.0 };
        assert_eq!(weights.cost(Tokens { input: 10, output: 1, cached: 10, reasoning: 0 }), 5);
        let negative = Weights { input: -1.0, ..weights };
        assert_eq!(negative.cost(Tokens { input: 10, ..Tokens::default() }), 0);
    }

    #[test]
    fn a_cost_is_the_weighed_sum_rounded_up() {
        let weights = Weights { constant: 0.5, input: 1.0, output: 4.0, cached: -0.25, reasoning: 2.0 };
        let tokens = Tokens { input: 100, output: 10, cached: 40, reasoning: 3 };
        // 0.5 + 100 + 40 - 10 + 6
        assert_eq!(weights.cost(tokens), 137);
    }

    #[test]
    fn the_larger_of_each_figure_counts() {
        let one = Tokens { input: 1, output: 20, cached: 3, reasoning: 40 };
        let other = Tokens { input: 10, output: 2, cached: 30, reasoning: 4 };
        assert_eq!(one.at_least(other), Tokens { input: 10, output: 20, cached: 30, reasoning: 40 });
    }

    #[test]
    fn an_api_is_told_by_its_path() {
        for (path, api, asks_for_usage) in [
            ("/chat/completions", Api::Chat, true),
            ("/chat/completions/", Api::Chat, true),
            ("/completions", Api::Completions, true),
            ("/responses", Api::Responses, false),
            ("/embeddings", Api::Embeddings, false),
            ("/messages", Api::Messages, false),
            ("/messages/count_tokens", Api::CountTokens, false),
            ("/images/generations", Api::Other, false),
            ("", Api::Other, false),
        ] {
            assert_eq!((Api::of(path), Api::of(path).asks_for_usage()), (api, asks_for_usage), "{path}");
        }
    }
}
