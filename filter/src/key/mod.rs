//! Who asks. The key is found in the headers, and its SHA-256 is looked up in the table that all workers share, or the
//! identity that the connection proves. The record there says which consumer it is. The key itself is never kept, and its
//! hash is never shown.

mod recent;

use std::{fmt, rc::Rc};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tollgate_proto::{Map, v1::ApiKey};

pub use self::recent::Recent;
use crate::{
    body::same,
    host::{Shared, read_u64},
};

/// The headers that may carry a key. A client's never reaches a backend.
const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Whether a key may stand in the header of this name.
pub fn is_header(name: &[u8]) -> bool {
    HEADERS.iter().any(|header| header.as_bytes() == name)
}

/// The most values of one header that are looked up.
const MAX_VALUES: usize = 8;

/// What a request's headers say about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'h> {
    Nothing,
    One(&'h [u8]),
    /// There are keys that differ.
    Several,
}

/// The SHA-256 of a key, or of claims.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// What shows who a client is. No key can be taken for an identity: of a key there is its hash alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    Key(KeyHash),
    /// A SPIFFE ID that the client's connection proves.
    Identity(Rc<str>),
    /// The issuer and some claims of a JWT that Envoy has verified.
    Jwt(KeyHash),
}

/// The consumer behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub consumer: Rc<str>,
    pub namespace: Rc<str>,
    pub labels: Map,
    pub models: AllowedModels,
    /// The last unix second in which the key is valid. None: it does not expire.
    pub not_after: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedModels {
    All,
    /// A trailing `*` matches a prefix.
    Only(Vec<String>),
}

/// Why a key gives no caller. Clients are not told which of the two it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKey {
    Unknown,
    Expired,
}

/// How far the table of keys is, shared by all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Table {
    /// The first set of keys has not arrived yet.
    #[default]
    Empty,
    /// The records of this generation and of later ones count.
    Ready(u32),
}

// === finding and hashing ===

/// The key that a request presents in any of [`HEADERS`]. Clients that know several APIs send one key in two of them.
/// Two different keys could be two consumers, and the client may not choose which one pays.
pub fn find<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Presented<'h> {
    let mut found = Presented::Nothing;
    for (name, value) in headers.filter(|(name, _)| is_header(name)) {
        let key = if name == b"authorization" { bearer(value) } else { Some(value.trim_ascii()) };
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            continue;
        };
        match found {
            Presented::One(other) if other != key => return Presented::Several,
            _ => found = Presented::One(key),
        }
    }
    found
}

/// Whether a header's value has a key of this gateway, valid or expired. This is for routes where the header belongs to
/// the application. A header that came several times may have become one value with commas.
pub fn has_known(value: &[u8], shared: &dyn Shared, generation: u32, now: u64) -> bool {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).enumerate().any(|(index, part)| {
        let key = bearer(part).unwrap_or(part);
        // No credential has so many parts, and each one costs a look-up. So the value counts as a key.
        index >= MAX_VALUES || look_up(shared, &Proof::of_key(key), generation, now) != Err(InvalidKey::Unknown)
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    same(scheme, b"bearer ").then(|| key.trim_ascii())
}

impl KeyHash {
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The name of its record in shared data.
    pub fn record(&self) -> String {
        record_name(&hex(&self.0))
    }
}

impl Proof {
    pub fn of_key(key: &[u8]) -> Self {
        Self::Key(KeyHash::of(key))
    }

    /// The name of its record in shared data.
    pub fn record(&self) -> String {
        match self {
            Self::Key(hash) => hash.record(),
            Self::Identity(identity) => record_name(identity),
            Self::Jwt(hash) => record_name(&format!("{}{}", tollgate_proto::jwt::PREFIX, hex(&hash.0))),
        }
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash([redacted])")
    }
}

/// The name of a record in shared data, from that of the resource: a hash in lowercase hex, a SPIFFE ID, or
/// `jwt/` and a hash.
pub fn record_name(resource: &str) -> String {
    let mut name = String::with_capacity(2 + resource.len());
    name.push_str("k/");
    name.push_str(resource);
    name
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

// === records ===

/// A record has its generation first, then the `ApiKey` as it came.
pub fn record(generation: u32, key: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + key.len());
    record.extend_from_slice(&generation.to_le_bytes());
    record.extend_from_slice(key);
    record
}

/// What takes the place of a removed key, because a record of Envoy's shared data cannot be removed.
pub fn tombstone() -> Vec<u8> {
    vec![0; 4]
}

/// Looks a caller up. `now`: unix milliseconds.
pub fn look_up(shared: &dyn Shared, proof: &Proof, generation: u32, now: u64) -> Result<Caller, InvalidKey> {
    let (record, _) = shared.get(&proof.record()).ok_or(InvalidKey::Unknown)?;
    let (written, key) = record.split_first_chunk::<4>().ok_or(InvalidKey::Unknown)?;
    let written = u32::from_le_bytes(*written);
    if written == 0 || written < generation {
        return Err(InvalidKey::Unknown);
    }
    let key = ApiKey::decode(key).map_err(|_| InvalidKey::Unknown)?;
    let caller = Caller {
        consumer: key.consumer.into(),
        namespace: key.namespace.into(),
        labels: key.labels,
        models: if key.all_models { AllowedModels::All } else { AllowedModels::Only(key.models) },
        not_after: Some(key.not_after).filter(|not_after| *not_after != 0),
    };
    if caller.is_expired(now) { Err(InvalidKey::Expired) } else { Ok(caller) }
}

// === impl Caller ===

impl Caller {
    /// Whoever asks, where a pool asks for no key.
    pub fn anonymous() -> Self {
        Self {
            consumer: "anonymous".into(),
            namespace: "".into(),
            labels: Map::default(),
            models: AllowedModels::All,
            not_after: None,
        }
    }

    /// Whether the key is no longer valid. `now`: unix milliseconds.
    fn is_expired(&self, now: u64) -> bool {
        self.not_after.is_some_and(|not_after| i64::try_from(now / 1000).is_ok_and(|now| now > not_after))
    }

    pub fn may_use(&self, model: &str) -> bool {
        match &self.models {
            AllowedModels::All => true,
            AllowedModels::Only(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => model.starts_with(prefix),
                None => pattern == model,
            }),
        }
    }
}

// === impl Table ===

impl Table {
    pub const RECORD: &'static str = "keys";

    pub fn read(shared: &dyn Shared) -> Self {
        let number = shared.get(Self::RECORD).map_or(0, |(value, _)| read_u64(&value));
        match u32::try_from(number) {
            Ok(0) | Err(_) => Self::Empty,
            Ok(generation) => Self::Ready(generation),
        }
    }

    pub fn generation(self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Ready(generation) => generation,
        }
    }

    pub fn write(self, shared: &dyn Shared) {
        let _ = shared.set(Self::RECORD, &u64::from(self.generation()).to_le_bytes(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::FakeShared;

    #[test]
    fn a_key_is_found_in_each_of_its_headers() {
        let one = |key: &'static str| Presented::One(key.as_bytes());
        for (headers, presented) in [
            (&[("authorization", "Bearer abc")][..], one("abc")),
            (&[("authorization", "bearer  abc ")], one("abc")),
            (&[("authorization", "Basic abc")], Presented::Nothing),
            (&[("authorization", "Bearer ")], Presented::Nothing),
            (&[("authorization", "Basic abc"), ("x-api-key", "k")], one("k")),
            (&[("api-key", "azure")], one("azure")),
            (&[("x-api-key", "")], Presented::Nothing),
            (&[("accept", "k")], Presented::Nothing),
            (&[], Presented::Nothing),
            (&[("x-api-key", "abc"), ("authorization", "Bearer abc"), ("api-key", "abc")], one("abc")),
            (&[("x-api-key", "abc"), ("authorization", "Bearer def")], Presented::Several),
            (&[("x-api-key", "abc"), ("x-api-key", "def")], Presented::Several),
            (&[("x-api-key", "abc"), ("x-api-key", ""), ("api-key", "ab")], Presented::Several),
        ] {
            let found = find(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            assert_eq!(found, presented, "{headers:?}");
        }
    }

    #[test]
    fn a_known_key_is_seen_in_any_header_of_another() {
        let shared = FakeShared::default();
        let key = ApiKey { consumer: "app".into(), not_after: 100, ..Default::default() };
        shared.set(&KeyHash::of(b"abc").record(), &record(2, &key.encode_to_vec()), None).unwrap();
        let many = "x,".repeat(MAX_VALUES);
        for (value, known) in [
            ("abc", true),
            ("Bearer abc", true),
            ("bearer  abc", true),
            ("Bearer other,Bearer abc", true),
            ("other, abc", true),
            ("Bearer other", false),
            ("Basic YWJj", false),
            ("abcd", false),
            ("", false),
            (&many, true),
        ] {
            assert_eq!(has_known(value.as_bytes(), &shared, 2, 0), known, "{value}");
        }
        assert!(has_known(b"abc", &shared, 2, 101_000), "an expired key is a key");
        assert!(!has_known(b"abc", &shared, 3, 0), "a removed one is none");
    }

    #[test]
    fn a_hash_is_as_sha256sum_says() {
        assert_eq!(KeyHash::of(b"abc").record(), "k/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(!format!("{:?}", KeyHash::of(b"abc")).contains("ba7816"));
    }

    #[test]
    fn only_current_and_unexpired_records_count() {
        let shared = FakeShared::default();
        let hash = Proof::of_key(b"abc");
        let key = ApiKey { consumer: "app".into(), not_after: 100, all_models: true, ..Default::default() };
        assert_eq!(look_up(&shared, &hash, 1, 0), Err(InvalidKey::Unknown));
        shared.set(&hash.record(), &record(2, &key.encode_to_vec()), None).unwrap();
        assert_eq!(&*look_up(&shared, &hash, 2, 100_999).unwrap().consumer, "app");
        assert_eq!(look_up(&shared, &hash, 2, 101_000), Err(InvalidKey::Expired));
        assert_eq!(look_up(&shared, &hash, 3, 0), Err(InvalidKey::Unknown));
        shared.set(&hash.record(), &tombstone(), None).unwrap();
        assert_eq!(look_up(&shared, &hash, 0, 0), Err(InvalidKey::Unknown));
    }

    #[test]
    fn allowed_models_match_exactly_or_by_prefix() {
        let mut caller = Caller::anonymous();
        assert!(caller.may_use("anything"));
        caller.models = AllowedModels::Only(vec!["smol".into(), "gpt-*".into()]);
        assert!(caller.may_use("smol") && caller.may_use("gpt-4"));
        assert!(!caller.may_use("smol2") && !caller.may_use("gp"));
        caller.models = AllowedModels::Only(vec![]);
        assert!(!caller.may_use("smol"));
    }

    #[test]
    fn the_table_starts_empty() {
        let shared = FakeShared::default();
        assert_eq!(Table::read(&shared), Table::Empty);
        Table::Ready(3).write(&shared);
        assert_eq!(Table::read(&shared), Table::Ready(3));
    }
}
