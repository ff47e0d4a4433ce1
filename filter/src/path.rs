//! A request's path. What stands below the client's `/v1` belongs to the API, what stands before it to the route or to
//! the backend.
//!
//! Some servers decode a path before they split it, others after. A path is taken only where that makes no difference,
//! so the API that is told here is the one that the backend serves. The path is decoded once, to tell the API. The
//! backend is sent what the client wrote, because a rewritten path could be read in yet another way. A path that would
//! decode further is refused, because each server of a chain may decode once.

use std::borrow::Cow;

use thiserror::Error;

use crate::body::all;

/// A `:path`, split at its first `/v1` segment and at its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'p> {
    /// What stands below `/v1`, or the whole path if it has none. It is as it was sent, with the query.
    rest: &'p str,
    /// The same, decoded and without the query.
    below: Cow<'p, str>,
}

/// The path, below `/v1`, that asks about models.
pub const MODELS: &str = "/models";

/// Where a path may have an escaped slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlash {
    Refused,
    /// Only in the name below `/models/`. The filter itself answers that, and names such as `org/name` are usual.
    InModelName,
}

/// Why a path is refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    #[error("the path has a character that must be escaped, or a control character")]
    Character,
    #[error("the path has an invalid percent escape")]
    Escape,
    #[error("the path is escaped twice")]
    EscapedTwice,
    #[error("the path has an escaped slash, a backslash or a semicolon, which servers read differently")]
    Separator,
    #[error("the path has an empty segment, or one of dots")]
    Segment,
}

// === impl Path ===

impl<'p> Path<'p> {
    pub fn parse(raw: &'p str, slash: EscapedSlash) -> Result<Self, Invalid> {
        let path = raw.split_once('?').map_or(raw, |(path, _)| path);
        let segments = path.strip_prefix('/').ok_or(Invalid::Segment)?;
        let mut start = None;
        let mut at = 0;
        for segment in segments.split('/') {
            let names_model =
                slash == EscapedSlash::InModelName && start.is_some_and(|start| path.get(start..at) == Some(MODELS));
            at += 1 + segment.len();
            let decoded = decode(segment)?;
            check(&decoded, names_model)?;
            if decoded.is_empty() && at < path.len() {
                return Err(Invalid::Segment);
            }
            if start.is_none() && decoded == "v1" {
                start = Some(at);
            }
        }
        let start = start.unwrap_or(0);
        let below = decode(path.get(start..).unwrap_or(path))?;
        Ok(Self { rest: raw.get(start..).unwrap_or(raw), below })
    }

    /// The part below `/v1`, decoded and without the query.
    pub fn below(&self) -> &str {
        &self.below
    }

    /// The part below `/v1` as it was sent, with the query.
    pub fn below_with_query(&self) -> &'p str {
        self.rest
    }
}

/// Whether every server takes a decoded segment for one segment.
fn check(segment: &str, names_model: bool) -> Result<(), Invalid> {
    if matches!(segment, "." | "..") {
        return Err(Invalid::Segment);
    }
    for (at, char) in segment.char_indices() {
        match char {
            '/' if names_model => {}
            '/' | '\\' | ';' | '?' | '#' => return Err(Invalid::Separator),
            '%' if segment.as_bytes().get(at + 1..at + 3).is_some_and(|digits| byte(digits).is_some()) => {
                return Err(Invalid::EscapedTwice);
            }
            char if char.is_control() => return Err(Invalid::Character),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes percent escapes, once.
fn decode(text: &str) -> Result<Cow<'_, str>, Invalid> {
    if !all(text.as_bytes(), u8::is_ascii_graphic) {
        return Err(Invalid::Character);
    }
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = if *first == b'%' {
            let (digits, after) = after.split_at_checked(2).ok_or(Invalid::Escape)?;
            (byte(digits).ok_or(Invalid::Escape)?, after)
        } else {
            (*first, after)
        };
        decoded.push(byte);
        rest = after;
    }
    // Old decoders take overlong forms such as %c0%af for a slash.
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Invalid::Escape)
}

/// The byte that two hex digits stand for.
fn byte(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        Some((value << 4) | digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn below(raw: &str) -> Result<String, Invalid> {
        Path::parse(raw, EscapedSlash::Refused).map(|path| path.below().to_owned())
    }

    #[test]
    fn the_first_v1_segment_counts() {
        for (raw, below, with_query) in [
            ("/v1/chat/completions?a=/v1/b", "/chat/completions", "/chat/completions?a=/v1/b"),
            ("/team/v1/models", "/models", "/models"),
            ("/v1", "", ""),
            ("/v1/", "/", "/"),
            ("/", "/", "/"),
            ("/v1beta/models", "/v1beta/models", "/v1beta/models"),
            ("/v1beta/v1/models", "/models", "/models"),
            ("/chat/completions", "/chat/completions", "/chat/completions"),
            ("/x/v1/a/v1/b", "/a/v1/b", "/a/v1/b"),
        ] {
            let path = Path::parse(raw, EscapedSlash::Refused).unwrap();
            assert_eq!((path.below(), path.below_with_query()), (below, with_query), "{raw}");
        }
    }

    #[test]
    fn the_api_is_told_from_the_decoded_path_and_the_backend_gets_what_was_sent() {
        for (raw, below, with_query) in [
            ("/v1/chat/complet%69ons", "/chat/completions", "/chat/complet%69ons"),
            ("/%76%31/chat/completions?%2f", "/chat/completions", "/chat/completions?%2f"),
            ("/v1/caf%C3%A9/100%25", "/café/100%", "/caf%C3%A9/100%25"),
        ] {
            let path = Path::parse(raw, EscapedSlash::Refused).unwrap();
            assert_eq!((path.below(), path.below_with_query()), (below, with_query), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for (raw, invalid) in [
            ("/v1/chat%2fcompletions", Invalid::Separator),
            ("/v1/chat%2Fcompletions?x", Invalid::Separator),
            ("/v1%2fchat/completions", Invalid::Separator),
            ("/v1/..%2f..%2fadmin", Invalid::Separator),
            ("/v1/chat%5ccompletions", Invalid::Separator),
            ("/v1/chat\\completions", Invalid::Separator),
            ("/v1/chat/completions;x=1", Invalid::Separator),
            ("/v1/messages%3B/count_tokens", Invalid::Separator),
            ("/v1/chat/completions%3fx", Invalid::Separator),
            ("/v1/chat/completions#x", Invalid::Separator),
            ("/v1/chat%252fcompletions", Invalid::EscapedTwice),
            ("/v1/../admin", Invalid::Segment),
            ("/v1/%2e%2e/admin", Invalid::Segment),
            ("/v1/.%2E/admin", Invalid::Segment),
            ("/v1/chat/./completions", Invalid::Segment),
            ("/v1/chat/completions/%2e", Invalid::Segment),
            ("/v1//chat/completions", Invalid::Segment),
            ("v1/chat", Invalid::Segment),
            ("*", Invalid::Segment),
            ("", Invalid::Segment),
            ("/v1/chat%00", Invalid::Character),
            ("/v1/chat%0d%0a", Invalid::Character),
            ("/v1/chat completions", Invalid::Character),
            ("/v1/café", Invalid::Character),
            ("/v1/a\u{7f}", Invalid::Character),
            ("/v1/chat%2", Invalid::Escape),
            ("/v1/chat%zz", Invalid::Escape),
            ("/v1/chat%+1", Invalid::Escape),
            ("/v1/chat%c0%afcompletions", Invalid::Escape),
        ] {
            assert_eq!(below(raw), Err(invalid), "{raw}");
        }
    }

    #[test]
    fn a_models_name_may_have_slashes_where_only_the_filter_reads_it() {
        let parse = |raw| Path::parse(raw, EscapedSlash::InModelName).map(|path| path.below().to_owned());
        assert_eq!(parse("/v1/models/org%2Fname").as_deref(), Ok("/models/org/name"));
        assert_eq!(below("/v1/models/org%2Fname"), Err(Invalid::Separator));
        for raw in
            ["/v1/models%2Fname", "/v1%2Fmodels/name", "/models/a%2Fb", "/v1/models/a/b%2Fc", "/v1/x/models/a%2F"]
        {
            assert_eq!(parse(raw), Err(Invalid::Separator), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(raw in ".*", slash in any::<bool>()) {
            let _ = Path::parse(&raw, if slash { EscapedSlash::Refused } else { EscapedSlash::InModelName });
        }

        /// Decoding first and splitting later gives the same API, as often as anyone decodes.
        #[test]
        fn the_order_of_decoding_and_splitting_makes_no_difference(raw in "(/|/v1/)([a-z/.%;\\\\?]|%2[ef5F]|%[0-9a-f]{2}){0,12}") {
            let Ok(path) = Path::parse(&raw, EscapedSlash::Refused) else { return Ok(()) };
            let whole = decode(raw.split('?').next().unwrap()).unwrap().into_owned();
            let again = decode(&whole).map_or(whole.clone(), |again| again.into_owned());
            prop_assert_eq!(&again, &whole);
            if !whole.contains('%') && whole.bytes().all(|byte| byte.is_ascii_graphic()) {
                let again = Path::parse(&whole, EscapedSlash::Refused).unwrap();
                prop_assert_eq!(again.below(), path.below());
            }
            prop_assert!(!path.below().split('/').any(|segment| matches!(segment, "." | "..")));
            prop_assert_eq!(path.below().matches('/').count(), path.below_with_query().split('?').next().unwrap().matches('/').count());
        }
    }
}
