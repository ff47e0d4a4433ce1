//! What a caller may touch: the limits, routes and consumers that its scope serves, or served a while ago.
//!
//! A proxy is believed only about its own scope. Otherwise one certificate could use up the budgets of all others, or
//! write usage in their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Named, Now};
use crate::envoy;
use crate::ir::{Catalog, Ir, Limit, ScopePart};

/// For so long, what a scope no longer serves still counts. Requests that began before are still running, and their
/// usage is reported after their end. The books of an ended window stay open for the same time.
pub const SERVED_BEFORE: Duration = super::BUCKET_KEPT;

/// The consumer of every caller of a pool that asks for no key.
const ANONYMOUS: &str = "anonymous";

/// Something that an entry of a call can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// By id.
    Limit(Arc<str>),
    /// By the display name of the HTTPRoute.
    Route(Arc<str>),
    /// By its display name.
    Consumer(Arc<str>),
}

/// What is configured, as far as the ledger needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configured {
    pub limits: Vec<Limit>,
    /// By the identity that certificates name.
    pub served: BTreeMap<String, Vec<Things>>,
}

/// Identities share what they have in common, and so do configurations that follow each other.
pub type Things = Arc<BTreeSet<Thing>>;

/// Who serves what, and who served it a while ago.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    now: BTreeMap<String, Vec<Things>>,
    /// What was served until a while ago. It counts until this steady time.
    before: BTreeMap<String, BTreeMap<Thing, Duration>>,
}

// === impl Thing ===

impl Thing {
    /// The limits that hold in a scope.
    pub fn limits_of(catalog: &Catalog) -> Things {
        Arc::new(catalog.limits().map(Self::limit).collect())
    }

    /// The routes of a Gateway, by their display names.
    pub fn routes<'a>(names: impl Iterator<Item = &'a str>) -> Things {
        Arc::new(names.map(Self::route).collect())
    }

    /// Everybody who has a key for a scope or needs none.
    pub fn consumers_of(catalog: &Catalog, ir: &Ir) -> Things {
        let consumers = envoy::keys(catalog, ir).map(|key| Self::consumer(&key.consumer));
        Arc::new(consumers.chain([Self::consumer(ANONYMOUS)]).collect())
    }

    pub(super) fn limit(id: &str) -> Self {
        Self::Limit(id.into())
    }

    pub(super) fn route(name: &str) -> Self {
        Self::Route(name.into())
    }

    pub(super) fn consumer(name: &str) -> Self {
        Self::Consumer(name.into())
    }
}

// === impl Served ===

impl Served {
    pub fn new(now: BTreeMap<String, Vec<Things>>) -> Self {
        Self { now, before: BTreeMap::new() }
    }

    pub fn replace(&mut self, next: BTreeMap<String, Vec<Things>>, now: Now) {
        let until = now.steady.saturating_add(SERVED_BEFORE);
        self.before.retain(|_, things| {
            things.retain(|_, until| *until > now.steady);
            !things.is_empty()
        });
        for (identity, things) in &self.now {
            let next = next.get(identity).map(Vec::as_slice).unwrap_or_default();
            // What is one and the same needs no look into it.
            let others = things.iter().filter(|things| !next.iter().any(|next| Arc::ptr_eq(next, things)));
            let stays = |thing: &&Thing| next.iter().any(|things| things.contains(*thing));
            let mut gone = others.flat_map(|things| things.iter()).filter(|thing| !stays(thing)).peekable();
            if gone.peek().is_some() {
                let gone = gone.map(|thing| (thing.clone(), until));
                self.before.entry(identity.clone()).or_default().extend(gone);
            }
        }
        self.now = next;
    }

    pub fn has(&self, identity: &str, thing: &Thing, now: Now) -> bool {
        let before = |things: &BTreeMap<Thing, Duration>| things.get(thing).is_some_and(|until| *until > now.steady);
        self.now.get(identity).is_some_and(|all| all.iter().any(|things| things.contains(thing)))
            || self.before.get(identity).is_some_and(before)
    }

    /// Whether a budget is the caller's. It must serve the limit. If the limit has a budget for each consumer or route,
    /// it must serve that consumer or route too.
    pub fn has_budget(&self, identity: &str, bucket: &Named, limit: Option<&Limit>, now: Now) -> bool {
        let Named::Bucket { limit: id, scope } = bucket else {
            return false;
        };
        let parts = limit.map(|limit| limit.scope.as_slice()).unwrap_or_default();
        let own = |(part, value): (&ScopePart, &String)| match part {
            ScopePart::Consumer => self.has(identity, &Thing::consumer(value), now),
            ScopePart::Route => self.has(identity, &Thing::route(value), now),
            ScopePart::Model | ScopePart::Label(_) => true,
        };
        self.has(identity, &Thing::limit(id), now) && parts.iter().zip(scope).all(own)
    }
}
