//! What is another in the IR than before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::status::StatusKind;
use crate::terms::Key;

use super::Domain;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Names of keys.
    pub keys: BTreeSet<String>,
    /// The Consumers whose keys these are or were.
    pub consumers: BTreeSet<Key>,
    /// Ids of limits.
    pub limits: BTreeSet<String>,
    pub gateways: BTreeMap<Key, GatewayDelta>,
    /// Those of which the filter is told something else: by Service, new, changed or gone, or under a limit that changed.
    pub workloads: BTreeSet<Key>,
    /// By Service, new, changed or gone.
    pub frontends: BTreeSet<Key>,
    /// The objects whose statuses may be others now.
    pub statuses: BTreeSet<(StatusKind, Key)>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum GatewayDelta {
    /// It is new, or it has other listeners or tunnels.
    Whole,
    Gone,
    Parts(PartsDelta),
}

/// What is new, changed or gone in a Gateway whose listeners and tunnels are the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PartsDelta {
    /// Virtual hosts, by listener. Those whose routes lead to a pool that changed are among them.
    pub hosts: BTreeSet<Host>,
    /// What the filter is told of classes and limits.
    pub classes: bool,
    /// HTTPRoutes that are attached now and were not, or the other way round.
    pub attached: BTreeSet<Key>,
    pub pools: BTreeSet<String>,
    pub backends: BTreeSet<String>,
    pub services: BTreeSet<String>,
}

/// One virtual host of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    pub listener: Arc<str>,
    pub domain: Domain,
}

// === impl PartsDelta ===

impl PartsDelta {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
