//! The life of a root: what it orders at which event, and what holds in any order of events.

use proptest::prelude::*;
use tollgate_proto::{delta::DeltaDiscoveryRequest, v1::API_KEY_TYPE};

use super::*;
use crate::{
    budget::{Bucket, Release},
    fixture,
    host::FakeShared,
    report::{Row, Want},
    worker::{Worker, prepare_records},
};

/// A worker and the shared data of its process, as the main thread leaves them.
struct Vm {
    shared: FakeShared,
    worker: Worker,
    now: u64,
}

const START: u64 = 1_000_000;
const NODE: &str = "node-1";
const CALL: u32 = 70;
const STREAM: u32 = 80;
const UNAVAILABLE: u32 = 14;

// === impl Vm ===

impl Vm {
    fn new() -> Self {
        Self { shared: fixture::shared(), worker: Worker::default(), now: START }
    }

    /// With a root that acts and has been through its first tick; its stream of keys is open.
    fn with_root() -> (Self, Root) {
        let (mut vm, mut root) = (Self::new(), Root::new(1));
        assert_eq!(vm.step(&mut root, RootEvent::Configured), []);
        vm.step(&mut root, RootEvent::Tick);
        vm.step(&mut root, RootEvent::KeysOpened(Some(STREAM)));
        (vm, root)
    }

    fn step(&mut self, root: &mut Root, event: RootEvent<'_>) -> Vec<RootOrder> {
        let (worker, shared, now) = (&mut self.worker, &self.shared, self.now);
        root.step(event, &mut Surroundings { worker, shared, node: &|| NODE.to_owned(), now })
    }

    /// Whether a tick finds nothing to do, whatever it says of the next one.
    fn is_idle(&mut self, root: &mut Root) -> bool {
        let mut orders = self.step(root, RootEvent::Tick);
        orders.retain(|order| !matches!(order, RootOrder::TickEvery { .. }));
        orders == idle()
    }

    /// Gives the ledger something to hear.
    fn has_used(&mut self) {
        self.worker.reporter.used(Row::default());
    }

    /// A call that was sent.
    fn sent(&mut self, root: &mut Root) -> wire::SyncRequest {
        let call = call(&self.step(root, RootEvent::Rang));
        assert_eq!(self.step(root, RootEvent::CallSent(Some(CALL))), []);
        call
    }
}

/// What a root that acts orders at each tick.
fn idle() -> [RootOrder; 2] {
    [RootOrder::ExportMetrics, RootOrder::Wake(Callback::Tick)]
}

fn resting() -> RootOrder {
    RootOrder::TickEvery { millis: RESTING_MS }
}

fn lively() -> RootOrder {
    RootOrder::TickEvery { millis: LIVELY_MS }
}

fn bucket() -> Bucket {
    Bucket::new("default/p/daily".into(), vec!["app".to_owned()])
}

/// The one call among these orders.
fn call(orders: &[RootOrder]) -> wire::SyncRequest {
    let [RootOrder::Call(message)] = orders else { panic!("{orders:?}") };
    wire::SyncRequest::decode(message.as_slice()).unwrap()
}

fn answer(to: &wire::SyncRequest, granted: u64) -> Vec<u8> {
    let grant = || wire::Grant { granted, limit: 1000, remaining: 1000 - granted, ..Default::default() };
    let grants = to.wants.iter().map(|_| grant()).collect();
    wire::SyncResponse { sequence: to.sequence, grants, lease_ttl_ms: 30_000, ..Default::default() }.encode_to_vec()
}

fn answered(answer: &[u8]) -> RootEvent<'_> {
    RootEvent::CallEnded { token: CALL, status: 0, answer: Some(answer) }
}

fn failed(status: u32) -> RootEvent<'static> {
    RootEvent::CallEnded { token: CALL, status, answer: None }
}

fn keys(nonce: &str) -> Vec<u8> {
    DeltaDiscoveryResponse { nonce: nonce.into(), type_url: API_KEY_TYPE.into(), ..Default::default() }.encode_to_vec()
}

/// What is sent on the stream of keys.
fn said(orders: &[RootOrder]) -> DeltaDiscoveryRequest {
    let [RootOrder::SendKeys { token: STREAM, message }] = orders else { panic!("{orders:?}") };
    DeltaDiscoveryRequest::decode(message.as_slice()).unwrap()
}

// === ticks ===

#[test]
fn the_first_tick_introduces_the_worker_and_hangs_the_bell_once() {
    let (mut vm, mut root) = (Vm::new(), Root::new(1));
    vm.step(&mut root, RootEvent::Configured);
    assert_eq!(vm.worker.identity(&vm.shared), None);
    let bell = RootOrder::HangBell { name: "tollgate/1".into() };
    assert_eq!(
        vm.step(&mut root, RootEvent::Tick),
        [bell, RootOrder::ExportMetrics, RootOrder::OpenKeys, RootOrder::Wake(Callback::Tick)]
    );
    let identity = vm.worker.identity(&vm.shared).unwrap();
    assert_eq!((identity.proxy.as_str(), identity.epoch, identity.worker), (NODE, 7, 1));
    vm.step(&mut root, RootEvent::KeysOpened(Some(STREAM)));
    assert!(vm.is_idle(&mut root) && vm.is_idle(&mut root));
}

#[test]
fn a_root_with_nothing_to_do_ticks_seldom_until_a_request_rings() {
    let (mut vm, mut root) = Vm::with_root();
    let [export, wake] = idle();
    assert_eq!(vm.step(&mut root, RootEvent::Tick), [export, wake, resting()]);
    assert!(vm.worker.rests);
    assert_eq!(vm.step(&mut root, RootEvent::Tick), idle(), "it is said once");
    vm.worker.rests = false;
    vm.has_used();
    let rang = vm.step(&mut root, RootEvent::Rang);
    assert!(matches!(rang.as_slice(), [order, RootOrder::Call(_)] if *order == lively()), "{rang:?}");
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    assert_eq!(vm.step(&mut root, RootEvent::Rang), [], "it is lively");
}

#[test]
fn a_root_does_not_rest_while_anything_is_under_way() {
    let held = vec![Want { bucket: bucket(), wish: 1, least: 1 }];
    for what in ["usage", "a call", "a held request", "a stream of keys that is closed", "another root"] {
        let (mut vm, mut root) = Vm::with_root();
        match what {
            "usage" => vm.has_used(),
            "a call" => {
                vm.has_used();
                vm.sent(&mut root);
            }
            "a held request" => drop(vm.worker.reporter.hold(held.clone())),
            "a stream of keys that is closed" => drop(vm.step(&mut root, RootEvent::KeysClosed { token: STREAM })),
            _ => {
                vm.step(&mut root, RootEvent::Tick);
                assert!(vm.worker.rests);
                root = Root::new(2);
                vm.step(&mut root, RootEvent::Configured);
                assert!(!vm.worker.rests, "the new root ticks often at first");
                continue;
            }
        }
        vm.step(&mut root, RootEvent::Tick);
        assert!(!vm.worker.rests, "{what}");
    }
}

#[test]
fn no_bell_hangs_before_the_process_has_an_epoch() {
    let (mut vm, mut root) = (Vm { shared: FakeShared::default(), ..Vm::new() }, Root::new(1));
    let is_hung = |orders: &[RootOrder]| orders.iter().any(|order| matches!(order, RootOrder::HangBell { .. }));
    assert!(!is_hung(&vm.step(&mut root, RootEvent::Tick)));
    prepare_records(&vm.shared, 7);
    assert!(is_hung(&vm.step(&mut root, RootEvent::Tick)));
    assert!(!is_hung(&vm.step(&mut root, RootEvent::Tick)));
}

#[test]
fn a_tick_sweeps_and_looks_at_slow_records() {
    let (mut vm, mut root) = Vm::with_root();
    vm.worker.touched.insert(bucket().key, bucket());
    vm.now += 20_000;
    vm.step(&mut root, RootEvent::Tick);
    assert!(vm.worker.touched.is_empty(), "nobody uses it");
}

#[test]
fn held_requests_are_told_and_then_what_is_due_is_sent() {
    let (mut vm, mut root) = Vm::with_root();
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::Tick)), [], "nothing is due");
    vm.has_used();
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))).usage.len(), 1);
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::Tick)), [], "one call at a time");
    assert_eq!(vm.step(&mut root, RootEvent::Rang), []);
}

// === which root acts ===

#[test]
fn the_newest_root_acts_and_an_older_one_when_none_does() {
    let (mut vm, mut old) = Vm::with_root();
    let mut new = Root::new(2);
    vm.step(&mut new, RootEvent::Configured);
    assert_eq!(vm.worker.owner, Some(2));
    assert_eq!(vm.step(&mut old, RootEvent::Tick), [RootOrder::CloseKeys { token: STREAM }], "nothing is kept open");
    assert_eq!(vm.step(&mut old, RootEvent::Tick), []);
    assert!(vm.step(&mut new, RootEvent::Tick).contains(&RootOrder::OpenKeys), "the stream is opened anew");
    vm.step(&mut new, RootEvent::KeysOpened(Some(STREAM)));

    vm.step(&mut new, RootEvent::Done);
    assert!(new.is_gone());
    let bell = RootOrder::HangBell { name: "tollgate/1".into() };
    assert_eq!(vm.step(&mut old, RootEvent::Tick)[..3], [bell, RootOrder::ExportMetrics, RootOrder::OpenKeys]);
    assert_eq!(vm.worker.owner, Some(1));
}

#[test]
fn what_the_root_before_had_sent_goes_out_again_unchanged() {
    let (mut vm, mut old) = Vm::with_root();
    vm.has_used();
    let first = vm.sent(&mut old);
    let mut new = Root::new(2);
    vm.step(&mut new, RootEvent::Configured);
    assert_eq!(call(&vm.step(&mut new, RootEvent::Woken(Callback::Tick))), first);
}

/// A call of the root before once ended with its last stream, without a word, and a request waited for it in vain.
#[test]
fn a_root_that_acts_no_more_sends_nothing() {
    let (mut vm, mut old) = Vm::with_root();
    let number = vm.worker.reporter.hold(vec![Want { bucket: bucket(), wish: 100, least: 10 }]);
    let sent = vm.sent(&mut old);
    let mut new = Root::new(2);
    assert_eq!(vm.step(&mut new, RootEvent::Configured), [RootOrder::HangBell { name: "tollgate/1".into() }]);
    assert_eq!(vm.step(&mut old, RootEvent::Rang), []);
    assert_eq!(call(&vm.step(&mut new, RootEvent::Rang)), sent);
    let message = answer(&sent, 100);
    assert_eq!(vm.step(&mut old, answered(&message)), [RootOrder::Wake(Callback::LedgerAnswered)], "an answer is one");
    assert_eq!(vm.step(&mut old, RootEvent::Woken(Callback::LedgerAnswered)), [], "the next call is not its own");
    assert_eq!(call(&vm.step(&mut new, RootEvent::Rang)).sequence, 2);
    vm.worker.reporter.let_go(number);
}

// === calls ===

#[test]
fn a_call_that_could_not_be_sent_is_tried_again() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let first = call(&vm.step(&mut root, RootEvent::Rang));
    assert_eq!(vm.step(&mut root, RootEvent::CallSent(None)), []);
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::Tick)), [], "not at once");
    vm.now += 100;
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))), first);
}

#[test]
fn the_end_of_a_foreign_call_says_nothing() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let sent = vm.sent(&mut root);
    let message = answer(&sent, 0);
    let foreign = RootEvent::CallEnded { token: CALL + 1, status: 0, answer: Some(&message) };
    assert_eq!(vm.step(&mut root, foreign), []);
    assert!(vm.worker.reporter.is_waiting());
    assert_eq!(vm.step(&mut root, answered(&message)), []);
    assert!(vm.worker.reporter.is_done());
    vm.has_used();
    vm.step(&mut root, RootEvent::Rang);
    assert_eq!(vm.step(&mut root, failed(UNAVAILABLE)), [], "the token counts once");
    assert!(vm.worker.reporter.is_waiting());
}

#[test]
fn who_waits_for_a_grant_is_told_before_the_next_call() {
    let (mut vm, mut root) = Vm::with_root();
    let number = vm.worker.reporter.hold(vec![Want { bucket: bucket(), wish: 100, least: 10 }]);
    let sent = vm.sent(&mut root);
    vm.has_used();
    let message = answer(&sent, 100);
    assert_eq!(vm.step(&mut root, answered(&message)), [RootOrder::Wake(Callback::LedgerAnswered)]);
    let next = call(&vm.step(&mut root, RootEvent::Woken(Callback::LedgerAnswered)));
    assert_eq!((next.sequence, next.usage.len(), next.wants.len()), (2, 1, 1), "it waits for more");
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    vm.has_used();
    vm.worker.reporter.let_go(number);
    let message = answer(&next, 100);
    assert_eq!(vm.step(&mut root, answered(&message)), [RootOrder::Wake(Callback::LedgerAnswered)]);
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::LedgerAnswered)), [], "nobody waits");
}

/// Calls once followed each other as fast as they were answered, 170 in a second, and each cost more than a request.
#[test]
fn after_an_answer_the_next_call_waits_for_the_tick_unless_a_request_is_held() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let sent = vm.sent(&mut root);
    vm.has_used();
    vm.worker.reporter.wish(&bucket(), 5);
    let message = answer(&sent, 0);
    assert_eq!(vm.step(&mut root, answered(&message)), []);
    let sent = call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick)));
    assert_eq!((sent.sequence, sent.usage.len(), sent.wants.len()), (2, 1, 1));
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    vm.worker.reporter.hold(vec![Want { bucket: bucket(), wish: 100, least: 10 }]);
    let message = answer(&wire::SyncRequest { wants: Vec::new(), ..sent }, 0);
    assert_eq!(call(&vm.step(&mut root, answered(&message))).wants[0].least, 10);
}

#[test]
fn only_what_the_ledger_never_takes_is_dropped() {
    for status in 0..=16 {
        let (mut vm, mut root) = Vm::with_root();
        vm.has_used();
        vm.sent(&mut root);
        let orders = vm.step(&mut root, failed(status));
        let never = matches!(status, 3 | 9 | 11);
        assert_eq!(matches!(orders.as_slice(), [RootOrder::Warn(_)]), never, "{status}: {orders:?}");
        assert_eq!(orders.is_empty(), !never, "{status}: {orders:?}");
        assert_eq!(vm.worker.reporter.is_done(), never, "{status}: a call of another status goes out again");
    }
}

#[test]
fn a_refused_call_holds_up_nothing() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    vm.sent(&mut root);
    vm.has_used();
    assert!(matches!(vm.step(&mut root, failed(3)).as_slice(), [RootOrder::Warn(_)]));
    vm.now += 250;
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))).sequence, 2);
}

#[test]
fn ticks_tell_at_a_pace_what_nobody_waits_for() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let sent = vm.sent(&mut root);
    let message = answer(&sent, 0);
    vm.step(&mut root, answered(&message));
    vm.has_used();
    vm.now += 249;
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::Tick)), []);
    vm.now += 1;
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))).sequence, 2);
}

#[test]
fn a_root_that_goes_tells_all_at_once() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let first = vm.sent(&mut root);
    vm.has_used();
    assert_eq!(vm.step(&mut root, RootEvent::Done), [RootOrder::CloseKeys { token: STREAM }]);
    let message = answer(&first, 0);
    assert_eq!(call(&vm.step(&mut root, answered(&message))).sequence, 2);
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    vm.step(&mut root, failed(UNAVAILABLE));
    vm.now += 100;
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))).sequence, 2);
}

/// What its leases are worth does not wait.
#[test]
fn a_heartbeat_waits_for_no_pace() {
    let (mut vm, mut root) = Vm::with_root();
    let bucket = bucket();
    vm.worker.touched.insert(bucket.key.clone(), bucket);
    vm.has_used();
    vm.sent(&mut root);
    vm.worker.reporter.refused();
    assert!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))).usage.is_empty());
}

#[test]
fn an_answer_that_cannot_be_read_is_asked_for_again() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let first = vm.sent(&mut root);
    assert_eq!(vm.step(&mut root, answered(b"\xff")), []);
    vm.now += 100;
    assert_eq!(call(&vm.step(&mut root, RootEvent::Woken(Callback::Tick))), first);
}

// === keys ===

#[test]
fn keys_are_asked_for_and_acknowledged() {
    let (mut vm, mut root) = (Vm::new(), Root::new(1));
    vm.step(&mut root, RootEvent::Tick);
    let first = said(&vm.step(&mut root, RootEvent::KeysOpened(Some(STREAM))));
    assert_eq!((first.node.unwrap().id.as_str(), first.type_url.as_str()), (NODE, API_KEY_TYPE));
    let message = keys("n1");
    let mut orders = vm.step(&mut root, RootEvent::KeysMessage { token: STREAM, message: &message });
    assert_eq!(orders.pop(), Some(RootOrder::ExportMetrics), "who waits for keys reads the count");
    let ack = said(&orders);
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));
    assert_eq!(vm.step(&mut root, RootEvent::KeysMessage { token: STREAM + 1, message: &message }), [], "not ours");
    let garbage = vm.step(&mut root, RootEvent::KeysMessage { token: STREAM, message: b"\xff" });
    assert!(matches!(garbage.as_slice(), [RootOrder::Warn(_)]), "{garbage:?}");
}

#[test]
fn a_stream_of_keys_that_ends_is_opened_again_after_a_pause() {
    for opened in [true, false] {
        let (mut vm, mut root) = (Vm::new(), Root::new(1));
        vm.step(&mut root, RootEvent::Tick);
        if opened {
            vm.step(&mut root, RootEvent::KeysOpened(Some(STREAM)));
            assert_eq!(vm.step(&mut root, RootEvent::KeysClosed { token: STREAM + 1 }), []);
            vm.now += 10_000;
            assert!(vm.is_idle(&mut root), "the end of a foreign stream says nothing");
            assert_eq!(vm.step(&mut root, RootEvent::KeysClosed { token: STREAM }), [lively()]);
        } else {
            assert_eq!(vm.step(&mut root, RootEvent::KeysOpened(None)), []);
        }
        assert!(vm.is_idle(&mut root), "not at once");
        vm.now += 1000;
        assert!(vm.step(&mut root, RootEvent::Tick).contains(&RootOrder::OpenKeys));
    }
}

#[test]
fn a_worker_that_leads_no_more_closes_its_stream() {
    let (mut vm, mut root) = Vm::with_root();
    let [leader, _] = table::RECORDS;
    vm.shared.set(leader, &[2u64.to_le_bytes(), vm.now.to_le_bytes()].concat(), None).unwrap();
    let closed = RootOrder::CloseKeys { token: STREAM };
    assert_eq!(
        vm.step(&mut root, RootEvent::Tick),
        [RootOrder::ExportMetrics, closed, RootOrder::Wake(Callback::Tick), resting()]
    );
    let message = keys("n1");
    assert_eq!(vm.step(&mut root, RootEvent::KeysMessage { token: STREAM, message: &message }), [], "it is not ours");
    assert!(vm.is_idle(&mut root));
}

// === going ===

#[test]
fn a_root_with_nothing_to_say_is_gone_at_once() {
    let (mut vm, mut root) = Vm::with_root();
    assert!(!root.is_gone());
    assert_eq!(vm.step(&mut root, RootEvent::Done), [RootOrder::CloseKeys { token: STREAM }]);
    assert!(root.is_gone());
    assert_eq!(vm.worker.owner, None);
}

#[test]
fn a_root_that_does_not_act_is_gone_at_once() {
    let (mut vm, mut old) = Vm::with_root();
    let mut new = Root::new(2);
    vm.step(&mut new, RootEvent::Configured);
    vm.has_used();
    assert_eq!(vm.step(&mut old, RootEvent::Done), [RootOrder::CloseKeys { token: STREAM }], "the other one reports");
    assert!(old.is_gone());
    assert_eq!(vm.worker.owner, Some(2));
}

#[test]
fn the_last_report_is_waited_for() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    let orders = vm.step(&mut root, RootEvent::Done);
    let [RootOrder::CloseKeys { token: STREAM }, last @ ..] = orders.as_slice() else { panic!("{orders:?}") };
    let last = call(last);
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    assert!(!root.is_gone());
    assert_eq!(vm.step(&mut root, RootEvent::Woken(Callback::Tick)), []);
    let message = answer(&last, 0);
    assert_eq!(vm.step(&mut root, answered(&message)), [RootOrder::Gone]);
    assert!(root.is_gone());
    assert_eq!(vm.worker.owner, None);
}

#[test]
fn the_last_report_is_waited_for_so_long_and_no_longer() {
    let (mut vm, mut root) = Vm::with_root();
    vm.has_used();
    vm.step(&mut root, RootEvent::Done);
    vm.step(&mut root, RootEvent::CallSent(Some(CALL)));
    vm.now = START + GOING_MS - 1;
    assert!(!vm.step(&mut root, RootEvent::Tick).contains(&RootOrder::Gone) && !root.is_gone());
    vm.now = START + GOING_MS;
    assert_eq!(vm.step(&mut root, RootEvent::Tick), [RootOrder::Gone]);
    assert!(root.is_gone());
    assert_eq!(vm.worker.owner, None);
}

#[test]
fn a_root_that_goes_leaves_another_that_acts_alone() {
    let (mut vm, mut old) = Vm::with_root();
    vm.has_used();
    vm.step(&mut old, RootEvent::Done);
    vm.step(&mut Root::new(2), RootEvent::Configured);
    vm.now += GOING_MS;
    assert_eq!(vm.step(&mut old, RootEvent::Tick), [RootOrder::Gone]);
    assert_eq!(vm.worker.owner, Some(2));
}

/// Envoy lets go of a root a little later than it was told to; what comes meanwhile must wake nothing.
#[test]
fn a_root_that_is_gone_does_nothing_more() {
    let (mut vm, mut root) = Vm::with_root();
    vm.step(&mut root, RootEvent::Done);
    vm.has_used();
    for event in
        [RootEvent::Tick, RootEvent::Rang, RootEvent::Woken(Callback::Tick), RootEvent::Configured, RootEvent::Done]
    {
        assert_eq!(vm.step(&mut root, event), []);
    }
    assert_eq!(vm.worker.owner, None, "another root may act");
}

// === any order ===

/// What may happen to a root. The host answers orders at once, as Envoy does.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Tick,
    Rang,
    Used,
    Wanted,
    Released,
    Answered,
    Failed(u32),
    CannotCall,
    KeysCame,
    KeysClosed,
    Done,
}

/// Envoy's side of one root.
#[derive(Default)]
struct Host {
    tokens: u32,
    /// The call in flight, and since when.
    call: Option<(u32, wire::SyncRequest, u64)>,
    stream: Option<u32>,
    cannot_call: bool,
    gone: u32,
}

/// The adapter gives a call so long; then it ends as failed.
const CALL_TIMEOUT_MS: u64 = 1000;

// === impl Host ===

impl Host {
    fn token(&mut self) -> u32 {
        self.tokens += 1;
        self.tokens
    }

    fn step(&mut self, vm: &mut Vm, root: &mut Root, event: RootEvent<'_>) -> Result<(), TestCaseError> {
        let was_gone = root.is_gone();
        for order in vm.step(root, event) {
            prop_assert!(!was_gone, "{order:?} of a root that is gone");
            match order {
                RootOrder::Call(message) => {
                    prop_assert!(self.call.is_none(), "two calls in flight");
                    let sent = (!std::mem::take(&mut self.cannot_call)).then(|| self.token());
                    let request = wire::SyncRequest::decode(message.as_slice()).unwrap();
                    self.call = sent.map(|token| (token, request, vm.now));
                    self.step(vm, root, RootEvent::CallSent(sent))?;
                }
                RootOrder::OpenKeys => {
                    prop_assert!(self.stream.is_none(), "two streams of keys");
                    self.stream = Some(self.token());
                    self.step(vm, root, RootEvent::KeysOpened(self.stream))?;
                }
                RootOrder::CloseKeys { token } => prop_assert_eq!(self.stream.take(), Some(token)),
                RootOrder::SendKeys { token, .. } => prop_assert_eq!(self.stream, Some(token)),
                RootOrder::Wake(callback) => self.step(vm, root, RootEvent::Woken(callback))?,
                RootOrder::Gone => self.gone += 1,
                RootOrder::HangBell { .. }
                | RootOrder::TickEvery { .. }
                | RootOrder::ExportMetrics
                | RootOrder::Warn(_) => {}
            }
        }
        prop_assert!(self.gone <= 1 && (self.gone == 0 || root.is_gone()));
        Ok(())
    }

    fn end_call(&mut self, vm: &mut Vm, root: &mut Root, status: u32) -> Result<(), TestCaseError> {
        let Some((token, request, _)) = self.call.take() else { return Ok(()) };
        let answer = (status == 0).then(|| answer(&request, 10));
        self.step(vm, root, RootEvent::CallEnded { token, status, answer: answer.as_deref() })
    }

    fn happens(&mut self, vm: &mut Vm, root: &mut Root, what: Happens) -> Result<(), TestCaseError> {
        if self.call.as_ref().is_some_and(|(_, _, since)| vm.now >= since + CALL_TIMEOUT_MS) {
            self.end_call(vm, root, UNAVAILABLE)?;
        }
        match what {
            Happens::Tick => self.step(vm, root, RootEvent::Tick)?,
            Happens::Rang => self.step(vm, root, RootEvent::Rang)?,
            Happens::Used => vm.has_used(),
            Happens::Wanted => vm.worker.reporter.wish(&bucket(), 5),
            Happens::Released => vm.worker.reporter.released(&bucket(), Release { window_start: 0, amount: 1 }),
            Happens::Answered => self.end_call(vm, root, 0)?,
            Happens::Failed(status) => self.end_call(vm, root, status)?,
            Happens::CannotCall => self.cannot_call = true,
            Happens::KeysCame => {
                let (token, message) = (self.stream.unwrap_or(0), keys("n"));
                self.step(vm, root, RootEvent::KeysMessage { token, message: &message })?;
            }
            Happens::KeysClosed => {
                let token = self.stream.take().unwrap_or(0);
                self.step(vm, root, RootEvent::KeysClosed { token })?;
            }
            Happens::Done => self.step(vm, root, RootEvent::Done)?,
        }
        Ok(())
    }
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Tick),
        2 => Just(Happens::Rang),
        2 => Just(Happens::Used),
        1 => Just(Happens::Wanted),
        1 => Just(Happens::Released),
        2 => Just(Happens::Answered),
        1 => (1u32..17).prop_map(Happens::Failed),
        1 => Just(Happens::CannotCall),
        1 => Just(Happens::KeysCame),
        1 => Just(Happens::KeysClosed),
        1 => Just(Happens::Done),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one call and one stream at a time, nothing after the end, which is
    /// told once; and the end comes, whatever the ledger does.
    #[test]
    fn any_order_of_events_keeps_to_one_call_and_one_end(
        steps in prop::collection::vec((anything(), 0u64..700), 0..60),
    ) {
        let (mut vm, mut root, mut host) = (Vm::new(), Root::new(1), Host::default());
        host.step(&mut vm, &mut root, RootEvent::Configured)?;
        for (what, pause) in steps {
            vm.now += pause;
            host.happens(&mut vm, &mut root, what)?;
        }
        host.happens(&mut vm, &mut root, Happens::Done)?;
        vm.now += GOING_MS;
        host.happens(&mut vm, &mut root, Happens::Tick)?;
        prop_assert!(root.is_gone());
        prop_assert_eq!(vm.worker.owner, None);
        prop_assert_eq!(host.stream, None);
    }
}
