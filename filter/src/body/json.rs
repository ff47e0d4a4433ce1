//! One strict pass over a JSON request. What two parsers could read differently is refused: duplicate
//! known keys, also when escaped or in another case (Go's decoders fold case, the long s and the Kelvin
//! sign included), bytes that are not UTF-8, and anything after the object.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Asked, ModelForm, Stream, UsageEvent, rewrite::Edit};

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
    Type {
        name: &'static str,
        expected: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
}

const KNOWN: [(Known, &str); 7] = [
    (Known::Model, "model"),
    (Known::Stream, "stream"),
    (Known::StreamOptions, "stream_options"),
    (Known::MaxTokens, "max_tokens"),
    (Known::MaxCompletionTokens, "max_completion_tokens"),
    (Known::MaxOutputTokens, "max_output_tokens"),
    (Known::N, "n"),
];
const INCLUDE_USAGE: &str = "include_usage";

/// A key as it was written.
enum Key<'b> {
    Plain(&'b str),
    /// It had escapes; this is what they mean.
    Escaped(String),
}

/// Raw values of the known members, in the order of [`KNOWN`].
#[derive(Default)]
struct Members<'b> {
    found: [Option<&'b RawValue>; KNOWN.len()],
    refused: Option<Refused>,
}

/// Members of `stream_options`.
#[derive(Default)]
struct Options<'b> {
    include_usage: Option<&'b RawValue>,
    members: usize,
    refused: Option<Refused>,
}

/// Reads a request. `force_usage`: the API tells usage in streams only when asked.
pub fn read(body: &[u8], force_usage: bool) -> Result<Asked<'_>, Refused> {
    if body.trim_ascii().is_empty() {
        return Err(Refused::Empty);
    }
    let text = std::str::from_utf8(body).map_err(|_| Refused::NotUtf8)?;
    let members: Members<'_> = object(text)?;
    if let Some(refused) = members.refused {
        return Err(refused);
    }
    let [
        model,
        stream,
        stream_options,
        max_tokens,
        max_completion,
        max_output,
        n,
    ] = members.found;
    let model = model.ok_or(Refused::NoModel)?;
    let (name, model_form) = string(model, "model")?;
    if name.is_empty() {
        return Err(Refused::NoModel);
    }
    let stream = match stream.map(RawValue::get) {
        Some("true") if force_usage => Stream::Events(usage_event(text, stream_options)?),
        Some("true") => Stream::Events(UsageEvent::Asked),
        Some("false" | "null") | None => Stream::Whole,
        Some(_) => {
            return Err(Refused::Type {
                name: "stream",
                expected: "true or false",
            });
        }
    };
    Ok(Asked {
        model: name,
        model_at: span(text, model),
        model_form,
        max_output: [max_completion, max_tokens, max_output]
            .into_iter()
            .flatten()
            .find_map(number),
        answers: n.and_then(number).unwrap_or(1),
        stream,
    })
}

/// A string as JSON.
pub fn quote(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_default()
}

fn usage_event(text: &str, options: Option<&RawValue>) -> Result<UsageEvent, Refused> {
    let Some(options) = options else {
        // Right after the object's opening brace; the object has a model, so a comma follows.
        let at = text.find('{').map_or(0, |brace| brace + 1);
        return Ok(UsageEvent::NotAsked(Edit::new(
            at..at,
            br#""stream_options":{"include_usage":true},"#.as_slice(),
        )));
    };
    let at = span(text, options);
    if options.get() == "null" {
        return Ok(UsageEvent::NotAsked(Edit::new(
            at,
            br#"{"include_usage":true}"#.as_slice(),
        )));
    }
    if !options.get().starts_with('{') {
        return Err(Refused::Type {
            name: "stream_options",
            expected: "an object",
        });
    }
    let inner: Options<'_> = object(options.get())?;
    match (inner.refused, inner.include_usage) {
        (Some(refused), _) => Err(refused),
        (None, Some(value)) if value.get() == "true" => Ok(UsageEvent::Asked),
        (None, Some(value)) => Ok(UsageEvent::NotAsked(Edit::new(
            span(text, value),
            b"true".as_slice(),
        ))),
        (None, None) => {
            let inside = at.start + 1;
            let member: &[u8] = if inner.members == 0 {
                br#""include_usage":true"#
            } else {
                br#""include_usage":true,"#
            };
            Ok(UsageEvent::NotAsked(Edit::new(inside..inside, member)))
        }
    }
}

/// Reads one object and nothing after it.
fn object<'b, T: Deserialize<'b>>(text: &'b str) -> Result<T, Refused> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let refused = |error: serde_json::Error| Refused::NotAnObject {
        line: error.line(),
        column: error.column(),
    };
    let members = T::deserialize(&mut reader).map_err(refused)?;
    reader.end().map_err(refused)?;
    Ok(members)
}

fn string<'b>(
    value: &'b RawValue,
    name: &'static str,
) -> Result<(Cow<'b, str>, ModelForm), Refused> {
    let refused = Refused::Type {
        name,
        expected: "a string",
    };
    let raw = value.get();
    let Some(inner) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) else {
        return Err(refused);
    };
    if !inner.contains('\\') {
        return Ok((Cow::Borrowed(inner), ModelForm::Json));
    }
    // Fails on lone surrogates, which parsers read differently.
    let decoded: String = serde_json::from_str(raw).map_err(|_| refused)?;
    Ok((Cow::Owned(decoded), ModelForm::EscapedJson))
}

/// A number of tokens; what is not one is left to the backend.
fn number(value: &RawValue) -> Option<u64> {
    let raw = value.get();
    raw.parse().ok().or_else(|| {
        raw.parse::<f64>()
            .ok()
            .filter(|number| *number >= 0.0)
            .map(|number| number as u64)
    })
}

/// Where a value stands in the text it was read from.
fn span(text: &str, value: &RawValue) -> Range<usize> {
    let start = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + value.get().len()
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
fn recognise(
    key: &Key<'_>,
    names: impl Iterator<Item = &'static str> + Clone,
) -> Result<Option<usize>, Refused> {
    let written = match key {
        Key::Plain(written) => {
            if let Some(known) = names.clone().position(|name| name == *written) {
                return Ok(Some(known));
            }
            *written
        }
        Key::Escaped(meant) => meant.as_str(),
    };
    match names.clone().find(|name| folds_to(written, name)) {
        Some(name) => Err(Refused::Spelling(name)),
        None => Ok(None),
    }
}

// === impl Deserialize ===

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key::Plain(key))
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key::Escaped(key.to_owned()))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    match recognise(&key, KNOWN.iter().map(|(_, name)| *name)) {
                        Ok(None) => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        Ok(Some(known)) => {
                            let value = map.next_value::<&'de RawValue>()?;
                            if let (Some(slot), Some((_, name))) =
                                (members.found.get_mut(known), KNOWN.get(known))
                            {
                                if slot.replace(value).is_some() {
                                    members.refused.get_or_insert(Refused::Twice(name));
                                }
                            }
                        }
                        Err(refused) => {
                            members.refused.get_or_insert(refused);
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Options<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Options<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options<'de>, A::Error> {
                let mut options = Options::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    options.members += 1;
                    let value = map.next_value::<&'de RawValue>()?;
                    match recognise(&key, [INCLUDE_USAGE].into_iter()) {
                        Ok(None) => {}
                        Ok(Some(_)) => {
                            if options.include_usage.replace(value).is_some() {
                                options.refused.get_or_insert(Refused::Twice(INCLUDE_USAGE));
                            }
                        }
                        Err(refused) => {
                            options.refused.get_or_insert(refused);
                        }
                    }
                }
                Ok(options)
            }
        }
        deserializer.deserialize_map(Object)
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
            ("[]", Refused::NotAnObject { line: 1, column: 0 }),
            (
                r#"{"model":"a"} x"#,
                Refused::NotAnObject {
                    line: 1,
                    column: 15,
                },
            ),
            (
                r#"{"model":"a""#,
                Refused::NotAnObject {
                    line: 1,
                    column: 12,
                },
            ),
            ("{}", Refused::NoModel),
            (r#"{"model":""}"#, Refused::NoModel),
            (
                r#"{"model":7}"#,
                Refused::Type {
                    name: "model",
                    expected: "a string",
                },
            ),
            (
                r#"{"model":"\ud800"}"#,
                Refused::Type {
                    name: "model",
                    expected: "a string",
                },
            ),
            (r#"{"model":"a","model":"b"}"#, Refused::Twice("model")),
            (
                r#"{"model":"a","mod\u0065l":"b"}"#,
                Refused::Spelling("model"),
            ),
            (r#"{"mod\u0065l":"b"}"#, Refused::Spelling("model")),
            (r#"{"model":"a","Model":"b"}"#, Refused::Spelling("model")),
            (
                "{\"model\":\"a\",\"\u{17f}tream\":true}",
                Refused::Spelling("stream"),
            ),
            (
                "{\"model\":\"a\",\"max_to\u{212a}ens\":9}",
                Refused::Spelling("max_tokens"),
            ),
            (
                r#"{"model":"a","stream":1}"#,
                Refused::Type {
                    name: "stream",
                    expected: "true or false",
                },
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
                Refused::Twice("include_usage"),
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":3}"#,
                Refused::Type {
                    name: "stream_options",
                    expected: "an object",
                },
            ),
        ] {
            assert_eq!(read_str(body), Err(refused), "{body}");
        }
        assert_eq!(read(b"{\"model\":\"\xff\"}", true), Err(Refused::NotUtf8));
    }

    #[test]
    fn nested_names_are_not_the_requests() {
        let asked = read_str(
            r#"{"messages":[{"model":"x","Model":"y"}],"model":"a","max_tokens":9,"n":2}"#,
        )
        .unwrap();
        assert_eq!(
            (&*asked.model, asked.max_output, asked.answers),
            ("a", Some(9), 2)
        );
        assert_eq!(asked.model_form, ModelForm::Json);
    }

    #[test]
    fn an_escaped_value_is_told_apart() {
        let asked = read_str(r#"{"model":"sm\u006fl"}"#).unwrap();
        assert_eq!(
            (&*asked.model, asked.model_form),
            ("smol", ModelForm::EscapedJson)
        );
    }

    #[test]
    fn usage_is_asked_for_in_streams_and_nothing_else_changes() {
        for (body, asked) in [
            (r#"{"model":"a","stream":true}"#, false),
            (r#" { "stream" : true , "model":"a"}"#, false),
            (
                r#"{"model":"a","stream":true,"stream_options":null}"#,
                false,
            ),
            (r#"{"model":"a","stream":true,"stream_options":{}}"#, false),
            (
                r#"{"model":"a","stream":true,"stream_options":{"x":1}}"#,
                false,
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
                false,
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
                true,
            ),
        ] {
            let read = read_str(body).unwrap();
            let Stream::Events(event) = read.stream else {
                panic!("{body}")
            };
            assert_eq!(event == UsageEvent::Asked, asked, "{body}");
            if let UsageEvent::NotAsked(edit) = event {
                let edited = apply(body.as_bytes(), vec![edit]);
                let mut expected: Value = serde_json::from_str(body).unwrap();
                if !expected["stream_options"].is_object() {
                    expected["stream_options"] = json!({});
                }
                expected["stream_options"]["include_usage"] = json!(true);
                assert_eq!(
                    serde_json::from_slice::<Value>(&edited).unwrap(),
                    expected,
                    "{body}"
                );
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
                prop::collection::vec((".*", inner), 0..4)
                    .prop_map(|members| members.into_iter().collect()),
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
