//! What one worker has to tell the ledger: usage, settlements, and tokens that it wants. All of it is added up until a
//! call is made. One call is in flight at a time. A call that fails is sent again under the same number with the same
//! content, so it counts once, whatever was lost on the way.

mod measured;
mod rows;

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use prost::Message;
use tollgate_proto::v1::{self as wire, MAX_CALL_BYTES};

use self::rows::Rows;
pub use self::{
    measured::{Measured, Times},
    rows::{Row, RowKey},
};
use crate::budget::{Bucket, Release};

/// The most bytes that a call has besides its entries: the names and numbers of the worker.
const ENVELOPE_BYTES: usize = 4096;
/// The most bytes that an entry adds besides its own: its tag and its length.
const ENTRY_BYTES: usize = 6;
const RETRY_MS: (u64, u64) = (100, 2000);
/// What nobody waits for is told no more often than this. A call costs ten times as much as a request does.
const PACE_MS: u64 = 250;
/// A call that has no answer after this time is taken for lost.
const LOST_MS: u64 = 2500;

/// Who a worker is to the ledger: its proxy, the proxy's epoch, and its number there.
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
    usage: Rows,
    /// By the bucket's key.
    tabs: HashMap<Rc<str>, Tab>,
    /// What held requests need, by their numbers in rising order. It is empty for a request that is not held any
    /// more. The needs are added up when a call is made, so no request is asked for twice, however long it waits.
    needs: VecDeque<(u64, Vec<Want>)>,
    numbered: u64,
    flight: Flight,
    /// When the last call with news was made.
    called_at: u64,
    failures: u32,
    /// Usage rows that were dropped since the counters last took this over. A row may have many requests in it.
    pub dropped: u64,
}

/// Tokens wanted of a bucket.
#[derive(Debug, Clone)]
pub struct Want {
    pub bucket: Bucket,
    /// So many tokens would be enough for a while.
    pub wish: u64,
    /// A held request cannot go on with less.
    pub least: u64,
}

/// What there is to tell and to ask about one bucket. A tab with nothing on it is not kept.
#[derive(Debug)]
struct Tab {
    bucket: Bucket,
    /// One for each window.
    settlements: Vec<wire::Settlement>,
    /// Tokens asked for ahead of need, or 0.
    wish: u64,
    /// The sum of what held requests need. It is valid only while a call is made.
    least: u64,
}

#[derive(Debug, Default)]
enum Flight {
    #[default]
    None,
    /// It was sent at this time and has no answer yet.
    Sent { call: Call, at: u64 },
    /// It failed and is to be sent again at this time.
    Again { call: Call, at: u64 },
}

/// One call: what was sent, and the buckets of its wants and settlements in the same order.
#[derive(Debug, Clone)]
struct Call {
    request: wire::SyncRequest,
    wanted: Vec<Bucket>,
    settled: Vec<Bucket>,
}

/// A grant for one bucket.
#[derive(Debug)]
pub struct Granted {
    pub bucket: Bucket,
    pub grant: wire::Grant,
    pub least: u64,
}

/// A settlement that the ledger has taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    pub bucket: Bucket,
    pub window_start: i64,
    pub from_lease: u64,
}

/// What the answer to a call brings.
#[derive(Debug)]
pub struct Answered {
    pub sent_at: u64,
    pub grants: Vec<Granted>,
    pub heard: Vec<Heard>,
}

// === impl Reporter ===

impl Reporter {
    /// Usage goes into a row that no call has taken yet. What is in a call stays as it was sent.
    pub fn used(&mut self, row: Row) {
        self.dropped += self.usage.add(row);
    }

    #[inline(never)]
    pub fn settled(&mut self, bucket: &Bucket, window_start: i64, from_lease: u64, charged: u64) {
        let settlement = self.settlement(bucket, window_start);
        settlement.from_lease = settlement.from_lease.saturating_add(from_lease);
        settlement.charged = settlement.charged.saturating_add(charged);
    }

    #[inline(never)]
    pub fn released(&mut self, bucket: &Bucket, release: Release) {
        let settlement = self.settlement(bucket, release.window_start);
        settlement.released = settlement.released.saturating_add(release.amount);
    }

    fn settlement(&mut self, bucket: &Bucket, window_start: i64) -> &mut wire::Settlement {
        let settlements = &mut self.tab(bucket).settlements;
        let at = settlements.iter().position(|one| one.window_start == window_start).unwrap_or(settlements.len());
        if at == settlements.len() {
            let bucket = Some(bucket.wire());
            settlements.push(wire::Settlement { bucket, window_start, ..wire::Settlement::default() });
        }
        // The element was found or added just now.
        #[allow(clippy::indexing_slicing, reason = "at is the place of an element")]
        &mut settlements[at]
    }

    fn tab(&mut self, bucket: &Bucket) -> &mut Tab {
        self.tabs.entry(bucket.key.clone()).or_insert_with(|| Tab {
            bucket: bucket.clone(),
            settlements: Vec::new(),
            wish: 0,
            least: 0,
        })
    }

    /// Asks for tokens ahead of need.
    pub fn wish(&mut self, bucket: &Bucket, wish: u64) {
        let tab = self.tab(bucket);
        tab.wish = tab.wish.max(wish);
    }

    /// A request is held until it has these tokens. Returns its number.
    pub fn hold(&mut self, needs: Vec<Want>) -> u64 {
        self.numbered += 1;
        self.needs.push_back((self.numbered, needs));
        self.numbered
    }

    /// A held request needs something else now.
    pub fn hold_on(&mut self, number: u64, needs: Vec<Want>) {
        let found = self.needs.binary_search_by_key(&number, |(held, _)| *held);
        if let Some((_, held)) = found.ok().and_then(|at| self.needs.get_mut(at)) {
            *held = needs;
        }
    }

    /// A request is not held any more.
    pub fn let_go(&mut self, number: u64) {
        self.hold_on(number, Vec::new());
        while self.needs.pop_front_if(|(_, needs)| needs.is_empty()).is_some() {}
    }

    /// Whether a request is held.
    pub fn holds(&self) -> bool {
        !self.needs.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.usage.is_empty() && self.tabs.is_empty() && self.needs.is_empty()
    }

    /// Nothing is queued and nothing is on its way.
    pub fn is_done(&self) -> bool {
        self.is_empty() && matches!(self.flight, Flight::None)
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.flight, Flight::Sent { .. })
    }

    /// Whether all that there is to tell can wait, because a call was made a moment ago. What can be given to others, and
    /// what asks for tokens, cannot.
    pub fn can_wait(&self, now: u64) -> bool {
        let presses = |tab: &Tab| tab.wish > 0 || tab.settlements.iter().any(|settlement| settlement.released > 0);
        matches!(self.flight, Flight::None)
            && now.checked_sub(self.called_at).is_some_and(|since| since < PACE_MS)
            && !self.holds()
            && !self.tabs.values().any(presses)
    }

    /// The call to send now, if there is one. `heartbeat`: an empty one will do.
    pub fn next(&mut self, identity: &Identity, now: u64, heartbeat: bool) -> Option<&wire::SyncRequest> {
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
            Flight::None => {
                self.called_at = now;
                self.call(identity)
            }
        };
        self.flight = Flight::Sent { call, at: now };
        match &self.flight {
            Flight::Sent { call, .. } => Some(&call.request),
            Flight::None | Flight::Again { .. } => None,
        }
    }

    fn call(&mut self, identity: &Identity) -> Call {
        self.sequence += 1;
        let mut room = Room(MAX_CALL_BYTES - ENVELOPE_BYTES);
        self.add_needs_up();
        // Wants come first, because requests wait for them.
        let (mut wanted, mut wants) = (Vec::new(), Vec::new());
        for tab in self.tabs.values_mut().filter(|tab| tab.wish > 0) {
            let want = wire::Want { bucket: Some(tab.bucket.wire()), wish: tab.wish, least: tab.least };
            if room.takes(&want) {
                wanted.push(tab.bucket.clone());
                wants.push(want);
                (tab.wish, tab.least) = (0, 0);
            }
        }
        let (mut settled, mut settlements) = (Vec::new(), Vec::new());
        for tab in self.tabs.values_mut() {
            while let Some(settlement) = tab.settlements.pop_if(|settlement| room.takes(settlement)) {
                settled.push(tab.bucket.clone());
                settlements.push(settlement);
            }
        }
        self.tabs.retain(|_, tab| tab.wish > 0 || !tab.settlements.is_empty());
        let usage = self.usage.take(&mut room);
        Call {
            request: wire::SyncRequest {
                proxy: identity.proxy.clone(),
                epoch: identity.epoch,
                worker: identity.worker,
                sequence: self.sequence,
                usage,
                settlements,
                wants,
            },
            wanted,
            settled,
        }
    }

    /// Adds up, for each bucket, what held requests need and what is wished for ahead of need.
    fn add_needs_up(&mut self) {
        for tab in self.tabs.values_mut() {
            tab.least = 0;
        }
        let needs = std::mem::take(&mut self.needs);
        for need in needs.iter().flat_map(|(_, needs)| needs) {
            let tab = self.tab(&need.bucket);
            tab.wish = tab.wish.max(need.wish);
            tab.least = tab.least.saturating_add(need.least);
        }
        self.needs = needs;
    }

    /// Takes in the answer to the call in flight. An answer to any other call is ignored.
    pub fn answered(&mut self, response: wire::SyncResponse) -> Option<Answered> {
        match std::mem::take(&mut self.flight) {
            Flight::Sent { call, at } if call.request.sequence == response.sequence => {
                self.failures = 0;
                let wants = call.wanted.into_iter().zip(&call.request.wants);
                let grants = wants
                    .zip(response.grants)
                    .map(|((bucket, want), grant)| Granted { bucket, grant, least: want.least })
                    .collect();
                let settled = call.settled.into_iter().zip(&call.request.settlements);
                let heard = settled
                    .map(|(bucket, settlement)| Heard {
                        bucket,
                        window_start: settlement.window_start,
                        from_lease: settlement.from_lease,
                    })
                    .collect();
                Some(Answered { sent_at: at, grants, heard })
            }
            other => {
                self.flight = other;
                None
            }
        }
    }

    /// The call in flight failed.
    pub fn failed(&mut self, now: u64) {
        let Some(call) = self.take_sent() else { return };
        let pause = RETRY_MS.0.saturating_mul(1 << self.failures.min(5)).min(RETRY_MS.1);
        self.failures = self.failures.saturating_add(1);
        self.flight = Flight::Again { call, at: now.saturating_add(pause) };
    }

    /// The ledger will never take the call in flight. It is dropped, because sent again it would hold up all later
    /// ones.
    pub fn refused(&mut self) {
        let Some(call) = self.take_sent() else { return };
        self.failures = 0;
        self.dropped += call.request.usage.len() as u64;
    }

    /// The root that sent the call in flight is gone, so no answer will come. The call is sent again at once.
    pub fn orphaned(&mut self, now: u64) {
        if let Some(call) = self.take_sent() {
            self.flight = Flight::Again { call, at: now };
        }
    }

    /// Takes the call that was sent. One that waits to be sent again stays.
    fn take_sent(&mut self) -> Option<Call> {
        match std::mem::take(&mut self.flight) {
            Flight::Sent { call, .. } => Some(call),
            other => {
                self.flight = other;
                None
            }
        }
    }
}

/// How many bytes still fit into a call.
struct Room(usize);

// === impl Room ===

impl Room {
    fn takes(&mut self, entry: &impl Message) -> bool {
        match self.0.checked_sub(entry.encoded_len() + ENTRY_BYTES) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{rows::MAX_QUEUE, *};
    use crate::usage::Tokens;

    fn bucket() -> Bucket {
        Bucket::new("default/p/daily".into(), vec!["app".to_owned()])
    }

    fn needs(wish: u64, least: u64) -> Vec<Want> {
        vec![Want { bucket: bucket(), wish, least }]
    }

    /// What this consumer used.
    fn of(consumer: &str) -> RowKey {
        RowKey { consumer: consumer.into(), ..RowKey::default() }
    }

    fn identity() -> Identity {
        Identity { proxy: "p".into(), epoch: 1, worker: 2 }
    }

    fn answer(sequence: u64) -> wire::SyncResponse {
        wire::SyncResponse {
            sequence,
            grants: vec![wire::Grant { granted: 9, ..Default::default() }],
            lease_ttl_ms: 1,
            ..Default::default()
        }
    }

    #[test]
    fn what_nobody_waits_for_is_told_at_a_pace() {
        let mut reporter = Reporter::default();
        let used = |reporter: &mut Reporter| reporter.used(Row { key: of("app"), ..Row::default() });
        used(&mut reporter);
        assert!(!reporter.can_wait(10_000), "the first is told at once");
        let first = reporter.next(&identity(), 10_000, false).cloned().unwrap();
        assert!(!reporter.can_wait(10_001), "a call that is lost is sent again");
        reporter.answered(answer(first.sequence)).unwrap();
        used(&mut reporter);
        reporter.settled(&bucket(), 60, 5, 7);
        for (now, waits) in [(9_999, false), (10_000, true), (10_249, true), (10_250, false)] {
            assert_eq!(reporter.can_wait(now), waits, "{now}");
        }
        reporter.wish(&bucket(), 1);
        assert!(!reporter.can_wait(10_100), "tokens are asked for");
        let mut reporter = Reporter { called_at: 10_000, ..Reporter::default() };
        assert!(reporter.can_wait(10_100));
        reporter.released(&bucket(), Release { window_start: 60, amount: 4 });
        assert!(!reporter.can_wait(10_100), "others may want them");
        let mut reporter = Reporter { called_at: 10_000, ..Reporter::default() };
        let number = reporter.hold(needs(1, 1));
        assert!(!reporter.can_wait(10_100), "a request is held");
        reporter.let_go(number);
        assert!(reporter.can_wait(10_100));
    }

    #[test]
    fn settlements_and_wants_of_a_bucket_are_one() {
        let mut reporter = Reporter::default();
        reporter.settled(&bucket(), 60, 5, 7);
        reporter.settled(&bucket(), 60, 1, 1);
        reporter.released(&bucket(), Release { window_start: 60, amount: 4 });
        reporter.hold(needs(100, 10));
        reporter.hold(needs(50, 20));
        reporter.wish(&bucket(), 200);
        let request = reporter.next(&identity(), 0, false).cloned().unwrap();
        let [settlement] = request.settlements.as_slice() else { panic!() };
        assert_eq!((settlement.from_lease, settlement.charged, settlement.released), (6, 8, 4));
        assert_eq!(settlement.bucket, Some(bucket().wire()));
        let [want] = request.wants.as_slice() else { panic!() };
        assert_eq!((want.wish, want.least), (200, 30));
        assert!(reporter.next(&identity(), 0, true).is_none(), "one call at a time");
        let answered = reporter.answered(answer(1)).unwrap();
        assert_eq!(answered.heard, [Heard { bucket: bucket(), window_start: 60, from_lease: 6 }]);
    }

    /// One request of 10,273 tokens once leased 99,982 while the ledger was away: its wants added up.
    #[test]
    fn a_request_is_asked_for_once_however_long_it_waits() {
        let mut reporter = Reporter::default();
        let number = reporter.hold(needs(40, 10));
        let first = reporter.next(&identity(), 0, false).cloned().unwrap();
        for tick in 1..20 {
            reporter.failed(tick * 100);
            reporter.hold_on(number, needs(40, 10));
            if let Some(again) = reporter.next(&identity(), tick * 100 + 50, false).cloned() {
                assert_eq!(again, first);
            }
        }
        reporter.next(&identity(), 60_000, false).cloned().unwrap();
        reporter.answered(answer(1)).unwrap();
        let next = reporter.next(&identity(), 60_000, false).cloned().unwrap();
        assert_eq!((next.wants[0].wish, next.wants[0].least), (40, 10), "it still waits");
        reporter.answered(answer(2)).unwrap();
        reporter.let_go(number);
        assert!(reporter.is_done() && reporter.next(&identity(), 60_000, false).is_none());
    }

    /// A call above the ledger's limit was refused and sent for ever.
    #[test]
    fn no_call_is_larger_than_the_ledger_takes() {
        let mut reporter = Reporter::default();
        let long = |n: usize| format!("{n}-{}", "x".repeat(200));
        for n in 0..9_000 {
            reporter.used(Row { key: RowKey { route: long(n).into(), ..of(&long(n)) }, ..Row::default() });
            reporter.settled(&Bucket::new(long(n).into(), vec![long(n)]), 60, 1, 1);
            reporter.hold(vec![Want { bucket: Bucket::new(long(n).into(), vec![]), wish: 1, least: 1 }]);
        }
        let (mut rows, mut settled) = (0, 0);
        for sequence in 1.. {
            if sequence > 1 {
                (1..=9_000).for_each(|number| reporter.let_go(number));
            }
            let Some(request) = reporter.next(&identity(), 0, false).cloned() else { break };
            assert!(request.encoded_len() <= MAX_CALL_BYTES, "{}", request.encoded_len());
            assert!(sequence > 1 || !request.wants.is_empty(), "who waits comes first");
            rows += request.usage.len();
            settled += request.settlements.len();
            reporter.answered(wire::SyncResponse { sequence, ..Default::default() }).unwrap();
        }
        assert_eq!((rows, settled), (9_000, 9_000), "everything arrives");
    }

    #[test]
    fn a_failed_call_goes_out_again_unchanged() {
        let mut reporter = Reporter::default();
        reporter.hold(needs(100, 10));
        let first = reporter.next(&identity(), 0, false).cloned().unwrap();
        reporter.failed(10);
        reporter.used(Row::default());
        assert!(reporter.next(&identity(), 20, false).is_none(), "not at once");
        assert_eq!(reporter.next(&identity(), 200, false).cloned().unwrap(), first);
        assert!(reporter.answered(answer(7)).is_none(), "not the answer to this call");
        let answered = reporter.answered(answer(1)).unwrap();
        assert_eq!((answered.sent_at, answered.grants[0].grant.granted, answered.grants[0].least), (200, 9, 10));
        assert_eq!(reporter.next(&identity(), 200, false).cloned().unwrap().sequence, 2);
    }

    #[test]
    fn a_refused_call_makes_way_for_the_next() {
        let mut reporter = Reporter::default();
        reporter.used(Row::default());
        reporter.next(&identity(), 0, false).cloned().unwrap();
        reporter.refused();
        assert_eq!(reporter.dropped, 1);
        assert!(reporter.is_done());
        reporter.hold(needs(100, 10));
        assert_eq!(reporter.next(&identity(), 1, false).cloned().unwrap().sequence, 2);
    }

    #[test]
    fn a_lost_call_goes_out_again() {
        let mut reporter = Reporter::default();
        let first = reporter.next(&identity(), 0, true).cloned().unwrap();
        assert!(reporter.next(&identity(), 2000, true).is_none());
        assert_eq!(reporter.next(&identity(), 2500, false).cloned().unwrap(), first);
        reporter.failed(2550);
        reporter.orphaned(2560);
        reporter.refused();
        assert!(reporter.next(&identity(), 2649, false).is_none(), "what waits to be sent again is not lost");
        assert_eq!(reporter.next(&identity(), 2650, false).cloned().unwrap(), first);
        reporter.orphaned(2600);
        assert_eq!(reporter.next(&identity(), 2600, false).cloned().unwrap(), first);
        reporter.answered(answer(1)).unwrap();
        assert!(reporter.is_done());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut reporter = Reporter::default();
        for n in 0..MAX_QUEUE + 3 {
            for _ in 0..2 {
                reporter.used(Row { requests: 1, key: of(&format!("{n}")), ..Row::default() });
            }
        }
        assert_eq!(reporter.dropped, 3, "rows, of two requests each");
        let mut told = Vec::new();
        while let Some(call) = reporter.next(&identity(), 0, false).cloned() {
            told.extend(call.usage.into_iter().map(|row| (row.consumer, row.requests)));
            reporter.answered(wire::SyncResponse { sequence: call.sequence, ..Default::default() }).unwrap();
        }
        assert_eq!(told, (3..MAX_QUEUE + 3).map(|n| (format!("{n}"), 2)).collect::<Vec<_>>());
    }

    #[test]
    fn a_call_on_its_way_is_not_added_to() {
        let request = || Row { ended_at: 5, key: of("app"), requests: 1, ..Row::default() };
        let mut reporter = Reporter::default();
        reporter.used(request());
        let first = reporter.next(&identity(), 0, false).cloned().unwrap();
        (0..2).for_each(|_| reporter.used(request()));
        reporter.failed(10);
        reporter.used(request());
        assert_eq!(reporter.next(&identity(), 200, false).cloned().unwrap(), first);
        assert_eq!((first.usage.len(), first.usage[0].requests), (1, 1));
        reporter.answered(answer(1)).unwrap();
        let second = reporter.next(&identity(), 200, false).cloned().unwrap();
        assert_eq!((second.usage.len(), second.usage[0].requests), (1, 3));
    }

    /// The bytes of a call beside its entries count too.
    #[test]
    fn a_call_has_room_for_who_sends_it() {
        const FITS: usize = MAX_CALL_BYTES - ENVELOPE_BYTES - 2 * ENTRY_BYTES;
        let row = |consumer: &str, bytes: usize| {
            let row = Row { key: of(&consumer.repeat(bytes)), ..Row::default() };
            let too_many = row.wire().encoded_len() - bytes;
            Row { key: of(&consumer.repeat(bytes - too_many)), ..row }
        };
        let identity = Identity { proxy: "p".repeat(ENVELOPE_BYTES - 100), ..identity() };
        for (bytes, rows) in [(FITS / 2, 2), (FITS / 2 + 1, 1)] {
            let mut reporter = Reporter::default();
            reporter.used(row("x", FITS - FITS / 2));
            reporter.used(row("y", bytes));
            let call = reporter.next(&identity, 0, false).cloned().unwrap();
            assert_eq!(call.usage.len(), rows, "{bytes}");
            assert!(call.encoded_len() <= MAX_CALL_BYTES);
        }
    }

    #[test]
    fn a_call_that_fails_again_waits_longer_up_to_a_bound() {
        let mut reporter = Reporter::default();
        let first = reporter.next(&identity(), 0, true).cloned().unwrap();
        let mut now = 0;
        for pause in [100, 200, 400, 800, 1600, 2000, 2000] {
            reporter.failed(now);
            assert!(!reporter.is_waiting() && !reporter.is_done());
            assert_eq!(reporter.next(&identity(), now + pause - 1, false), None, "{pause}");
            now += pause;
            assert_eq!(reporter.next(&identity(), now, false).cloned().unwrap(), first);
            assert!(reporter.is_waiting());
        }
        reporter.answered(answer(1)).unwrap();
        reporter.next(&identity(), now, true).cloned().unwrap();
        reporter.failed(now);
        assert!(reporter.next(&identity(), now + 100, false).is_some(), "an answer ends the row of failures");
    }

    #[test]
    fn a_call_counts_as_lost_after_a_while() {
        let mut reporter = Reporter::default();
        let first = reporter.next(&identity(), 10, true).cloned().unwrap();
        assert_eq!(reporter.next(&identity(), 10 + LOST_MS - 1, true), None);
        assert_eq!(reporter.next(&identity(), 10 + LOST_MS, true).cloned().unwrap(), first);
    }

    #[derive(Debug, Clone)]
    enum Happens {
        Used(Row),
        Next,
        Answered,
        Failed,
        Orphaned,
        /// Milliseconds pass.
        Passed(u64),
    }

    /// What all rows of a minute and key have together: the end of the last request, and six sums.
    type Sums = BTreeMap<(u64, RowKey), (u64, [u64; 6])>;

    fn add(sums: &mut Sums, ended_at: u64, key: RowKey, figures: [u64; 6]) {
        let (last, sum) = sums.entry((ended_at / 60_000, key)).or_default();
        *last = ended_at.max(*last);
        sum.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    }

    fn key(wire: &wire::Usage) -> RowKey {
        RowKey {
            consumer: wire.consumer.as_str().into(),
            route: wire.route.as_str().into(),
            asked_model: wire.asked_model.clone(),
            model: wire.model.as_str().into(),
            backend: wire.backend.as_str().into(),
            operation: wire.operation(),
            error_status: wire.error_status,
        }
    }

    fn figures(wire: &wire::Usage) -> [u64; 6] {
        let wire::Usage { input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, .. } = *wire;
        let wire::Usage { requests, estimated_requests, .. } = *wire;
        [input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, requests, estimated_requests]
    }

    fn used() -> impl Strategy<Value = Row> {
        let name = || prop_oneof![9 => Just(""), 1 => Just("a")];
        let operation = prop_oneof![9 => Just(wire::Operation::Chat), 1 => Just(wire::Operation::Embeddings)];
        let status = prop_oneof![9 => Just(0), 1 => Just(503)];
        let names = (name(), name(), name(), name(), name());
        let key = (names, operation, status).prop_map(
            |((consumer, route, asked, model, backend), operation, error_status)| RowKey {
                consumer: consumer.into(),
                route: route.into(),
                asked_model: asked.to_owned(),
                model: model.into(),
                backend: backend.into(),
                operation,
                error_status,
            },
        );
        let figure = || prop_oneof![9 => 0..1000u64, 1 => Just(1 << 40), 1 => Just((1 << 40) + 1)];
        let tokens = (figure(), figure(), figure(), figure());
        let counts = prop_oneof![Just((1, 0)), Just((1, 1)), Just((0, 1))];
        (key, tokens, counts).prop_map(|(key, (input, output, cached, reasoning), (requests, estimated_requests))| {
            Row {
                ended_at: 0,
                key,
                tokens: Tokens { input, output, cached, reasoning },
                requests,
                estimated_requests,
                ..Row::default()
            }
        })
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            8 => used().prop_map(Happens::Used),
            2 => Just(Happens::Next),
            1 => Just(Happens::Answered),
            1 => Just(Happens::Failed),
            1 => Just(Happens::Orphaned),
            1 => prop_oneof![0..5000u64, Just(60_000)].prop_map(Happens::Passed),
        ]
    }

    proptest! {
        #[test]
        fn what_was_used_arrives_once_in_any_order_of_events(events in prop::collection::vec(happens(), 0..120)) {
            let (mut reporter, mut now) = (Reporter::default(), 1_000_000);
            let (mut used, mut told) = (Sums::new(), Sums::new());
            let mut calls: BTreeMap<u64, wire::SyncRequest> = BTreeMap::new();
            let to_the_end = [Happens::Passed(10_000), Happens::Next, Happens::Answered];
            for event in events.into_iter().chain(to_the_end.into_iter().cycle().take(9)) {
                match event {
                    Happens::Used(row) => {
                        let row = Row { ended_at: now, ..row };
                        add(&mut used, now, row.key.clone(), figures(&row.wire()));
                        reporter.used(row);
                    }
                    Happens::Next => {
                        if let Some(call) = reporter.next(&identity(), now, true).cloned() {
                            let first = calls.entry(call.sequence).or_insert_with(|| call.clone());
                            prop_assert_eq!(&*first, &call, "the same number means the same content");
                        }
                    }
                    Happens::Answered => {
                        let sequence = calls.keys().last().copied().unwrap_or(0);
                        reporter.answered(wire::SyncResponse { sequence, ..Default::default() });
                    }
                    Happens::Failed => reporter.failed(now),
                    Happens::Orphaned => reporter.orphaned(now),
                    Happens::Passed(ms) => now += ms,
                }
            }
            prop_assert!(reporter.is_done() && reporter.dropped == 0);
            for call in calls.values() {
                let rows = call.usage.iter().map(|row| (row.ended_at.cast_unsigned(), key(row), row));
                rows.clone().for_each(|(ended_at, key, row)| add(&mut told, ended_at, key, figures(row)));
                // A row that stays alone has a figure that nobody believes.
                let shared = rows.filter(|(.., row)| figures(row)[..4].iter().all(|figure| *figure <= 1 << 40));
                let mut minutes: Vec<_> = shared.map(|(ended_at, key, _)| (ended_at / 60_000, key)).collect();
                let all = minutes.len();
                minutes.sort_unstable();
                minutes.dedup();
                prop_assert_eq!(minutes.len(), all, "two rows of one call could be one");
            }
            prop_assert_eq!(told, used);
        }
    }
}
