//! What a caller may touch: the limits, routes and consumers that its scope serves, or served a while ago.
//!
//! A proxy is believed only about its own scope. Otherwise one certificate could use up the budgets of all others, or
//! write usage in their names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Named, Now, Thing, Things};
use crate::ir::{Limit, Schema, ScopePart};

/// For so long, what a scope no longer serves still counts. Requests that began before are still running, and their
/// usage is reported after their end. The books of an ended window stay open for the same time.
pub const SERVED_BEFORE: Duration = super::BUCKET_KEPT;

/// What is configured, as far as the ledger needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configured {
    pub limits: Vec<Limit>,
    /// By the identity that certificates name.
    pub served: BTreeMap<String, Vec<Things>>,
    /// What each ModelBackend speaks, by its display name.
    pub schemas: Arc<BTreeMap<String, Schema>>,
}

/// Who serves what, and who served it a while ago.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    now: BTreeMap<String, Vec<Things>>,
    /// What was served until a while ago. It counts until this steady time.
    before: BTreeMap<String, BTreeMap<Thing, Duration>>,
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
            let mut gone = things.iter().flat_map(|things| things.missing_in(next)).peekable();
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
            ScopePart::Model | ScopePart::Label(_) | ScopePart::Claim(_) => true,
        };
        self.has(identity, &Thing::limit(id), now) && parts.iter().zip(scope).all(own)
    }
}
