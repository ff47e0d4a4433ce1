//! Bodies. A request is read once and strictly. Streams of events are read as they pass.

pub mod content_type;
mod find;
pub mod form;
pub mod held;
pub mod json;
pub mod rewrite;
pub mod sse;

use std::{borrow::Cow, ops::Range};

use thiserror::Error;

/// What the filter takes from a request's body, whatever its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'b> {
    pub model: Cow<'b, str>,
    /// Where the model's value stands, as the backend will read it.
    pub model_at: Range<usize>,
    pub model_form: ModelForm,
    /// The most output tokens that the client wants of one answer. None: it did not say so, or in no clear way.
    pub max_output: Option<u64>,
    /// How many answers the backend is to make, for all prompts together.
    pub answers: u64,
    /// The member by which the client asks for an answer that comes before the work is done.
    pub deferred: Option<&'static str>,
    pub stream: AnswerMode,
}

/// How a model's name is written in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelForm {
    /// A JSON string.
    Json,
    /// A JSON string with escapes. Two parsers may read it differently, so it is written anew.
    EscapedJson,
    /// A field of a form, without quotes.
    Form,
}

/// How the client wants its answer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerMode {
    /// One answer as a whole.
    Whole,
    /// Server-sent events.
    Events(UsageEvent),
}

/// Whether the client asked for the event with the usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageEvent {
    Asked,
    /// It did not. The edit asks the backend for it.
    NotAsked(rewrite::Edit),
}

/// Whether two texts are the same but for the case of ASCII letters. It is not inlined: the copies, unrolled for SIMD
/// at each call, were 4 KB of the filter.
#[inline(never)]
pub(crate) fn same(text: &[u8], known: &[u8]) -> bool {
    text.eq_ignore_ascii_case(known)
}

/// Whether all bytes are of a kind. It is not inlined for the same reason.
#[inline(never)]
pub(crate) fn all(text: &[u8], allowed: fn(&u8) -> bool) -> bool {
    text.iter().all(allowed)
}

/// Why a text is not taken for a model's name. It would end in usage rows, logs and terminals.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    #[error("the model's name is longer than {MAX_NAME} bytes")]
    TooLong,
    #[error("the model's name has control characters")]
    Control,
}

/// The longest name in bytes. No name that is in use is longer.
const MAX_NAME: usize = 256;

/// Whether a text may be a model's name, known or not.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    if name.len() > MAX_NAME {
        return Err(InvalidName::TooLong);
    }
    // Besides control characters: what turns the direction of text, breaks lines or cannot be seen.
    let is_control = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if name.contains(is_control) { Err(InvalidName::Control) } else { Ok(()) }
}

impl ModelForm {
    /// Writes a model's name as it stands in a body of this form.
    pub fn write(self, model: &str) -> Vec<u8> {
        match self {
            Self::Form => model.as_bytes().to_vec(),
            Self::Json | Self::EscapedJson => json::quote(model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_short_and_shows_what_it_is() {
        for name in ["gpt-4o", "org/name:tag@sha", "modèle-é", "模型", "a b", &"x".repeat(MAX_NAME)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name(&"é".repeat(MAX_NAME / 2 + 1)), Err(InvalidName::TooLong));
        for char in
            ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{2028}', '\u{feff}']
        {
            assert_eq!(check_name(&format!("gpt{char}4")), Err(InvalidName::Control), "{char:?}");
        }
    }
}
