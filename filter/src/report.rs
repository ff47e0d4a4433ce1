//! What one worker has to tell the ledger: settled usage, leases given back, tokens wanted. One call is
//! in flight at a time; a call that fails is sent again under the same number with the same content, so
//! whatever gets lost on the way counts once.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use tollgate_proto::v1 as wire;

use crate::budget::{Budget, Release};

/// A call gets at most this much of the queue.
const MAX_USAGE: usize = 1000;
const MAX_BUDGETS: usize = 5000;
/// Usage rows kept while the ledger is away; more are dropped, oldest first. Budgets are not affected:
/// settlements are kept per bucket.
const MAX_QUEUE: usize = 50_000;
const RETRY_MS: (u64, u64) = (100, 2000);
/// A call without an answer for so long is lost.
const LOST_MS: u64 = 2500;

/// One life of one proxy, and one worker of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub proxy: String,
    pub epoch: u64,
    pub worker: u64,
}

/// The queue of one worker and the call on its way.
#[derive(Debug, Default)]
pub struct Reporter {
    sequence: u64,
    usage: VecDeque<wire::Usage>,
    settlements: HashMap<(Rc<str>, i64), wire::Settlement>,
    wants: HashMap<Rc<str>, (Budget, wire::Want)>,
    flight: Flight,
    failures: u32,
    /// Usage rows that were dropped, since the last look.
    pub dropped: u64,
}

#[derive(Debug, Default)]
enum Flight {
    #[default]
    None,
    /// Sent, not answered.
    Sent { call: Call, at: u64 },
    /// Failed; to be sent again.
    Again { call: Call, at: u64 },
}

/// One call: what was sent, and the budgets that its wants are for.
#[derive(Debug, Clone)]
struct Call {
    request: wire::SyncRequest,
    wanted: Vec<Budget>,
}

/// What an answer brings for one bucket.
#[derive(Debug)]
pub struct Granted {
    pub budget: Budget,
    pub grant: wire::Grant,
    pub least: u64,
}

/// A call that was answered.
#[derive(Debug)]
pub struct Answered {
    pub sent_at: u64,
    pub grants: Vec<Granted>,
}

// === impl Reporter ===

impl Reporter {
    pub fn used(&mut self, usage: wire::Usage) {
        if self.usage.len() >= MAX_QUEUE {
            self.usage.pop_front();
            self.dropped += 1;
        }
        self.usage.push_back(usage);
    }

    #[inline(never)]
    pub fn settled(&mut self, budget: &Budget, window_start: i64, from_lease: u64, charged: u64) {
        let settlement = self.settlement(budget, window_start);
        settlement.from_lease = settlement.from_lease.saturating_add(from_lease);
        settlement.charged = settlement.charged.saturating_add(charged);
    }

    #[inline(never)]
    pub fn released(&mut self, budget: &Budget, release: Release) {
        let settlement = self.settlement(budget, release.window_start);
        settlement.released = settlement.released.saturating_add(release.amount);
    }

    fn settlement(&mut self, budget: &Budget, window_start: i64) -> &mut wire::Settlement {
        self.settlements.entry((budget.key.clone(), window_start)).or_insert_with(|| wire::Settlement {
            bucket: Some(budget.bucket()),
            window_start,
            ..wire::Settlement::default()
        })
    }

    /// Asks for tokens; wants for one bucket become one.
    pub fn want(&mut self, budget: &Budget, wish: u64, least: u64) {
        let (_, want) = self
            .wants
            .entry(budget.key.clone())
            .or_insert_with(|| (budget.clone(), wire::Want { bucket: Some(budget.bucket()), ..wire::Want::default() }));
        want.wish = want.wish.max(wish);
        want.least = want.least.saturating_add(least);
    }

    pub fn is_empty(&self) -> bool {
        self.usage.is_empty() && self.settlements.is_empty() && self.wants.is_empty()
    }

    /// Nothing is queued and nothing is on its way.
    pub fn is_done(&self) -> bool {
        self.is_empty() && matches!(self.flight, Flight::None)
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.flight, Flight::Sent { .. })
    }

    /// The call to send now, if any. `heartbeat`: also without content.
    pub fn next(&mut self, identity: &Identity, now: u64, heartbeat: bool) -> Option<wire::SyncRequest> {
        let call = match std::mem::take(&mut self.flight) {
            Flight::Sent { call, at } if now < at.saturating_add(LOST_MS) => {
                self.flight = Flight::Sent { call, at };
                return None;
            }
            Flight::Again { call, at } if now < at => {
                self.flight = Flight::Again { call, at };
                return None;
            }
            Flight::Sent { call, .. } | Flight::Again { call, .. } => call,
            Flight::None if self.is_empty() && !heartbeat => return None,
            Flight::None => self.call(identity),
        };
        let request = call.request.clone();
        self.flight = Flight::Sent { call, at: now };
        Some(request)
    }

    fn call(&mut self, identity: &Identity) -> Call {
        self.sequence += 1;
        let rows = self.usage.len().min(MAX_USAGE);
        let (wanted, wants) = some_of(&mut self.wants).unzip();
        let settlements = some_of(&mut self.settlements).collect();
        Call {
            request: wire::SyncRequest {
                proxy: identity.proxy.clone(),
                epoch: identity.epoch,
                worker: identity.worker,
                sequence: self.sequence,
                usage: self.usage.drain(..rows).collect(),
                settlements,
                wants,
            },
            wanted,
        }
    }

    /// The answer of the call in flight. An answer to anything else is ignored.
    pub fn answered(&mut self, response: wire::SyncResponse) -> Option<Answered> {
        match std::mem::take(&mut self.flight) {
            Flight::Sent { call, at } if call.request.sequence == response.sequence => {
                self.failures = 0;
                let wants = call.wanted.into_iter().zip(&call.request.wants);
                let grants = wants
                    .zip(response.grants)
                    .map(|((budget, want), grant)| Granted { budget, grant, least: want.least })
                    .collect();
                Some(Answered { sent_at: at, grants })
            }
            other => {
                self.flight = other;
                None
            }
        }
    }

    /// The call in flight failed.
    pub fn failed(&mut self, now: u64) {
        if let Flight::Sent { call, .. } = std::mem::take(&mut self.flight) {
            let pause = RETRY_MS.0.saturating_mul(1 << self.failures.min(5)).min(RETRY_MS.1);
            self.failures = self.failures.saturating_add(1);
            self.flight = Flight::Again { call, at: now.saturating_add(pause) };
        }
    }

    /// The ledger will never take the call in flight: sent again it would hold up all that comes after it.
    pub fn refused(&mut self) {
        if let Flight::Sent { call, .. } = std::mem::take(&mut self.flight) {
            self.failures = 0;
            self.dropped += call.request.usage.len() as u64;
        }
    }

    /// Whoever sent the call in flight is gone, and its answer with it: it goes out again at once.
    pub fn orphaned(&mut self, now: u64) {
        if let Flight::Sent { call, .. } = std::mem::take(&mut self.flight) {
            self.flight = Flight::Again { call, at: now };
        }
    }
}

/// Takes as many as go into a call.
fn some_of<K: Eq + std::hash::Hash, V>(queue: &mut HashMap<K, V>) -> impl Iterator<Item = V> {
    let mut room = MAX_BUDGETS;
    let taken = queue.extract_if(move |_, _| {
        let fits = room > 0;
        room = room.saturating_sub(1);
        fits
    });
    taken.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Scope,
        config::{EarlyEnd, Limit, Mode, ScopePart, Weights},
    };

    fn budget() -> Budget {
        let count = Weights { constant: 0.0, input: 1.0, output: 1.0, cached: 0.0, reasoning: 0.0 };
        let limit = Limit {
            id: "default/p/daily".into(),
            scope: vec![ScopePart::Consumer],
            count,
            mode: Mode::Shadow,
            on_early_end: EarlyEnd::Estimate,
        };
        let scope = Scope { consumer: "app", model: "m", route: "r", labels: &Default::default() };
        Budget::new(&Rc::new(limit), &scope)
    }

    fn identity() -> Identity {
        Identity { proxy: "p".into(), epoch: 1, worker: 2 }
    }

    fn answer(sequence: u64) -> wire::SyncResponse {
        let grants = vec![wire::Grant { granted: 9, ..Default::default() }];
        wire::SyncResponse { sequence, grants, lease_ttl_ms: 1, ..Default::default() }
    }

    #[test]
    fn settlements_and_wants_of_a_bucket_are_one() {
        let mut reporter = Reporter::default();
        reporter.settled(&budget(), 60, 5, 7);
        reporter.settled(&budget(), 60, 1, 1);
        reporter.released(&budget(), Release { window_start: 60, amount: 4 });
        reporter.want(&budget(), 100, 10);
        reporter.want(&budget(), 50, 20);
        let request = reporter.next(&identity(), 0, false).unwrap();
        let [settlement] = request.settlements.as_slice() else { panic!() };
        assert_eq!((settlement.from_lease, settlement.charged, settlement.released), (6, 8, 4));
        let [want] = request.wants.as_slice() else { panic!() };
        assert_eq!((want.wish, want.least), (100, 30));
        assert!(reporter.next(&identity(), 0, true).is_none(), "one call at a time");
    }

    #[test]
    fn a_failed_call_goes_out_again_unchanged() {
        let mut reporter = Reporter::default();
        reporter.want(&budget(), 100, 10);
        let first = reporter.next(&identity(), 0, false).unwrap();
        reporter.failed(10);
        reporter.used(wire::Usage::default());
        assert!(reporter.next(&identity(), 20, false).is_none(), "not at once");
        assert_eq!(reporter.next(&identity(), 200, false).unwrap(), first);
        assert!(reporter.answered(answer(7)).is_none(), "not the answer to this call");
        let answered = reporter.answered(answer(1)).unwrap();
        assert_eq!((answered.sent_at, answered.grants[0].grant.granted, answered.grants[0].least), (200, 9, 10));
        assert_eq!(reporter.next(&identity(), 200, false).unwrap().sequence, 2);
    }

    #[test]
    fn a_refused_call_makes_way_for_the_next() {
        let mut reporter = Reporter::default();
        reporter.used(wire::Usage::default());
        reporter.next(&identity(), 0, false).unwrap();
        reporter.refused();
        assert_eq!(reporter.dropped, 1);
        assert!(reporter.is_done());
        reporter.want(&budget(), 100, 10);
        assert_eq!(reporter.next(&identity(), 1, false).unwrap().sequence, 2);
    }

    #[test]
    fn a_lost_call_goes_out_again() {
        let mut reporter = Reporter::default();
        let first = reporter.next(&identity(), 0, true).unwrap();
        assert!(reporter.next(&identity(), 2000, true).is_none());
        assert_eq!(reporter.next(&identity(), 2500, false).unwrap(), first);
        reporter.orphaned(2600);
        assert_eq!(reporter.next(&identity(), 2600, false).unwrap(), first);
        reporter.answered(answer(1)).unwrap();
        assert!(reporter.is_done());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut reporter = Reporter::default();
        for _ in 0..MAX_QUEUE + 3 {
            reporter.used(wire::Usage::default());
        }
        assert_eq!((reporter.usage.len(), reporter.dropped), (MAX_QUEUE, 3));
    }
}
