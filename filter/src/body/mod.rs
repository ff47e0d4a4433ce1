//! Bodies: requests are read once and strictly, answers are scanned as they pass.

pub mod form;
pub mod json;
pub mod rewrite;
pub mod sse;

use std::{borrow::Cow, ops::Range};

/// What the filter takes from a request's body, whatever its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'b> {
    pub model: Cow<'b, str>,
    /// Where the model's value stands, as the backend will read it.
    pub model_at: Range<usize>,
    pub model_form: ModelForm,
    /// Most output tokens that the client wants of one answer.
    pub max_output: Option<u64>,
    /// Answers wanted (`n`).
    pub answers: u64,
    pub stream: Stream,
}

/// How a model's name is written in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelForm {
    /// A JSON string.
    Json,
    /// A JSON string with escapes: two parsers may differ, so it is written anew.
    EscapedJson,
    /// A field of a form, without quotes.
    Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// One answer as a whole.
    Whole,
    /// Server-sent events.
    Events(UsageEvent),
}

/// Whether the client asked for the event with the usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageEvent {
    Asked,
    /// Not asked for; the edit that asks the backend for it.
    NotAsked(rewrite::Edit),
}

impl ModelForm {
    /// A model's name as it stands in a body of this form.
    pub fn write(self, model: &str) -> Vec<u8> {
        match self {
            Self::Form => model.as_bytes().to_vec(),
            Self::Json | Self::EscapedJson => json::quote(model),
        }
    }
}
