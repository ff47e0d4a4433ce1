//! The name of a virtual host.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A hostname, `*.suffix` for every name that ends so, or `*` for every name. Domains are sorted from their ends, so that
/// all that a wildcard covers comes right after it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Domain(Arc<str>);

// === impl Domain ===

impl Domain {
    /// The domain without its `*`. No name has the stem of a wildcard, which begins with a dot or is empty.
    pub fn stem(&self) -> &str {
        self.0.trim_start_matches('*')
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }
}

impl From<&str> for Domain {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::ops::Deref for Domain {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Ord for Domain {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.stem().bytes().rev(), other.stem().bytes().rev());
        own.cmp(others).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wildcard_covers_comes_after_it() {
        let mut domains =
            ["b.com", "*.a.com", "*", "xa.com", "x.a.com", "a.com", "*.com", "y.x.a.com"].map(Domain::from);
        domains.sort();
        assert_eq!(
            domains.map(|domain| domain.to_string()),
            ["*", "*.com", "a.com", "*.a.com", "x.a.com", "y.x.a.com", "xa.com", "b.com"]
        );
    }
}
