//! JWTs that Envoy has verified before a request came to this filter. Their payloads stand in the dynamic metadata of
//! `envoy.filters.http.jwt_authn`, where nobody but that filter writes. No header is believed: a client may send any.
//!
//! The name of an entry there is the choice of who configures Envoy (Istio takes `payload`). So an entry is a payload if it
//! has an issuer. A header of a JWT may stand there too; it has an algorithm (`alg`), and nothing of it is looked at.

mod whose;
mod wire;

use std::{borrow::Cow, rc::Rc};

use tollgate_proto::{Map, jwt::MAX_VALUE};

use self::wire::{Entries, Value};
pub use self::{
    whose::{Unclear, Whose, whose},
    wire::Unreadable,
};
use crate::config::{Limit, ScopePart};

/// What was verified of one JWT.
#[derive(Debug)]
pub struct Payload<'m> {
    issuer: Cow<'m, str>,
    claims: Entries<'m>,
}

/// What was verified of a request's JWTs.
#[derive(Debug, Default)]
pub struct Payloads<'m>(Vec<Payload<'m>>);

const FILTER: &str = "envoy.filters.http.jwt_authn";

/// Bytes of the most metadata of all filters together.
const MAX_METADATA: usize = 64 << 10;
/// Bytes of the most metadata of JWTs.
const MAX_PAYLOADS: usize = 16 << 10;

/// Below it, each whole number has a float of its own: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

// === impl Payloads ===

impl<'m> Payloads<'m> {
    /// Reads an encoded `envoy.config.core.v3.Metadata`. More than is looked at is not read.
    pub fn read(metadata: &'m [u8]) -> Result<Self, Unreadable> {
        if metadata.len() > MAX_METADATA {
            return Err(Unreadable);
        }
        // Metadata and Struct are both a map in field 1.
        let Some(own) = Entries::read(metadata)?.get(FILTER) else { return Ok(Self::default()) };
        if own.len() > MAX_PAYLOADS {
            return Err(Unreadable);
        }
        let entries = Entries::read(own)?.into_values().filter_map(|entry| Payload::of_entry(entry).transpose());
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that there is, if it is one alone.
    pub fn only(&self) -> Option<&Payload<'m>> {
        match self.0.as_slice() {
            [payload] => Some(payload),
            _ => None,
        }
    }
}

// === impl Payload ===

impl<'m> Payload<'m> {
    /// None: it is something else.
    fn of_entry(entry: &'m [u8]) -> Result<Option<Self>, Unreadable> {
        let Value::Object(claims) = Value::read(entry)? else { return Ok(None) };
        let claims = Entries::read(claims)?;
        if claims.get("alg").is_some() {
            return Ok(None);
        }
        Ok(claims.get("iss").and_then(text).map(|issuer| Self { issuer, claims }))
    }

    /// The value of a claim, if it has one text.
    pub fn value(&self, claim: &str) -> Option<Cow<'m, str>> {
        self.claims.get(claim).and_then(text)
    }

    /// The values of a claim. A list has those of its elements.
    fn values(&self, claim: &str) -> Vec<Cow<'m, str>> {
        let Some(value) = self.claims.get(claim) else { return Vec::new() };
        match Value::read(value) {
            Ok(Value::List(list)) => wire::elements(list).filter_map(text).collect(),
            _ => text(value).into_iter().collect(),
        }
    }
}

/// The claims that these limits are for, by name. A claim that has no text is absent, as a label may be.
pub fn of_budgets(payload: Option<&Payload<'_>>, limits: &[Rc<Limit>]) -> Map {
    let parts = limits.iter().flat_map(|limit| &limit.scope);
    let names = parts.filter_map(|part| match part {
        ScopePart::Claim(name) => Some(name),
        ScopePart::Consumer | ScopePart::Model | ScopePart::Route | ScopePart::Label(_) => None,
    });
    let value = |name: &String| Some((name.clone(), payload?.value(name)?.into_owned()));
    names.filter_map(value).collect()
}

/// A text, a whole number or a boolean. Anything else is no value.
fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    match Value::read(value).ok()? {
        Value::Text(text) => (text.len() <= MAX_VALUE).then_some(Cow::Borrowed(text)),
        Value::Number(number) => self::number(number).map(Cow::Owned),
        Value::Boolean(yes) => Some(Cow::Borrowed(if yes { "true" } else { "false" })),
        Value::Null | Value::Object(_) | Value::List(_) => None,
    }
}

/// A whole number. Envoy has numbers as 64-bit floats. What is larger than 2^53 may have been another number, perhaps
/// somebody else's, so it has no text. Fractions have none either: nobody is known by one.
fn number(number: f64) -> Option<String> {
    #[allow(clippy::cast_possible_truncation, reason = "it is looked at first")]
    (number.abs() < EXACT && number.trunc() == number).then(|| (number as i64).to_string())
}

/// Whether a header's value is a JWT, with `Bearer` before it or without. Envoy may be told to leave it there.
pub fn is_one(value: &[u8]) -> bool {
    let start = value.iter().rposition(|byte| *byte == b' ').map_or(0, |space| space + 1);
    let token = value.get(start..).unwrap_or_default();
    let is_part = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    // A header of a JWT is a JSON object, which begins so in base64url.
    token.starts_with(b"ey")
        && token.split(|byte| *byte == b'.').count() == 3
        && token.split(|byte| *byte == b'.').all(is_part)
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::{ListValue, Struct, value::Kind};

    use super::*;

    fn value(json: &serde_json::Value) -> prost_types::Value {
        let kind = match json {
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Bool(yes) => Kind::BoolValue(*yes),
            serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            serde_json::Value::String(text) => Kind::StringValue(text.clone()),
            serde_json::Value::Array(values) => {
                Kind::ListValue(ListValue { values: values.iter().map(value).collect() })
            }
            serde_json::Value::Object(_) => Kind::StructValue(object(json)),
        };
        prost_types::Value { kind: Some(kind) }
    }

    fn object(json: &serde_json::Value) -> Struct {
        let fields = json.as_object().unwrap().iter();
        Struct { fields: fields.map(|(name, json)| (name.clone(), value(json))).collect() }
    }

    /// `envoy.config.core.v3.Metadata`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Metadata {
        #[prost(btree_map = "string, bytes", tag = "1")]
        filter_metadata: BTreeMap<String, Vec<u8>>,
    }

    /// What Envoy has if this filter has written these entries.
    pub fn metadata(filter: &str, entries: &serde_json::Value) -> Vec<u8> {
        let own = object(entries).encode_to_vec();
        let other = serde_json::json!({"payload": {"iss": "https://idp.example", "sub": "other-filter"}});
        let filter_metadata = [(filter.to_owned(), own), ("another.filter".to_owned(), object(&other).encode_to_vec())];
        Metadata { filter_metadata: filter_metadata.into() }.encode_to_vec()
    }

    fn read(metadata: &[u8]) -> Payloads<'_> {
        Payloads::read(metadata).unwrap()
    }

    fn of(entries: &serde_json::Value) -> Vec<u8> {
        metadata(FILTER, entries)
    }

    #[test]
    fn a_payload_is_what_has_an_issuer_under_whatever_name() {
        for name in ["payload", "https://idp.example", "x"] {
            let metadata = of(&serde_json::json!({name: {"iss": "https://idp.example", "sub": "alice"}}));
            assert_eq!(read(&metadata).only().unwrap().value("sub").as_deref(), Some("alice"), "{name}");
        }
        let failed = serde_json::json!({
            "failed_status": {"code": 14, "message": "Jwt expired"},
            "header": {"alg": "RS256", "iss": "https://idp.example", "sub": "root"},
            "without": {"sub": "root"},
            "text": "iss",
        });
        assert!(read(&of(&failed)).is_empty());
    }

    #[test]
    fn what_another_filter_notes_is_no_jwt() {
        let entries = serde_json::json!({"payload": {"iss": "https://idp.example"}});
        assert!(Payloads::read(&metadata("envoy.filters.http.other", &entries)).unwrap().is_empty());
        assert!(Payloads::read(&[]).unwrap().is_empty());
    }

    #[test]
    fn values_have_one_text_or_none() {
        let long = "x".repeat(MAX_VALUE + 1);
        let metadata = of(&serde_json::json!({"payload": {
            "iss": "i", "three": 3, "zero": -0.0, "half": -1.5, "large": 9_007_199_254_740_992_i64, "yes": true,
            "less": -9_007_199_254_740_991_i64, "none": null, "object": {"a": 1}, "long": long,
            "list": ["a", 2, [3], null, false],
        }}));
        let payloads = read(&metadata);
        let payload = payloads.only().unwrap();
        for (claim, text) in [
            ("iss", Some("i")),
            ("three", Some("3")),
            ("zero", Some("0")),
            ("less", Some("-9007199254740991")),
            ("half", None),
            ("yes", Some("true")),
            ("large", None),
            ("none", None),
            ("object", None),
            ("long", None),
            ("list", None),
            ("absent", None),
        ] {
            assert_eq!(payload.value(claim).as_deref(), text, "{claim}");
        }
        assert_eq!(payload.values("list"), ["a", "2", "false"]);
        assert_eq!(number(f64::NAN), None);
        assert_eq!(number(f64::INFINITY), None);
    }

    #[test]
    fn more_than_is_looked_at_is_refused() {
        let with = |bytes: usize| serde_json::json!({"payload": {"iss": "i", "groups": ["x".repeat(bytes)]}});
        assert!(Payloads::read(&metadata(FILTER, &with(MAX_PAYLOADS - 100))).is_ok());
        assert_eq!(Payloads::read(&metadata(FILTER, &with(MAX_PAYLOADS))).unwrap_err(), Unreadable);
        assert!(Payloads::read(&metadata("other", &with(MAX_PAYLOADS))).is_ok(), "it is not ours");
        assert_eq!(Payloads::read(&metadata("other", &with(MAX_METADATA))).unwrap_err(), Unreadable);
        assert_eq!(Payloads::read(b"\xff\xff\xff").unwrap_err(), Unreadable);
    }

    #[test]
    fn a_jwt_is_told_from_a_key() {
        for jwt in ["eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.c2ln-_", "Bearer eyJh.eyJp.c2ln", "bearer eyJh.eyJp."] {
            assert!(is_one(jwt.as_bytes()), "{jwt}");
        }
        for key in ["", "Bearer sk-abc", "sk.abc.def", "eyJh.eyJp", "eyJh.eyJp.c2ln.x", "eyJh.ey/p.c2ln", "ey"] {
            assert!(!is_one(key.as_bytes()), "{key}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_metadata_is_nothing_breaks(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = Payloads::read(&bytes);
            let own = Metadata { filter_metadata: [(FILTER.to_owned(), bytes)].into() }.encode_to_vec();
            let good = serde_json::json!({"payload": {"iss": "i", "sub": ["a", 1, true, {"b": null}]}});
            let mut changed = of(&good);
            let at = at.index(changed.len());
            changed[at] = byte;
            for metadata in [own, changed] {
                for payload in &Payloads::read(&metadata).unwrap_or_default().0 {
                    let _ = (payload.value("sub"), payload.values("sub"));
                }
            }
        }

        #[test]
        fn two_numbers_have_two_texts(one in any::<f64>(), other in any::<f64>()) {
            let texts = (number(one), number(other));
            if texts.0.is_some() && texts.0 == texts.1 {
                prop_assert_eq!(one, other);
            }
        }
    }
}
