//! Which Secrets are to be got, and whether what was got is what there is now. It is pure: `got.rs` gets them.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tollgate_core::objects::Key;

use super::Name;
use super::trouble::Trouble;

/// The Secrets that objects refer to.
#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<Key, Secret>);

#[derive(Debug)]
struct Secret {
    /// None: there is none, as far as is known.
    version: Option<Name>,
    asking: Asking,
    /// It was got, or it is not there.
    is_known: bool,
    /// Since when it cannot be got.
    trouble: Option<(Trouble, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    Once,
    /// It may have changed since it was asked for.
    Again,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Ask,
}

// === impl Secrets ===

impl Secrets {
    /// An object refers to it.
    pub fn want(&mut self, key: Key) -> Next {
        if self.0.contains_key(&key) {
            return Next::Nothing;
        }
        self.0.insert(key, Secret { version: None, asking: Asking::Once, is_known: false, trouble: None });
        Next::Ask
    }

    /// No object refers to it any more.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// There is such a version.
    pub fn seen(&mut self, key: &Key, version: &Name) -> Next {
        match self.0.get_mut(key) {
            Some(secret) if secret.version.as_ref() != Some(version) => secret.ask(),
            _ => Next::Nothing,
        }
    }

    /// It is gone. Returns whether it was one of ours.
    pub fn gone(&mut self, key: &Key) -> bool {
        let Some(secret) = self.0.get_mut(key) else { return false };
        secret.version = None;
        if secret.asking != Asking::No {
            secret.asking = Asking::Again;
        }
        true
    }

    /// It was asked for, and this version is the answer. None of it: it is not there. Returns None if nobody wants it.
    pub fn got(&mut self, key: &Key, version: Option<Name>) -> Option<Next> {
        let secret = self.0.get_mut(key)?;
        let again = secret.asking == Asking::Again;
        *secret = Secret { version, asking: Asking::No, is_known: true, trouble: None };
        Some(if again { secret.ask() } else { Next::Nothing })
    }

    /// It cannot be got. It is asked for again, without a word from here.
    pub fn fails(&mut self, key: &Key, trouble: Trouble, now: Instant) {
        if let Some(secret) = self.0.get_mut(key) {
            let since = secret.trouble.take().map_or(now, |(_, since)| since);
            secret.trouble = Some((trouble, since));
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    pub fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.0.values().filter_map(|secret| secret.trouble.as_ref().map(|(trouble, _)| trouble))
    }

    /// Of each that is not known yet: what is in the way, and since when.
    pub fn unknown(&self) -> impl Iterator<Item = Option<&(Trouble, Instant)>> {
        self.0.values().filter(|secret| !secret.is_known).map(|secret| secret.trouble.as_ref())
    }
}

// === impl Secret ===

impl Secret {
    fn ask(&mut self) -> Next {
        let (asking, next) = match self.asking {
            Asking::No => (Asking::Once, Next::Ask),
            Asking::Once | Asking::Again => (Asking::Again, Next::Nothing),
        };
        self.asking = asking;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("a", "s")
    }

    #[test]
    fn only_what_is_wanted_and_new_is_asked_for() {
        let mut secrets = Secrets::default();
        let version = |version: &str| Name::from(version);
        assert_eq!(secrets.seen(&key(), &version("1")), Next::Nothing);
        assert!(!secrets.gone(&key()));
        assert_eq!(secrets.want(key()), Next::Ask);
        assert_eq!(secrets.want(key()), Next::Nothing);
        assert_eq!(secrets.got(&key(), Some(version("1"))), Some(Next::Nothing));
        assert_eq!(secrets.seen(&key(), &version("1")), Next::Nothing);
        assert_eq!(secrets.seen(&key(), &version("2")), Next::Ask);
        secrets.forget(&key());
        assert_eq!(secrets.got(&key(), Some(version("2"))), None);
    }

    #[test]
    fn what_may_have_changed_since_it_was_asked_for_is_asked_for_again() {
        let mut secrets = Secrets::default();
        let (one, two) = (Name::from("1"), Name::from("2"));
        secrets.want(key());
        assert_eq!(secrets.seen(&key(), &one), Next::Nothing);
        assert_eq!(secrets.seen(&key(), &two), Next::Nothing);
        assert_eq!(secrets.got(&key(), Some(one)), Some(Next::Ask));
        assert_eq!(secrets.got(&key(), Some(two.clone())), Some(Next::Nothing));
        // It was removed while it was asked for. The answer may be from before.
        assert_eq!(secrets.seen(&key(), &"3".into()), Next::Ask);
        assert!(secrets.gone(&key()));
        assert_eq!(secrets.got(&key(), Some(two)), Some(Next::Ask));
        assert_eq!(secrets.got(&key(), None), Some(Next::Nothing));
        assert_eq!(secrets.unknown().count(), 0);
    }
}
