//! One strict pass over a JSON request. What two parsers could read differently is refused: duplicate
//! known keys, also when escaped or in another case (Go's decoders fold case, the long s and the Kelvin
//! sign included), bytes that are not UTF-8, and anything after the object.

use std::{borrow::Cow, ops::Range};

use thiserror::Error;

use super::{Asked, ModelForm, Stream, UsageEvent, rewrite::Edit};
use crate::json::{self, Invalid, Raw, Text};

/// Why a body is refused. Clients see these texts; none repeats what they sent beyond a known name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    #[error("the request has no body; send a JSON object with a \"model\"")]
    Empty,
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    #[error("the body is not a valid JSON object (line {line}, column {column})")]
    NotAnObject { line: usize, column: usize },
    #[error("the body has no \"model\"; name the model to use")]
    NoModel,
    #[error("\"{0}\" occurs twice in the body")]
    Twice(&'static str),
    #[error("a key of the body is another spelling of \"{0}\"; write it exactly so")]
    Spelling(&'static str),
    #[error("\"{name}\" must be {expected}")]
    Type { name: &'static str, expected: &'static str },
}

/// The members that are read, in the order of [`Members`].
const KNOWN: [&str; 7] =
    ["model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n"];
const INCLUDE_USAGE: &str = "include_usage";

/// Values of known members, in the order of their names.
struct Members<'b, const N: usize> {
    found: [Option<Raw<'b>>; N],
    /// All members, the unknown ones too.
    count: usize,
}

/// Reads a request. `force_usage`: the API tells usage in streams only when asked.
pub fn read(body: &[u8], force_usage: bool) -> Result<Asked<'_>, Refused> {
    if body.trim_ascii().is_empty() {
        return Err(Refused::Empty);
    }
    std::str::from_utf8(body).map_err(|_| Refused::NotUtf8)?;
    let [model, stream, stream_options, max_tokens, max_completion, max_output, n] = members(body, KNOWN)?.found;
    let model = model.ok_or(Refused::NoModel)?;
    let (name, model_form) = model_name(model)?;
    if name.is_empty() {
        return Err(Refused::NoModel);
    }
    let stream = match stream.map(|stream| stream.text) {
        Some(b"true") if force_usage => Stream::Events(usage_event(body, stream_options)?),
        Some(b"true") => Stream::Events(UsageEvent::Asked),
        Some(b"false" | b"null") | None => Stream::Whole,
        Some(_) => {
            return Err(Refused::Type { name: "stream", expected: "true or false" });
        }
    };
    Ok(Asked {
        model: name,
        model_at: model.span(),
        model_form,
        max_output: [max_completion, max_tokens, max_output].into_iter().flatten().find_map(|max| max.as_number()),
        answers: n.and_then(|n| n.as_number()).unwrap_or(1),
        stream,
    })
}

/// A string as JSON.
pub fn quote(text: &str) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    json::quote(text, &mut quoted);
    quoted
}

fn usage_event(body: &[u8], options: Option<Raw<'_>>) -> Result<UsageEvent, Refused> {
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
        return Err(Refused::Type { name: "stream_options", expected: "an object" });
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
fn members<'b, const N: usize>(body: &'b [u8], names: [&'static str; N]) -> Result<Members<'b, N>, Refused> {
    let mut members = Members { found: [None; N], count: 0 };
    let mut refused = None;
    let read = json::members(body, |key, value| {
        members.count += 1;
        match recognise(&key, names) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let before = members.found.get_mut(known).and_then(|slot| slot.replace(value));
                if let (Some(_), Some(name)) = (before, names.get(known)) {
                    refused.get_or_insert(Refused::Twice(name));
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

fn not_an_object(body: &[u8], Invalid { at }: Invalid) -> Refused {
    let before = body.get(..at).unwrap_or(body);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Refused::NotAnObject { line, column }
}

fn model_name(value: Raw<'_>) -> Result<(Cow<'_, str>, ModelForm), Refused> {
    let refused = Refused::Type { name: "model", expected: "a string" };
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
fn recognise<const N: usize>(key: &Text<'_>, names: [&'static str; N]) -> Result<Option<usize>, Refused> {
    let decoded;
    let meant = if key.has_escapes {
        // Half a surrogate pair is in no known name.
        decoded = key.decode().unwrap_or_default();
        decoded.as_str()
    } else {
        if let Some(known) = names.iter().position(|name| name.as_bytes() == key.inner) {
            return Ok(Some(known));
        }
        std::str::from_utf8(key.inner).unwrap_or_default()
    };
    match names.iter().find(|name| folds_to(meant, name)) {
        Some(name) => Err(Refused::Spelling(name)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::body::rewrite::apply;

    fn read_str(body: &str) -> Result<Asked<'_>, Refused> {
        read(body.as_bytes(), true)
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for (body, refused) in [
            ("", Refused::Empty),
            (" \n", Refused::Empty),
            ("[]", Refused::NotAnObject { line: 1, column: 1 }),
            (r#"{"model":"a"} x"#, Refused::NotAnObject { line: 1, column: 15 }),
            (r#"{"model":"a""#, Refused::NotAnObject { line: 1, column: 13 }),
            ("{}", Refused::NoModel),
            (r#"{"model":""}"#, Refused::NoModel),
            (r#"{"model":7}"#, Refused::Type { name: "model", expected: "a string" }),
            (r#"{"model":"\ud800"}"#, Refused::Type { name: "model", expected: "a string" }),
            (r#"{"model":"a","model":"b"}"#, Refused::Twice("model")),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Refused::Spelling("model")),
            (r#"{"mod\u0065l":"b"}"#, Refused::Spelling("model")),
            (r#"{"model":"a","Model":"b"}"#, Refused::Spelling("model")),
            ("{\"model\":\"a\",\"\u{17f}tream\":true}", Refused::Spelling("stream")),
            ("{\"model\":\"a\",\"max_to\u{212a}ens\":9}", Refused::Spelling("max_tokens")),
            (r#"{"model":"a","stream":1}"#, Refused::Type { name: "stream", expected: "true or false" }),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
                Refused::Twice("include_usage"),
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":3}"#,
                Refused::Type { name: "stream_options", expected: "an object" },
            ),
        ] {
            assert_eq!(read_str(body), Err(refused), "{body}");
        }
        assert_eq!(read(b"{\"model\":\"\xff\"}", true), Err(Refused::NotUtf8));
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
            let Stream::Events(event) = read.stream else { panic!("{body}") };
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
            model in ".+",
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
            prop_assert_eq!(asked.max_output, max);
            prop_assert_eq!(asked.stream != Stream::Whole, stream == Some(true));
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
