//! What a request used: read from what the backend says, in the words of each API, or estimated from
//! bytes where it says nothing. Estimates learn from exact answers, per model.

use std::collections::HashMap;

use crate::{config::Weights, json};

/// The API that a request speaks, told by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Messages,
    /// Anthropic's count of tokens: nothing is generated, nothing is charged.
    CountTokens,
    Other,
}

/// Tokens of one request. `cached` is part of `input`, `reasoning` part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub reasoning: u64,
}

/// What an answer has said about its usage so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Said {
    #[default]
    Nothing,
    /// Anthropic's `message_start`: the input is known, the output is not.
    InputOnly(Tokens),
    All(Tokens),
}

/// The part of an answer, or of one event of it, that can carry usage.
#[derive(Debug, Default)]
pub struct Carrier {
    usage: Option<Usage>,
    /// Responses API: `response.completed`.
    response: Option<Usage>,
    /// Anthropic: `message_start`.
    message: Option<Usage>,
    choices: Choices,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Choices {
    #[default]
    Absent,
    Empty,
    Some,
}

#[derive(Debug, Default)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

/// What requests of a model are like; moves with each exact answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habit {
    bytes_per_token: f64,
    output: f64,
}

/// Habits by the model's name in its pool. Bounded by the configuration.
#[derive(Debug, Default)]
pub struct Habits(HashMap<String, Habit>);

/// Weight of a new answer in the moving averages.
const FRESH: f64 = 0.1;

// === impl Api ===

impl Api {
    /// From the path below the client's `/v1`, without the query.
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

    /// The backend tells usage in a stream only when it is asked to.
    pub fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}

// === reading ===

impl Carrier {
    /// None: not a JSON object.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut carrier = Self::default();
        let read = json::members(text, |key, value| match key.inner {
            b"usage" => carrier.usage = Usage::read(value),
            b"response" => carrier.response = Usage::within(value),
            b"message" => carrier.message = Usage::within(value),
            b"choices" if value.is_empty_array() => carrier.choices = Choices::Empty,
            b"choices" => carrier.choices = Choices::Some,
            _ => {}
        });
        read.is_ok().then_some(carrier)
    }

    /// A chunk that carries nothing but usage: `choices` is there and empty.
    pub fn is_usage_only(&self) -> bool {
        self.usage.is_some() && self.choices == Choices::Empty
    }

    /// What is known after this.
    pub fn add_to(&self, said: Said) -> Said {
        match (&self.usage, &self.response, &self.message) {
            (Some(usage), ..) => Said::All(match said {
                // Anthropic's `message_delta` may leave the input out: `message_start` had it.
                Said::InputOnly(start) if !usage.tells_input() => {
                    Tokens { input: start.input, cached: start.cached, ..usage.tokens() }
                }
                _ => usage.tokens(),
            }),
            (None, Some(usage), _) => Said::All(usage.tokens()),
            (None, None, Some(usage)) => Said::InputOnly(Tokens { output: 0, ..usage.tokens() }),
            (None, None, None) => said,
        }
    }
}

impl Usage {
    fn read(value: json::Raw<'_>) -> Option<Self> {
        let mut usage = Self::default();
        let read = json::members(value.text, |key, value| {
            let number = value.as_number();
            match key.inner {
                b"prompt_tokens" => usage.prompt_tokens = number,
                b"completion_tokens" => usage.completion_tokens = number,
                b"input_tokens" => usage.input_tokens = number,
                b"output_tokens" => usage.output_tokens = number,
                b"total_tokens" => usage.total_tokens = number,
                b"cache_read_input_tokens" => usage.cache_read_input_tokens = number,
                b"cache_creation_input_tokens" => usage.cache_creation_input_tokens = number,
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    usage.cached_tokens = member(value, b"cached_tokens");
                }
                b"completion_tokens_details" | b"output_tokens_details" => {
                    usage.reasoning_tokens = member(value, b"reasoning_tokens");
                }
                _ => {}
            }
        });
        read.is_ok().then_some(usage)
    }

    /// The usage of an object that stands one level deeper.
    fn within(value: json::Raw<'_>) -> Option<Self> {
        let mut usage = None;
        let read = json::members(value.text, |key, value| {
            if key.inner == b"usage" {
                usage = Self::read(value);
            }
        });
        usage.filter(|_| read.is_ok())
    }

    fn tells_input(&self) -> bool {
        self.prompt_tokens.is_some() || self.input_tokens.is_some()
    }

    fn tokens(&self) -> Tokens {
        let cached = self.cached_tokens.or(self.cache_read_input_tokens).unwrap_or(0);
        let reasoning = self.reasoning_tokens.unwrap_or(0);
        // Anthropic counts cached input apart from `input_tokens`.
        let apart =
            self.cache_read_input_tokens.unwrap_or(0).saturating_add(self.cache_creation_input_tokens.unwrap_or(0));
        let input = match (self.prompt_tokens, self.input_tokens) {
            (Some(input), _) => input,
            (None, Some(input)) => input.saturating_add(apart),
            (None, None) => self.total_tokens.unwrap_or(0),
        };
        let output = self.completion_tokens.or(self.output_tokens).unwrap_or(0);
        Tokens { input, output, cached: cached.min(input), reasoning: reasoning.min(output) }
    }
}

/// A number one level deeper.
fn member(value: json::Raw<'_>, name: &[u8]) -> Option<u64> {
    let mut number = None;
    let read = json::members(value.text, |key, value| {
        if key.inner == name {
            number = value.as_number();
        }
    });
    number.filter(|_| read.is_ok())
}

/// Usage in a whole JSON answer.
pub fn in_answer(body: &[u8]) -> Said {
    Carrier::read(body).map_or(Said::Nothing, |carrier| carrier.add_to(Said::Nothing))
}

// === estimating ===

impl Default for Habit {
    fn default() -> Self {
        Self { bytes_per_token: 4.0, output: 256.0 }
    }
}

impl Habits {
    pub fn of(&self, model: &str) -> Habit {
        self.0.get(model).copied().unwrap_or_default()
    }

    /// Learns from an exact answer.
    pub fn learn(&mut self, model: &str, request_bytes: u64, tokens: Tokens) {
        let mut habit = self.of(model);
        if tokens.input > 0 && request_bytes > 0 {
            let seen = (request_bytes as f64 / tokens.input as f64).clamp(0.25, 64.0);
            habit.bytes_per_token += FRESH * (seen - habit.bytes_per_token);
        }
        habit.output += FRESH * (tokens.output as f64 - habit.output);
        match self.0.get_mut(model) {
            Some(known) => *known = habit,
            None => {
                self.0.insert(model.to_owned(), habit);
            }
        }
    }
}

impl Habit {
    pub fn input(&self, request_bytes: u64) -> u64 {
        (request_bytes as f64 / self.bytes_per_token).ceil() as u64
    }

    pub fn output(&self, answer_bytes: u64) -> u64 {
        (answer_bytes as f64 / self.bytes_per_token).ceil() as u64
    }

    /// What to reserve before the answer is known.
    pub fn estimate(&self, api: Api, request_bytes: u64, max_output: Option<u64>, answers: u64) -> Tokens {
        let output = match api {
            Api::Embeddings => 0,
            _ => max_output.unwrap_or(u64::MAX).min(self.output.ceil() as u64).saturating_mul(answers.max(1)),
        };
        Tokens { input: self.input(request_bytes), output, ..Tokens::default() }
    }
}

impl Weights {
    /// What tokens cost under this count.
    pub fn cost(&self, tokens: Tokens) -> u64 {
        let sum = self.constant
            + self.input * tokens.input as f64
            + self.output * tokens.output as f64
            + self.cached * tokens.cached as f64
            + self.reasoning * tokens.reasoning as f64;
        // Saturates; a negative sum becomes 0.
        sum.ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answers: &[&str]) -> Said {
        answers.iter().fold(Said::Nothing, |said, answer| Carrier::read(answer.as_bytes()).unwrap().add_to(said))
    }

    #[test]
    fn each_api_says_it_in_its_own_words() {
        let tokens = |input, output, cached, reasoning| Said::All(Tokens { input, output, cached, reasoning });
        for (answers, expected) in [
            (
                &[r#"{"choices":[{}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,
                "prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":4}}}"#][..],
                tokens(3, 5, 2, 4),
            ),
            (&[r#"{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#], tokens(7, 0, 0, 0)),
            (
                &[r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":4,
                "input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2}}}}"#],
                tokens(9, 4, 1, 2),
            ),
            (
                &[r#"{"type":"message","usage":{"input_tokens":10,"cache_creation_input_tokens":20,
                "cache_read_input_tokens":30,"output_tokens":6}}"#],
                tokens(60, 6, 30, 0),
            ),
            (
                &[
                    r#"{"type":"message_start","message":{"usage":{"input_tokens":11,"output_tokens":1}}}"#,
                    r#"{"type":"message_delta","usage":{"output_tokens":42}}"#,
                ],
                tokens(11, 42, 0, 0),
            ),
            (&[r#"{"choices":[],"usage":null}"#], Said::Nothing),
        ] {
            assert_eq!(said(answers), expected, "{answers:?}");
        }
        assert_eq!(
            said(&[r#"{"message":{"usage":{"input_tokens":11,"output_tokens":1}}}"#]),
            Said::InputOnly(Tokens { input: 11, ..Tokens::default() })
        );
        assert_eq!(in_answer(b"not json"), Said::Nothing);
    }

    #[test]
    fn only_an_event_without_choices_is_usage_only() {
        let only = |text: &str| Carrier::read(text.as_bytes()).unwrap().is_usage_only();
        assert!(only(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#));
        assert!(!only(r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#));
        assert!(!only(r#"{"choices":[],"usage":null}"#));
        assert!(!only(r#"{"type":"message_delta","usage":{"output_tokens":1}}"#));
    }

    #[test]
    fn estimates_learn() {
        let mut habits = Habits::default();
        let expect = |habits: &Habits, max| habits.of("m").estimate(Api::Chat, 400, max, 1);
        assert_eq!(expect(&habits, None), Tokens { input: 100, output: 256, ..Tokens::default() });
        assert_eq!(expect(&habits, Some(10)).output, 10);
        for _ in 0..100 {
            habits.learn("m", 200, Tokens { input: 100, output: 20, ..Tokens::default() });
        }
        let learnt = expect(&habits, None);
        assert!((190..=201).contains(&learnt.input) && (20..=21).contains(&learnt.output), "{learnt:?}");
    }

    #[test]
    fn a_cost_is_never_negative() {
        let weights = Weights { constant: 0.0, input: 1.0, output: 4.0, cached: -0.9, reasoning: 0.0 };
        assert_eq!(weights.cost(Tokens { input: 10, output: 1, cached: 10, reasoning: 0 }), 5);
        let negative = Weights { input: -1.0, ..weights };
        assert_eq!(negative.cost(Tokens { input: 10, ..Tokens::default() }), 0);
    }
}
