//! What the connected proxies have said. Each stream has one report on the board, and the status is made from all of
//! them. Replicas tell each other of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tollgate_core::snapshot::{Digest, ResourceType, Snapshot, Version};
use tollgate_core::status::{Origin, Refusal};

use crate::identity::Identity;

/// Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct Board {
    reports: Arc<watch::Sender<BTreeMap<u64, Report>>>,
    streams: Arc<AtomicU64>,
}

/// What is known of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub told_by: Teller,
    /// Envoy's node id.
    pub node: String,
    pub identity: Identity,
    /// What it has taken whole, by `namespace/name` of the Gateway.
    pub taken: BTreeMap<String, Taken>,
    pub keys: Keys,
    pub refused: Vec<RefusedResource>,
}

/// From whom we have a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The proxy is connected here.
    Proxy,
    /// It is connected to another replica, which tells by a link with this number.
    Replica(u64),
}

/// A configuration of a Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    This(Digest),
    /// A replica of another build says that it is its present one. What they make cannot be compared.
    TheirOwn,
}

/// How far a stream is in the discovery of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// This is the stream of an Envoy itself, which does not ask for keys. The filter's own stream does.
    NotAsked,
    Waiting,
    Taken,
}

/// A resource that a proxy refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedResource {
    pub kind: ResourceType,
    pub name: String,
    pub version: Version,
    pub origin: Option<Origin>,
    /// Envoy's own message.
    pub message: String,
}

/// One stream's place on the board. When it is dropped, the report is taken off.
#[derive(Debug)]
pub struct Place {
    board: Board,
    number: u64,
}

// === impl Report ===

impl Report {
    /// Whether it has taken what this Gateway's proxies are to have now.
    pub fn has_taken(&self, gateway: &str, present: &Snapshot) -> bool {
        match self.taken.get(gateway) {
            Some(Taken::This(digest)) => *digest == present.digest(),
            Some(Taken::TheirOwn) => true,
            None => false,
        }
    }
}

// === impl RefusedResource ===

impl RefusedResource {
    /// The refusal of the proxy with this node id.
    pub fn by(&self, node: &str) -> Refusal {
        Refusal {
            node: node.to_owned(),
            kind: self.kind,
            name: self.name.clone(),
            origin: self.origin.clone(),
            message: self.message.clone(),
        }
    }
}

// === impl Board ===

impl Board {
    pub fn place(&self) -> Place {
        Place { board: self.clone(), number: self.number() }
    }

    /// A replica that tells by a new link.
    pub fn replica(&self) -> Teller {
        Teller::Replica(self.number())
    }

    fn number(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub fn reports(&self) -> watch::Receiver<BTreeMap<u64, Report>> {
        self.reports.subscribe()
    }
}

// === impl Place ===

impl Place {
    pub fn write(&self, report: Report) {
        self.board.reports.send_if_modified(|reports| {
            let same = reports.get(&self.number) == Some(&report);
            if !same {
                reports.insert(self.number, report);
            }
            !same
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.reports.send_if_modified(|reports| reports.remove(&self.number).is_some());
    }
}
