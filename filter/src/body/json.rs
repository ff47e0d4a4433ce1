//! One strict pass over a JSON request. What two parsers could read differently is refused: a known key twice, bytes
//! that are not UTF-8, and anything after the object. A key also counts as known when it is escaped or in another case,
//! because Go's decoders fold case, the long s and the Kelvin sign included.

use std::{borrow::Cow, ops::Range};

use thiserror::Error;

use super::{AnswerMode, Asked, InvalidName, ModelForm, UsageEvent, check_name, rewrite::Edit};
use crate::json::{self, Invalid, Raw, Text, Why};

/// Why a body is refused. Clients see these texts. None repeats what they sent, except a known name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidBody {
    #[error("the request has no body; send a JSON object with a \"model\"")]
    Empty,
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    #[error("the body is not a valid JSON object (line {line}, column {column})")]
    NotAnObject { line: usize, column: usize },
    #[error("the body is nested deeper than {MAX_LEVELS} levels")]
    TooDeep,
    #[error("the body has no \"model\"; name the model to use")]
    NoModel,
    #[error("\"{0}\" occurs twice in the body")]
    Twice(&'static str),
    #[error("a key of the body is another spelling of \"{0}\"; write it exactly so")]
    Spelling(&'static str),
    #[error("\"{name}\" must be {expected}")]
    Type { name: &'static str, expected: &'static str },
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// The most levels of objects and arrays. Backends fall over on thousands, and many parsers stop at this many.
const MAX_LEVELS: usize = 128;

/// The members that are read, in the order of [`Members`].
const KNOWN: [&str; 14] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    // Of llama.cpp and others, beside the standard's names.
    "n_predict",
    "max_new_tokens",
    "n",
    "best_of",
    "prompt",
    "input",
    BACKGROUND,
    DEFERRED,
];
const INCLUDE_USAGE: &str = "include_usage";
/// The member of the Responses API that asks for an answer later.
const BACKGROUND: &str = "background";
/// The same member in a Chat API (xAI).
const DEFERRED: &str = "deferred";

/// The values of the known members, in the order of their names.
struct Members<'b, const N: usize> {
    found: [Option<Raw<'b>>; N],
    /// How many members there are, with the unknown ones.
    count: usize,
}

/// Reads a request. `force_usage`: the API tells usage in a stream only when it is asked to.
pub fn read(body: &[u8], force_usage: bool) -> Result<Asked<'_>, InvalidBody> {
    if body.trim_ascii().is_empty() {
        return Err(InvalidBody::Empty);
    }
    std::str::from_utf8(body).map_err(|_| InvalidBody::NotUtf8)?;
    let [
        model,
        stream,
        stream_options,
        max_tokens,
        max_completion,
        max_output,
        n_predict,
        max_new,
        n,
        best_of,
        prompt,
        input,
        background,
        deferred,
    ] = members(body, KNOWN)?.found;
    let model = model.ok_or(InvalidBody::NoModel)?;
    let (name, model_form) = model_name(model)?;
    if name.is_empty() {
        return Err(InvalidBody::NoModel);
    }
    check_name(&name)?;
    let stream = match is_true("stream", stream)? {
        true if force_usage => AnswerMode::Events(usage_event(body, stream_options)?),
        true => AnswerMode::Events(UsageEvent::Asked),
        false => AnswerMode::Whole,
    };
    Ok(Asked {
        model: name,
        model_at: model.span(),
        model_form,
        max_output: largest(&[max_tokens, max_completion, max_output, n_predict, max_new]),
        answers: answers("n", n)?.max(answers("best_of", best_of)?).saturating_mul(prompts(prompt).max(prompts(input))),
        deferred: if is_true(BACKGROUND, background)? {
            Some(BACKGROUND)
        } else if is_true(DEFERRED, deferred)? {
            Some(DEFERRED)
        } else {
            None
        },
        stream,
    })
}

/// The most output tokens that the client wants. Backends differ in which name they read, so the largest of the values
/// counts. If one of them is not a whole number above 0, none counts, and the model's habit is reserved. Such a value
/// means "no limit" to one backend (-1, or 0 where that is the same as absent) and 100 to another (`"100"`, `1e2`). To
/// most it is an error, and they explain it better.
fn largest(given: &[Option<Raw<'_>>]) -> Option<u64> {
    let mut largest = None;
    for given in given.iter().flatten().filter(|given| given.text != b"null") {
        largest = largest.max(Some(given.as_count().filter(|count| *count > 0)?));
    }
    largest
}

/// How many answers a client wants to one prompt. No assumption would be safe here, so a value that is not written as a
/// count is refused.
fn answers(name: &'static str, given: Option<Raw<'_>>) -> Result<u64, InvalidBody> {
    match given.filter(|given| given.text != b"null") {
        None => Ok(1),
        Some(given) => {
            given.as_count().map(|count| count.max(1)).ok_or(InvalidBody::Type { name, expected: "a whole number" })
        }
    }
}

/// How many prompts a request has. In an array, each text and each array of token ids is one.
fn prompts(given: Option<Raw<'_>>) -> u64 {
    let mut prompts = 0;
    if let Some(given) = given {
        given.items(|item| prompts += u64::from(item.text.starts_with(b"\"") || item.text.starts_with(b"[")));
    }
    prompts.max(1)
}

fn is_true(name: &'static str, given: Option<Raw<'_>>) -> Result<bool, InvalidBody> {
    match given.map(|given| given.text) {
        Some(b"true") => Ok(true),
        Some(b"false" | b"null") | None => Ok(false),
        Some(_) => Err(InvalidBody::Type { name, expected: "true or false" }),
    }
}

impl InvalidBody {
    /// The member that is at fault, if it is one.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NoModel | Self::Name(_) => Some("model"),
            Self::Twice(name) | Self::Spelling(name) | Self::Type { name, .. } => Some(name),
            Self::Empty | Self::NotUtf8 | Self::NotAnObject { .. } | Self::TooDeep => None,
        }
    }
}

/// Writes a string as JSON.
pub fn quote(text: &str) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    json::quote(text, &mut quoted);
    quoted
}

fn usage_event(body: &[u8], options: Option<Raw<'_>>) -> Result<UsageEvent, InvalidBody> {
    let edit = |at: Range<usize>, text: &'static [u8]| UsageEvent::NotAsked(Edit::new(at, text));
    let Some(options) = options else {
        // Right after the object's opening brace; the object has a model, so a comma follows.
        let at = body.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1);
        return Ok(edit(at..at, br#""stream_options":{"include_usage":true},"#));
    };
    if options.text == b"null" {
        return Ok(edit(options.span(), br#"{"include_usage":true}"#));
    }
    if !options.is_object() {
        return Err(InvalidBody::Type { name: "stream_options", expected: "an object" });
    }
    let inner = members(options.text, [INCLUDE_USAGE])?;
    let [include_usage] = inner.found;
    Ok(match include_usage {
        Some(value) if value.text == b"true" => UsageEvent::Asked,
        Some(value) => {
            let start = options.start + value.start;
            edit(start..start + value.text.len(), b"true")
        }
        None => {
            let inside = options.start + 1;
            let member: &[u8] = if inner.count == 0 { br#""include_usage":true"# } else { br#""include_usage":true,"# };
            edit(inside..inside, member)
        }
    })
}

/// Reads the known members of one object, and nothing after it.
fn members<'b, const N: usize>(body: &'b [u8], names: [&'static str; N]) -> Result<Members<'b, N>, InvalidBody> {
    let mut members = Members { found: [None; N], count: 0 };
    let mut refused = None;
    let read = json::shallow_members(body, MAX_LEVELS, |key, value| {
        members.count += 1;
        match recognise(&key, names) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let before = members.found.get_mut(known).and_then(|slot| slot.replace(value));
                if let (Some(_), Some(name)) = (before, names.get(known)) {
                    refused.get_or_insert(InvalidBody::Twice(name));
                }
            }
            Err(spelling) => {
                refused.get_or_insert(spelling);
            }
        }
    });
    read.map_err(|invalid| not_an_object(body, invalid))?;
    refused.map_or(Ok(members), Err)
}

fn not_an_object(body: &[u8], Invalid { at, why }: Invalid) -> InvalidBody {
    if why == Why::TooDeep {
        return InvalidBody::TooDeep;
    }
    let before = body.get(..at).unwrap_or(body);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    InvalidBody::NotAnObject { line, column }
}

fn model_name(value: Raw<'_>) -> Result<(Cow<'_, str>, ModelForm), InvalidBody> {
    let refused = InvalidBody::Type { name: "model", expected: "a string" };
    let Some(text) = value.as_text() else {
        return Err(refused);
    };
    if text.has_escapes {
        let decoded = text.decode().ok_or(refused)?;
        return Ok((Cow::Owned(decoded), ModelForm::EscapedJson));
    }
    let plain = std::str::from_utf8(text.inner).map_err(|_| refused)?;
    Ok((Cow::Borrowed(plain), ModelForm::Json))
}

/// Tells whether a key that is not `name` could be taken for it by a decoder that folds case.
fn folds_to(key: &str, name: &str) -> bool {
    let folded = |char| match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(name.chars())
}

/// The known name that a key is, or the refusal of one that only looks like it.
fn recognise<const N: usize>(key: &Text<'_>, names: [&'static str; N]) -> Result<Option<usize>, InvalidBody> {
    let decoded;
    let meant = if key.has_escapes {
        // No known name has half a surrogate pair.
        decoded = key.decode().unwrap_or_default();
        decoded.as_str()
    } else {
        if let Some(known) = names.iter().position(|name| name.as_bytes() == key.inner) {
            return Ok(Some(known));
        }
        std::str::from_utf8(key.inner).unwrap_or_default()
    };
    match names.iter().find(|name| folds_to(meant, name)) {
        Some(name) => Err(InvalidBody::Spelling(name)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::body::rewrite::apply;

    fn read_str(body: &str) -> Result<Asked<'_>, InvalidBody> {
        read(body.as_bytes(), true)
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for (body, refused) in [
            ("", InvalidBody::Empty),
            (" \n", InvalidBody::Empty),
            ("[]", InvalidBody::NotAnObject { line: 1, column: 1 }),
            (r#"{"model":"a"} x"#, InvalidBody::NotAnObject { line: 1, column: 15 }),
            (r#"{"model":"a""#, InvalidBody::NotAnObject { line: 1, column: 13 }),
            ("{}", InvalidBody::NoModel),
            (r#"{"model":""}"#, InvalidBody::NoModel),
            (r#"{"model":7}"#, InvalidBody::Type { name: "model", expected: "a string" }),
            (r#"{"model":"\ud800"}"#, InvalidBody::Type { name: "model", expected: "a string" }),
            (r#"{"model":"a","model":"b"}"#, InvalidBody::Twice("model")),
            (r#"{"model":"a","mod\u0065l":"b"}"#, InvalidBody::Spelling("model")),
            (r#"{"mod\u0065l":"b"}"#, InvalidBody::Spelling("model")),
            (r#"{"model":"a","Model":"b"}"#, InvalidBody::Spelling("model")),
            ("{\"model\":\"a\",\"\u{17f}tream\":true}", InvalidBody::Spelling("stream")),
            ("{\"model\":\"a\",\"max_to\u{212a}ens\":9}", InvalidBody::Spelling("max_tokens")),
            (r#"{"model":"a","background":true,"background":false}"#, InvalidBody::Twice("background")),
            (r#"{"model":"a","Background":true}"#, InvalidBody::Spelling("background")),
            (r#"{"model":"a","bac\u006bground":true}"#, InvalidBody::Spelling("background")),
            ("{\"model\":\"a\",\"bac\u{212a}ground\":true}", InvalidBody::Spelling("background")),
            (
                r#"{"model":"a","background":"true"}"#,
                InvalidBody::Type { name: "background", expected: "true or false" },
            ),
            (r#"{"model":"a","deferred":1}"#, InvalidBody::Type { name: "deferred", expected: "true or false" }),
            (r#"{"model":"a\u001b[2J"}"#, InvalidBody::Name(InvalidName::Control)),
            ("{\"model\":\"a\u{202e}b\"}", InvalidBody::Name(InvalidName::Control)),
            (r#"{"model":"a","stream":1}"#, InvalidBody::Type { name: "stream", expected: "true or false" }),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
                InvalidBody::Twice("include_usage"),
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":3}"#,
                InvalidBody::Type { name: "stream_options", expected: "an object" },
            ),
        ] {
            assert_eq!(read_str(body), Err(refused), "{body}");
        }
        assert_eq!(read(b"{\"model\":\"\xff\"}", true), Err(InvalidBody::NotUtf8));
    }

    #[test]
    fn the_models_name_and_the_depth_are_bounded() {
        let named = |bytes: usize| format!(r#"{{"model":"{}"}}"#, "x".repeat(bytes));
        assert!(read_str(&named(256)).is_ok());
        assert_eq!(read_str(&named(257)), Err(InvalidBody::Name(InvalidName::TooLong)));
        let deep =
            |levels: usize| format!(r#"{{"model":"a","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read_str(&deep(MAX_LEVELS)).is_ok());
        for levels in [MAX_LEVELS + 1, 100_000] {
            assert_eq!(read_str(&deep(levels)), Err(InvalidBody::TooDeep));
        }
    }

    #[test]
    fn a_client_cannot_lower_what_is_reserved() {
        for (members, max_output, answers) in [
            (r#""max_tokens":9"#, Some(9), 1),
            (r#""max_tokens":1,"max_completion_tokens":9,"max_output_tokens":5"#, Some(9), 1),
            (r#""max_tokens":9,"max_completion_tokens":null"#, Some(9), 1),
            (r#""max_tokens":1,"n_predict":9"#, Some(9), 1),
            (r#""max_tokens":1,"n_predict":-1"#, None, 1),
            // Not written as a whole number above 0: the model's habit is reserved.
            (r#""max_tokens":0"#, None, 1),
            (r#""max_tokens":-1"#, None, 1),
            (r#""max_tokens":1,"max_completion_tokens":"9999""#, None, 1),
            (r#""max_tokens":1,"max_completion_tokens":1e9"#, None, 1),
            (r#""max_tokens":1.5"#, None, 1),
            (r#""max_tokens":[1]"#, None, 1),
            (r#""max_tokens":99999999999999999999999"#, Some(u64::MAX), 1),
            (r#""n":3"#, None, 3),
            (r#""n":0,"best_of":null"#, None, 1),
            (r#""n":3,"best_of":5"#, None, 5),
            (r#""n":7,"best_of":5"#, None, 7),
            (r#""n":99999999999999999999999,"prompt":["a","b"]"#, None, u64::MAX),
            (r#""prompt":"a""#, None, 1),
            (r#""prompt":[]"#, None, 1),
            (r#""prompt":["a","b","c"],"n":2"#, None, 6),
            (r#""prompt":[1,2,3]"#, None, 1),
            (r#""prompt":[[1,2],[3]],"best_of":4"#, None, 8),
            (r#""input":["a","b"]"#, None, 2),
            (r#""input":[{"role":"user","content":["a","b"]}]"#, None, 1),
        ] {
            let body = format!(r#"{{"model":"a",{members}}}"#);
            let asked = read_str(&body).unwrap();
            assert_eq!((asked.max_output, asked.answers), (max_output, answers), "{members}");
        }
        for (name, value) in
            [("n", "-1"), ("n", "\"8\""), ("n", "8.0"), ("n", "8e0"), ("best_of", "[8]"), ("best_of", "true")]
        {
            let body = format!(r#"{{"model":"a","{name}":{value}}}"#);
            assert_eq!(read_str(&body), Err(InvalidBody::Type { name, expected: "a whole number" }), "{value}");
        }
    }

    #[test]
    fn work_that_answers_later_is_told_by_its_member() {
        for (members, deferred) in [
            (r#""background":true"#, Some("background")),
            (r#""background":true,"stream":true,"store":true"#, Some("background")),
            (r#""deferred":true"#, Some("deferred")),
            (r#""background":false,"deferred":null"#, None),
            (r#""metadata":{"background":true}"#, None),
        ] {
            assert_eq!(read_str(&format!(r#"{{"model":"a",{members}}}"#)).unwrap().deferred, deferred, "{members}");
        }
    }

    #[test]
    fn nested_names_are_not_the_requests() {
        let asked = read_str(r#"{"messages":[{"model":"x","Model":"y"}],"model":"a","max_tokens":9,"n":2}"#).unwrap();
        assert_eq!((&*asked.model, asked.max_output, asked.answers), ("a", Some(9), 2));
        assert_eq!(asked.model_form, ModelForm::Json);
    }

    #[test]
    fn an_escaped_value_is_told_apart() {
        let asked = read_str(r#"{"model":"sm\u006fl"}"#).unwrap();
        assert_eq!((&*asked.model, asked.model_form), ("smol", ModelForm::EscapedJson));
    }

    #[test]
    fn usage_is_asked_for_in_streams_and_nothing_else_changes() {
        for (body, asked) in [
            (r#"{"model":"a","stream":true}"#, false),
            (r#" { "stream" : true , "model":"a"}"#, false),
            (r#"{"model":"a","stream":true,"stream_options":null}"#, false),
            (r#"{"model":"a","stream":true,"stream_options":{}}"#, false),
            (r#"{"model":"a","stream":true,"stream_options":{"x":1}}"#, false),
            (r#"{"model":"a","stream":true,"stream_options":{"include_usage":false,"x":1}}"#, false),
            (r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"x":1}}"#, true),
        ] {
            let read = read_str(body).unwrap();
            let AnswerMode::Events(event) = read.stream else { panic!("{body}") };
            assert_eq!(event == UsageEvent::Asked, asked, "{body}");
            if let UsageEvent::NotAsked(edit) = event {
                let edited = apply(body.as_bytes(), vec![edit]);
                let mut expected: Value = serde_json::from_str(body).unwrap();
                if !expected["stream_options"].is_object() {
                    expected["stream_options"] = json!({});
                }
                expected["stream_options"]["include_usage"] = json!(true);
                assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), expected, "{body}");
            }
        }
    }

    #[test]
    fn usage_is_asked_for_where_the_api_tells_it_only_then() {
        let body = br#"{"model":"a","stream":true,"stream_options":{}}"#;
        let events = |force_usage| read(body, force_usage).unwrap().stream;
        assert!(matches!(events(true), AnswerMode::Events(UsageEvent::NotAsked(_))));
        assert_eq!(events(false), AnswerMode::Events(UsageEvent::Asked));
    }

    #[test]
    fn the_member_at_fault_is_named() {
        for (body, param) in [
            ("{}", Some("model")),
            (r#"{"model":"a\u001b"}"#, Some("model")),
            (r#"{"model":"a","stream":1}"#, Some("stream")),
            (r#"{"model":"a","n":1,"n":2}"#, Some("n")),
            (r#"{"model":"a","Stream":true}"#, Some("stream")),
            ("", None),
            ("[]", None),
        ] {
            assert_eq!(read_str(body).unwrap_err().param(), param, "{body}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..4).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_parser(
            model in "[^\\p{C}\\p{Z}]{1,60}",
            stream in prop::option::of(any::<bool>()),
            max in prop::option::of(any::<u64>()),
            others in prop::collection::vec(("x.*", values()), 0..4),
            pretty in any::<bool>(),
        ) {
            let mut body: Value = others.into_iter().collect::<serde_json::Map<_, _>>().into();
            body["model"] = json!(model);
            if let Some(stream) = stream { body["stream"] = json!(stream) }
            if let Some(max) = max { body["max_tokens"] = json!(max) }
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
            let asked = read_str(&text).unwrap();
            prop_assert_eq!(&*asked.model, &model);
            prop_assert_eq!(asked.max_output, max.filter(|max| *max > 0));
            prop_assert_eq!(asked.stream != AnswerMode::Whole, stream == Some(true));
            let renamed = apply(text.as_bytes(), vec![Edit::new(asked.model_at, quote("other \"name\""))]);
            body["model"] = json!("other \"name\"");
            prop_assert_eq!(serde_json::from_slice::<Value>(&renamed).unwrap(), body);
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body, true);
        }
    }
}
