//! Which Secrets and ConfigMaps are to be got, and whether what was got is what there is now. It is pure: `got.rs` gets
//! them.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tollgate_core::objects::Needed;

use super::Name;
use super::trouble::Trouble;

/// What objects refer to.
#[derive(Debug, Default)]
pub struct Needs(BTreeMap<Needed, Need>);

#[derive(Debug)]
struct Need {
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

// === impl Needs ===

impl Needs {
    /// An object refers to it.
    pub fn want(&mut self, needed: Needed) -> Next {
        if self.0.contains_key(&needed) {
            return Next::Nothing;
        }
        self.0.insert(needed, Need { version: None, asking: Asking::Once, is_known: false, trouble: None });
        Next::Ask
    }

    /// No object refers to it any more.
    pub fn forget(&mut self, needed: &Needed) {
        self.0.remove(needed);
    }

    /// There is such a version.
    pub fn seen(&mut self, needed: &Needed, version: &Name) -> Next {
        match self.0.get_mut(needed) {
            Some(need) if need.version.as_ref() != Some(version) => need.ask(),
            _ => Next::Nothing,
        }
    }

    /// It is gone. Returns whether it was one of ours.
    pub fn gone(&mut self, needed: &Needed) -> bool {
        let Some(need) = self.0.get_mut(needed) else { return false };
        need.version = None;
        if need.asking != Asking::No {
            need.asking = Asking::Again;
        }
        true
    }

    /// It was asked for, and this version is the answer. None of it: it is not there. Returns None if nobody wants it.
    pub fn got(&mut self, needed: &Needed, version: Option<Name>) -> Option<Next> {
        let need = self.0.get_mut(needed)?;
        let again = need.asking == Asking::Again;
        *need = Need { version, asking: Asking::No, is_known: true, trouble: None };
        Some(if again { need.ask() } else { Next::Nothing })
    }

    /// It cannot be got. It is asked for again, without a word from here.
    pub fn fails(&mut self, needed: &Needed, trouble: Trouble, now: Instant) {
        if let Some(need) = self.0.get_mut(needed) {
            let since = need.trouble.take().map_or(now, |(_, since)| since);
            need.trouble = Some((trouble, since));
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Needed> {
        self.0.keys()
    }

    pub fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.0.values().filter_map(|need| need.trouble.as_ref().map(|(trouble, _)| trouble))
    }

    /// Of each that is not known yet: what is in the way, and since when.
    pub fn unknown(&self) -> impl Iterator<Item = Option<&(Trouble, Instant)>> {
        self.0.values().filter(|need| !need.is_known).map(|need| need.trouble.as_ref())
    }
}

// === impl Need ===

impl Need {
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
    use tollgate_core::objects::Key;

    use super::*;

    fn key() -> Needed {
        Needed::secret(Key::new("a", "s"))
    }

    #[test]
    fn only_what_is_wanted_and_new_is_asked_for() {
        let mut needs = Needs::default();
        let version = |version: &str| Name::from(version);
        assert_eq!(needs.seen(&key(), &version("1")), Next::Nothing);
        assert!(!needs.gone(&key()));
        assert_eq!(needs.want(key()), Next::Ask);
        assert_eq!(needs.want(key()), Next::Nothing);
        assert_eq!(needs.got(&key(), Some(version("1"))), Some(Next::Nothing));
        assert_eq!(needs.seen(&key(), &version("1")), Next::Nothing);
        assert_eq!(needs.seen(&key(), &version("2")), Next::Ask);
        needs.forget(&key());
        assert_eq!(needs.got(&key(), Some(version("2"))), None);
    }

    #[test]
    fn what_may_have_changed_since_it_was_asked_for_is_asked_for_again() {
        let mut needs = Needs::default();
        let (one, two) = (Name::from("1"), Name::from("2"));
        needs.want(key());
        assert_eq!(needs.seen(&key(), &one), Next::Nothing);
        assert_eq!(needs.seen(&key(), &two), Next::Nothing);
        assert_eq!(needs.got(&key(), Some(one)), Some(Next::Ask));
        assert_eq!(needs.got(&key(), Some(two.clone())), Some(Next::Nothing));
        // It was removed while it was asked for. The answer may be from before.
        assert_eq!(needs.seen(&key(), &"3".into()), Next::Ask);
        assert!(needs.gone(&key()));
        assert_eq!(needs.got(&key(), Some(two)), Some(Next::Ask));
        assert_eq!(needs.got(&key(), None), Some(Next::Nothing));
        assert_eq!(needs.unknown().count(), 0);
    }
}
