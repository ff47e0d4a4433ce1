//! Whose proxies something is for. What a proxy is given, and what it may say to the ledger, is of one scope.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::placement::Direction;
use crate::status::Origin;
use crate::terms::Key;

/// It prints and serializes as the text that stands in the names of its resources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The proxies of a Gateway.
    Gateway(Key),
    /// The sidecars of the workload behind a Service, in one direction.
    Workload { service: Key, direction: Direction },
}

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

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
