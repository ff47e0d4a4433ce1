//! Whose proxies something is for. What a proxy is given, and what it may say to the ledger, is of one scope.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::placement::Direction;
use crate::status::Origin;
use crate::terms::Key;

/// It prints, serializes and parses as the text that stands in the names of its resources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The proxies of a Gateway.
    Gateway(Key),
    /// The sidecars of the workload behind a Service, in one direction.
    Workload { service: Key, direction: Direction },
}

/// The text is of no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is <namespace>/<name> of a Gateway, or workload/<namespace>/<name>/<direction>")]
pub struct InvalidScope;

// === impl Scope ===

impl Scope {
    /// The object that it is named after.
    pub fn origin(&self) -> Origin {
        let (kind, key) = match self {
            Self::Gateway(key) => ("Gateway", key),
            Self::Workload { service, .. } => ("Service", service),
        };
        Origin::new(kind, key.namespace.clone(), key.name.clone())
    }
}

impl fmt::Display for Scope {
    /// `namespace/name` of a Gateway, or `workload/namespace/name/direction`. No two have the same text, because no name
    /// has a slash in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(key) => key.fmt(f),
            Self::Workload { service, direction } => write!(f, "workload/{service}/{direction}"),
        }
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(InvalidScope);
        }
        match *parts {
            [namespace, name] => Ok(Self::Gateway(Key::new(namespace, name))),
            ["workload", namespace, name, direction] => {
                let service = Key::new(namespace, name);
                Ok(Self::Workload { service, direction: self::direction(direction)? })
            }
            _ => Err(InvalidScope),
        }
    }
}

fn direction(text: &str) -> Result<Direction, InvalidScope> {
    let mut all = [Direction::Inbound, Direction::Outbound].into_iter();
    all.find(|direction| direction.to_string() == text).ok_or(InvalidScope)
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> impl Strategy<Value = Scope> {
        // `workload` is a name like all.
        let name = || prop_oneof![Just("workload".to_owned()), "[a-z0-9.-]{1,9}"];
        let key = || (name(), name()).prop_map(|(namespace, name)| Key::new(namespace, name));
        let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
        let workload = (key(), direction).prop_map(|(service, direction)| Scope::Workload { service, direction });
        prop_oneof![key().prop_map(Scope::Gateway), workload]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(scope in scope()) {
            prop_assert_eq!(scope.to_string().parse(), Ok(scope));
        }

        #[test]
        fn what_is_parsed_is_printed(text in "(workload/)?[a-z]{0,2}/[a-z/]{0,4}(/inbound|/outbound|/sideways)?") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [
            "",
            "a",
            "a/",
            "/a",
            "a/b/c",
            "workload/a/b",
            "workload/a/b/",
            "workload/a/b/sideways",
            "workload/a/b/Inbound",
            "workload/a/b/inbound/c",
            "workload//b/inbound",
            "gateway/a/b/inbound",
            "spiffe://tollgate/workload/a/b/inbound",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(InvalidScope), "{text}");
        }
    }
}
