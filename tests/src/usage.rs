//! Usage as an answer says it: written apart from the filter's reader, to check that one.

use serde_json::Value;

/// Tokens of one answer, or a sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
}

// === impl Usage ===

impl Usage {
    pub fn total(self) -> u64 {
        self.input + self.output
    }

    /// From a JSON answer or a stream of events, in each of the APIs' shapes.
    pub fn of_answer(answer: &[u8]) -> Option<Self> {
        if let Ok(json) = serde_json::from_slice::<Value>(answer) {
            return Self::of_json(&json);
        }
        let text = String::from_utf8_lossy(answer);
        let mut events = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok())
            .peekable();
        events.peek()?;
        Self::of_events(events)
    }

    pub fn of_json(answer: &Value) -> Option<Self> {
        Self::read(answer.get("usage").filter(|usage| usage.is_object())?)
    }

    /// The last that the events say; Anthropic's first event has the input, its last the output. Without an input
    /// nothing was said: a server that leaves the first event out gives half a figure.
    pub fn of_events(events: impl IntoIterator<Item = Value>) -> Option<Self> {
        let mut found: Option<Self> = None;
        let mut input = false;
        for event in events {
            let inner = ["response", "message"].iter().find_map(|name| event.get(name));
            let Some(usage) = [Some(&event), inner]
                .into_iter()
                .flatten()
                .find_map(|holder| holder.get("usage").filter(|usage| usage.is_object()))
            else {
                continue;
            };
            let Some(next) = Self::read(usage) else {
                continue;
            };
            input |= usage.get("prompt_tokens").or_else(|| usage.get("input_tokens")).is_some_and(Value::is_u64);
            found = Some(match found {
                Some(before) => Self {
                    input: before.input.max(next.input),
                    output: before.output.max(next.output),
                    cached: before.cached.max(next.cached),
                },
                None => next,
            });
        }
        found.filter(|_| input)
    }

    fn read(usage: &Value) -> Option<Self> {
        let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
        let output = number("/completion_tokens").or_else(|| number("/output_tokens")).unwrap_or(0);
        if let Some(input) = number("/prompt_tokens") {
            let cached = number("/prompt_tokens_details/cached_tokens").unwrap_or(0);
            return Some(Self { input, output, cached });
        }
        let input = number("/input_tokens");
        if let Some(cached) = number("/input_tokens_details/cached_tokens") {
            return Some(Self { input: input?, output, cached });
        }
        // Anthropic counts what it read from or wrote to its cache apart from the input.
        let cached = number("/cache_read_input_tokens").unwrap_or(0);
        let written = number("/cache_creation_input_tokens").unwrap_or(0);
        if input.is_none() && output == 0 {
            return None;
        }
        Some(Self { input: input.unwrap_or(0) + cached + written, output, cached })
    }
}

impl std::ops::Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { input: self.input + other.input, output: self.output + other.output, cached: self.cached + other.cached }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}
