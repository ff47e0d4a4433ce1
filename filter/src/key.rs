//! Who asks: finds the key in the headers, looks its SHA-256 up in the table that all workers share,
//! and says which consumer it is. A key itself is never kept, and its hash is never shown in full.

use std::{collections::BTreeMap, fmt, rc::Rc};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tollgate_proto::v1::ApiKey;

use crate::host::{Shared, read_u64};

/// Headers that may carry a key. None of them ever reaches a backend.
pub const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Lowercase hex SHA-256 of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash(String);

/// The consumer behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub consumer: Rc<str>,
    pub namespace: Rc<str>,
    pub labels: BTreeMap<String, String>,
    pub models: AllowedModels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedModels {
    All,
    /// A trailing `*` matches a prefix.
    Only(Vec<String>),
}

/// Why a key gives no caller. Clients are told one and the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Unknown,
    Expired,
}

/// How far the table of keys is, shared by all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Table {
    /// The first set has not arrived yet.
    #[default]
    Empty,
    /// Records of this generation or a later one count.
    Ready(u32),
}

// === finding and hashing ===

/// The key that a request presents, in the order of [`HEADERS`].
pub fn find<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])> + Clone) -> Option<&'h [u8]> {
    HEADERS.iter().find_map(|header| {
        let (_, value) = headers.clone().find(|(name, _)| name == header)?;
        let key = if *header == "authorization" { bearer(value)? } else { value.trim_ascii() };
        (!key.is_empty()).then_some(key)
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

impl KeyHash {
    pub fn of(key: &[u8]) -> Self {
        Self(hex(&Sha256::digest(key)))
    }

    /// Name of the record in shared data.
    pub fn record(&self) -> String {
        record_name(&self.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash([redacted])")
    }
}

/// Name of the shared record of a key, from its hash.
pub fn record_name(hash: &str) -> String {
    let mut name = String::with_capacity(2 + hash.len());
    name.push_str("k/");
    name.push_str(hash);
    name
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

// === records ===

/// A record: its generation, then the `ApiKey` as it came.
pub fn record(generation: u32, key: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + key.len());
    record.extend_from_slice(&generation.to_le_bytes());
    record.extend_from_slice(key);
    record
}

/// What stands in the place of a removed key: Envoy's shared data has no removal.
pub fn tombstone() -> Vec<u8> {
    vec![0; 4]
}

/// Looks a key up.
pub fn look_up(shared: &dyn Shared, hash: &KeyHash, generation: u32, now_s: i64) -> Result<Caller, Refused> {
    let (record, _) = shared.get(&hash.record()).ok_or(Refused::Unknown)?;
    let (written, key) = record.split_first_chunk::<4>().ok_or(Refused::Unknown)?;
    let written = u32::from_le_bytes(*written);
    if written == 0 || written < generation {
        return Err(Refused::Unknown);
    }
    let key = ApiKey::decode(key).map_err(|_| Refused::Unknown)?;
    if key.not_after != 0 && now_s > key.not_after {
        return Err(Refused::Expired);
    }
    Ok(Caller {
        consumer: key.consumer.into(),
        namespace: key.namespace.into(),
        labels: key.labels,
        models: if key.all_models { AllowedModels::All } else { AllowedModels::Only(key.models) },
    })
}

// === impl Caller ===

impl Caller {
    /// Everybody, where a pool asks for no key.
    pub fn anonymous() -> Self {
        Self { consumer: "anonymous".into(), namespace: "".into(), labels: BTreeMap::new(), models: AllowedModels::All }
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

    fn find_in(headers: &[(&str, &str)]) -> Option<String> {
        find(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
            .map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn a_key_is_found_in_each_of_its_headers() {
        for (headers, key) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Basic abc"), ("x-api-key", "k")], Some("k")),
            (&[("api-key", "azure")], Some("azure")),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(find_in(headers).as_deref(), key, "{headers:?}");
        }
    }

    #[test]
    fn a_hash_is_as_sha256sum_says() {
        assert_eq!(KeyHash::of(b"abc").0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(!format!("{:?}", KeyHash::of(b"abc")).contains("ba7816"));
    }

    #[test]
    fn only_current_and_unexpired_records_count() {
        let shared = FakeShared::default();
        let hash = KeyHash::of(b"abc");
        let key = ApiKey { consumer: "app".into(), not_after: 100, all_models: true, ..Default::default() };
        assert_eq!(look_up(&shared, &hash, 1, 0), Err(Refused::Unknown));
        shared.set(&hash.record(), &record(2, &key.encode_to_vec()), None).unwrap();
        assert_eq!(&*look_up(&shared, &hash, 2, 100).unwrap().consumer, "app");
        assert_eq!(look_up(&shared, &hash, 2, 101), Err(Refused::Expired));
        assert_eq!(look_up(&shared, &hash, 3, 0), Err(Refused::Unknown));
        shared.set(&hash.record(), &tombstone(), None).unwrap();
        assert_eq!(look_up(&shared, &hash, 0, 0), Err(Refused::Unknown));
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
