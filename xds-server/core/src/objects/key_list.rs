//! The list `spec.keys` of a Consumer, as `tollgate key` changes it: the list and the time go in, and the next list comes
//! out. An entry keeps the fields that nobody here knows.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::redact::Shown;

/// The definition of Consumers allows no more (`ConsumerWire`).
const MOST: usize = 64;

/// A key that is to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Lowercase hex, 64 characters.
    pub sha256: String,
    pub not_after: Option<Timestamp>,
}

/// The next list, and what is different in it besides the new key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyList {
    pub keys: Vec<Value>,
    /// How many others end at the end of the overlap, or before.
    pub ending: usize,
    /// How many were left out because they have ended.
    pub removed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKeys {
    #[error("spec.keys: not a list (each entry has secretRef or sha256)")]
    NotAList,
    #[error("spec.keys[{index}]: not an object (it has secretRef or sha256)")]
    NotAnObject { index: usize },
    #[error("spec.keys[{index}].notAfter: {} is not a time (RFC 3339, for example 2027-01-01T00:00:00Z)", Shown(.text))]
    NotATime { index: usize, text: String },
    #[error(
        "spec.keys: the Consumer has {MOST} keys, which is the most (tollgate key rotate removes those that have ended)"
    )]
    TooMany,
}

// === impl KeyList ===

impl KeyList {
    /// The list with one more key.
    ///
    /// # Errors
    /// When the list is none, or full.
    pub fn with(keys: Option<&Value>, new: &NewKey) -> Result<Self, UnusableKeys> {
        let keys = entries(keys)?;
        Self { keys, ending: 0, removed: 0 }.and(new)
    }

    /// The list with one more key, in which the others end after the overlap and those that have ended are missing.
    ///
    /// # Errors
    /// When the list cannot be read, or is full.
    pub fn rotated(
        keys: Option<&Value>,
        new: &NewKey,
        now: Timestamp,
        overlap: Duration,
    ) -> Result<Self, UnusableKeys> {
        let end = after(now, overlap);
        let mut next = Self { keys: Vec::new(), ending: 0, removed: 0 };
        for (index, mut entry) in entries(keys)?.into_iter().enumerate() {
            let before = not_after(&entry, index)?;
            if before.is_some_and(|before| before.as_second() < now.as_second()) {
                next.removed += 1;
                continue;
            }
            next.ending += 1;
            if before.is_none_or(|before| before > end) {
                let fields = entry.as_object_mut().ok_or(UnusableKeys::NotAnObject { index })?;
                fields.insert("notAfter".to_owned(), json!(in_seconds(end)));
            }
            next.keys.push(entry);
        }
        next.and(new)
    }

    fn and(mut self, new: &NewKey) -> Result<Self, UnusableKeys> {
        if self.keys.len() >= MOST {
            return Err(UnusableKeys::TooMany);
        }
        self.keys.push(new.entry());
        Ok(self)
    }
}

// === impl NewKey ===

impl NewKey {
    /// Its entry in `spec.keys`.
    pub fn entry(&self) -> Value {
        match self.not_after {
            Some(end) => json!({"sha256": self.sha256, "notAfter": in_seconds(end)}),
            None => json!({"sha256": self.sha256}),
        }
    }
}

fn entries(keys: Option<&Value>) -> Result<Vec<Value>, UnusableKeys> {
    match keys {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(keys)) => Ok(keys.clone()),
        Some(_) => Err(UnusableKeys::NotAList),
    }
}

fn not_after(entry: &Value, index: usize) -> Result<Option<Timestamp>, UnusableKeys> {
    let text = match entry.get("notAfter") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.parse().map(Some).map_err(|_| UnusableKeys::NotATime { index, text })
}

/// The second that is so much later. No time is later than the calendar goes.
pub fn after(now: Timestamp, more: Duration) -> Timestamp {
    let more = i64::try_from(more.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(now.as_second().saturating_add(more)).unwrap_or(Timestamp::MAX)
}

/// `2027-01-01T00:00:00Z`
pub fn in_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn new() -> NewKey {
        NewKey { sha256: "ff".repeat(32), not_after: None }
    }

    #[test]
    fn a_new_key_stands_last_and_leaves_the_others_alone() {
        let before = json!([{"secretRef": {"name": "app"}}, {"sha256": "aa", "note": "ours"}]);
        let next = KeyList::with(Some(&before), &new()).unwrap();
        assert_eq!(next.keys, [before[0].clone(), before[1].clone(), json!({"sha256": new().sha256})]);
        assert_eq!(KeyList::with(None, &new()).unwrap().keys.len(), 1);
        let ends = NewKey { not_after: Some(time("2027-01-01T00:00:00.5Z")), ..new() };
        assert_eq!(ends.entry()["notAfter"], "2027-01-01T00:00:00Z");
    }

    #[test]
    fn keys_end_after_the_overlap_and_never_later_than_they_did() {
        let before = json!([
            {"sha256": "forever", "note": "kept"},
            {"sha256": "sooner", "notAfter": "2026-12-01T06:00:00Z"},
            {"sha256": "later", "notAfter": "2027-12-01T00:00:00+02:00"},
            {"sha256": "ended", "notAfter": "2026-11-30T23:59:59Z"},
            {"sha256": "ends now", "notAfter": "2026-12-01T00:00:00Z"},
        ]);
        let next = KeyList::rotated(Some(&before), &new(), time("2026-12-01T00:00:00.7Z"), DAY).unwrap();
        let end = "2026-12-02T00:00:00Z";
        let expected = [
            json!({"sha256": "forever", "note": "kept", "notAfter": end}),
            before[1].clone(),
            json!({"sha256": "later", "notAfter": end}),
            before[4].clone(),
            new().entry(),
        ];
        assert_eq!(next, KeyList { keys: expected.to_vec(), ending: 4, removed: 1 });
    }

    #[test]
    fn a_list_that_cannot_be_read_is_left_alone() {
        let rotated = |keys: Value| KeyList::rotated(Some(&keys), &new(), Timestamp::UNIX_EPOCH, DAY);
        assert_eq!(rotated(json!({})), Err(UnusableKeys::NotAList));
        assert_eq!(rotated(json!(["a"])), Err(UnusableKeys::NotAnObject { index: 0 }));
        let error = rotated(json!([{"sha256": "a"}, {"sha256": "b", "notAfter": "soon"}])).unwrap_err();
        assert!(error.to_string().starts_with("spec.keys[1].notAfter: `soon` is not a time"), "{error}");
        let full = vec![json!({"sha256": "a"}); MOST];
        assert_eq!(KeyList::with(Some(&json!(full)), &new()), Err(UnusableKeys::TooMany));
        assert!(KeyList::rotated(Some(&json!(full)), &new(), Timestamp::UNIX_EPOCH, DAY).is_err());
    }
}
