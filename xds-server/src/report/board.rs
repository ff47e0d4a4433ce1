//! What the connected proxies have said. Each stream has one report on the board, and the status is made from all of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tollgate_core::snapshot::{ResourceType, Version};
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
    /// Envoy's node id.
    pub node: String,
    pub identity: Identity,
    /// Gateways (`namespace/name`) whose present configuration it has taken.
    pub taken: BTreeSet<String>,
    pub keys: Keys,
    pub refused: Vec<RefusedResource>,
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
        Place { board: self.clone(), number: self.streams.fetch_add(1, Ordering::Relaxed) }
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
