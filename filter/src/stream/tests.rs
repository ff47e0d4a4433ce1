//! Streams from Envoy's callbacks to what is charged, and properties that hold in any order of callbacks.

use std::rc::Rc;

use proptest::prelude::*;
use prost::Message as _;
use tollgate_proto::v1 as wire;

use super::fake::{FakeStream, headers};
use super::*;
use crate::{
    attempt::{Attempt, AttemptPlan, Failure, Failures},
    budget::{Bucket, Lease},
    config::{Config, parse},
    exchange::{Effect, Goes, Wants},
    fixture,
    host::{FakeShared, Shared},
    root::{GOING_MS, Root, RootEvent, Surroundings},
    worker::Worker,
};

/// A worker, the surroundings of its streams, and a ledger with 1000 tokens.
struct Proxy {
    shared: FakeShared,
    worker: Worker,
    config: Rc<Config>,
    now: u64,
    limit: u64,
    /// What the ledger has granted, and what has come back of it.
    granted: u64,
    from_lease: u64,
    released: u64,
    charged: u64,
    rows: Vec<wire::Usage>,
}

const BODY: &[u8] = br#"{"model":"smol","max_tokens":50,"messages":[]}"#;
const USAGE: &[u8] = br#"{"usage":{"prompt_tokens":8,"completion_tokens":5}}"#;
const LIMIT: u64 = 1000;
const START: u64 = 1_000_000;
const ADDRESS: &str = "127.0.0.1:50000";

// === impl Proxy ===

impl Proxy {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(mode: impl FnOnce(&mut wire::RequestStage)) -> Self {
        let mut stage = fixture::stage();
        mode(&mut stage);
        let (shared, mut worker) = (fixture::shared(), Worker::default());
        // A root acts for it and has been through a tick.
        worker.owner = Some(1);
        worker.introduce(&shared, || "node-1".to_owned(), START);
        worker.sweep(&shared, START);
        Self {
            shared,
            worker,
            config: Rc::new(fixture::config(stage)),
            now: START,
            limit: LIMIT,
            granted: 0,
            from_lease: 0,
            released: 0,
            charged: 0,
            rows: Vec::new(),
        }
    }

    fn stream(&self) -> Downstream {
        Downstream::new(self.config.clone())
    }

    fn on(&mut self, stream: &mut Downstream, callback: Callback, host: &FakeStream) -> Vec<Effect> {
        let now = self.now;
        stream.on(callback, host, &self.shared, &mut self.worker, &|| now)
    }

    /// A request that is on its way to a backend.
    fn sent(&mut self, host: &FakeStream) -> Downstream {
        let mut stream = self.stream();
        self.on(&mut stream, Callback::RequestHeaders { end: false }, host);
        self.on(&mut stream, Callback::RequestBody { end: true }, host);
        if stream.wants() == Wants::Ledger {
            self.call();
            self.on(&mut stream, Callback::LedgerAnswered, host);
        }
        assert_eq!(stream.wants(), Wants::AnswerHeaders);
        stream
    }

    fn step(&mut self, root: &mut Root, event: RootEvent<'_>) {
        let (worker, shared, now) = (&mut self.worker, &self.shared, self.now);
        root.step(event, &mut Surroundings { worker, shared, node: &String::new, now });
    }

    /// The ledger takes the call that is due and answers it.
    fn call(&mut self) -> bool {
        let Some(call) = self.worker.next_call(&self.shared, self.now).cloned() else { return false };
        self.rows.extend(call.usage);
        for settlement in &call.settlements {
            self.from_lease += settlement.from_lease;
            self.released += settlement.released;
            self.charged += settlement.charged;
        }
        let mut grants = Vec::new();
        for want in &call.wants {
            let leased = self.granted - self.from_lease - self.released;
            let left = self.limit.saturating_sub(self.charged + leased);
            // Where there is plenty, it gives plenty.
            let wish = if self.limit > LIMIT { u64::MAX } else { want.wish };
            let granted = wish.min(left / 4).max(want.least.min(left));
            self.granted += granted;
            grants.push(wire::Grant {
                window_end: 9_000,
                granted,
                limit: self.limit,
                remaining: left - granted,
                exhausted: self.charged >= self.limit,
                ..Default::default()
            });
        }
        let answer = wire::SyncResponse { sequence: call.sequence, grants, lease_ttl_ms: 30_000, ..Default::default() };
        self.worker.ledger_answered(&self.shared, answer, self.now)
    }

    /// Tells the ledger everything that is due.
    fn report(&mut self) {
        self.worker.put_slices_back(&self.shared, self.now);
        for _ in 0..50 {
            self.call();
        }
    }

    fn lease(&self) -> Lease {
        let record = self.shared.get("b/default/p/daily/3:app");
        record.map(|(record, _)| Lease::decode(&record)).unwrap_or_default()
    }
}

fn request() -> FakeStream {
    FakeStream {
        request_headers: headers(&[(":method", "POST"), (":path", "/v1/chat/completions"), ("x-api-key", "good")]),
        body: BODY.to_vec(),
        ..FakeStream::default()
    }
    .with(Property::Route, fixture::CHAT)
}

/// The row of a request that ended in this state, if it has one.
fn ended(proxy: &mut Proxy, mut stream: Downstream, host: &FakeStream) -> Vec<wire::Usage> {
    assert_eq!(proxy.on(&mut stream, Callback::Log, host), []);
    assert_eq!(stream.wants(), Wants::Nothing);
    proxy.report();
    std::mem::take(&mut proxy.rows)
}

#[test]
fn the_first_step_of_a_request_after_a_rest_rings_the_bell() {
    let mut proxy = Proxy::new();
    let (mut stream, host) = (proxy.stream(), request());
    let rings = |effects: Vec<Effect>| effects.contains(&Effect::Ring);
    assert!(proxy.worker.is_quiet());
    proxy.worker.rests = true;
    assert!(rings(proxy.on(&mut stream, Callback::RequestHeaders { end: false }, &host)));
    assert!(!proxy.worker.rests);
    proxy.worker.rests = true;
    assert!(rings(proxy.on(&mut stream, Callback::RequestBody { end: true }, &host)), "its body came after a while");
    proxy.call();
    assert!(!rings(proxy.on(&mut stream, Callback::LedgerAnswered, &host)));
    assert!(!proxy.worker.is_quiet(), "a request is on its way");
    proxy.on(&mut stream, Callback::Log, &host);
    assert!(!proxy.worker.is_quiet(), "how long it took is told yet");
    proxy.call();
    assert!(proxy.worker.is_quiet());
}

#[test]
fn a_request_whose_backend_never_answered_is_charged_its_reservation() {
    // Whoever ended it: the client by HTTP/1.1 or HTTP/2, our timeout, the backend. No flag is looked at.
    for replaced in [false, true] {
        let mut proxy = Proxy::new();
        let host = request().with(Property::UpstreamConnection, ADDRESS).answers("504", "text/plain");
        let mut stream = proxy.sent(&host);
        if replaced {
            proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
            assert_eq!(stream.wants(), Wants::AnswerBody);
        }
        let rows = ended(&mut proxy, stream, &host);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.requests, row.estimated_requests, row.backend.as_str()), (1, 1, "a"), "{row:?}");
        assert_eq!(row.output_tokens, 50, "all that it asked for");
        assert!(row.input_tokens > 0);
        assert_eq!(proxy.charged, row.input_tokens + row.output_tokens);
    }
}

#[test]
fn a_request_that_no_backend_received_is_free() {
    for address in [None, Some("")] {
        let mut proxy = Proxy::new();
        let mut host = request().answers("503", "text/plain");
        if let Some(address) = address {
            host = host.with(Property::UpstreamConnection, address);
        }
        let mut stream = proxy.sent(&host);
        proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
        let rows = ended(&mut proxy, stream, &host);
        let told: Vec<_> = rows.iter().map(|row| (row.requests, row.estimated_requests, row.error_status)).collect();
        assert_eq!(told, [(0, 0, 503)], "it is measured, and costs nothing");
        assert_eq!((proxy.charged, proxy.from_lease), (0, 0));
    }
}

#[test]
fn each_attempt_that_a_backend_had_is_charged() {
    let mut proxy = Proxy::new();
    let failures = Failures::default().with(1, 0, Failure::Unanswered).with(2, 1, Failure::Refused).with(
        3,
        1,
        Failure::Unanswered,
    );
    let host = request()
        .with(Property::UpstreamConnection, ADDRESS)
        .with(Property::Failures, failures.encoded())
        .with(Property::AttemptNumber, 4u64.to_le_bytes())
        .with(Property::Cluster, "backend/default/b");
    let mut answered = FakeStream { chunk: USAGE.to_vec(), ..host.clone() }.answers("200", "application/json");
    let mut stream = proxy.sent(&answered);
    proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &answered);
    proxy.on(&mut stream, Callback::AnswerBody { size: USAGE.len(), end: true }, &answered);
    let rows = ended(&mut proxy, stream, &answered);
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.backend.as_str(), row.requests, row.estimated_requests, row.output_tokens))
        .collect();
    assert_eq!(told, [("b", 1, 1, 5 + 50), ("a", 0, 1, 50)], "one of the two at b is the request, and it is exact");
    assert_eq!(proxy.charged, rows.iter().map(|row| row.input_tokens + row.output_tokens).sum::<u64>());

    // The last one failed as well: it is told by Envoy's answer, not by its own note.
    let mut proxy = Proxy::new();
    answered = host.clone().with(Property::AttemptNumber, 3u64.to_le_bytes());
    let stream = proxy.sent(&answered);
    let rows = ended(&mut proxy, stream, &answered);
    let told: Vec<_> = rows.iter().map(|row| (row.backend.as_str(), row.requests)).collect();
    assert_eq!(told, [("b", 1), ("a", 0)]);

    // An error was answered and the next attempt did not begin: only the first is charged, as the request.
    let mut proxy = Proxy::new();
    answered = host.with(Property::AttemptNumber, 2u64.to_le_bytes());
    let stream = proxy.sent(&answered);
    let rows = ended(&mut proxy, stream, &answered);
    let told: Vec<_> = rows.iter().map(|row| (row.backend.as_str(), row.requests)).collect();
    assert_eq!(told, [("a", 1)]);
}

#[test]
fn a_reservation_is_charged_whole_where_the_policy_says_so() {
    for (early_end, expected) in [(wire::EarlyEnd::Estimate, 1..20), (wire::EarlyEnd::Reservation, 50..51)] {
        let mut proxy = Proxy::with(|stage| stage.limits[0].on_early_end = early_end.into());
        // What is known exactly is charged exactly; and the model is known now.
        let whole = br#"{"choices":[{"message":{"content":"five words of no matter"}}],
            "usage":{"prompt_tokens":8,"completion_tokens":5}}"#;
        let host = FakeStream { chunk: whole.to_vec(), ..request() }.answers("200", "application/json");
        let mut stream = proxy.sent(&host);
        proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
        proxy.on(&mut stream, Callback::AnswerBody { size: whole.len(), end: true }, &host);
        let rows = ended(&mut proxy, stream, &host);
        assert_eq!((rows[0].input_tokens, rows[0].output_tokens, rows[0].estimated_requests), (8, 5, 0));
        assert_eq!(proxy.charged, 13);

        let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
        let host = FakeStream { chunk: event.to_vec(), ..request() }.answers("200", "text/event-stream");
        let mut stream = proxy.sent(&host);
        proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
        proxy.on(&mut stream, Callback::AnswerBody { size: event.len(), end: false }, &host);
        let rows = ended(&mut proxy, stream, &host);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(row.estimated_requests == 1 && expected.contains(&row.output_tokens), "{row:?}");
        assert_eq!(proxy.charged, 13 + row.input_tokens + row.output_tokens);
    }
}

#[test]
fn who_leaves_while_waiting_is_not_asked_for() {
    let mut proxy = Proxy::new();
    let (mut stream, host) = (proxy.stream(), request());
    proxy.on(&mut stream, Callback::RequestHeaders { end: false }, &host);
    let effects = proxy.on(&mut stream, Callback::RequestBody { end: true }, &host);
    assert_eq!(effects, [Effect::Ring], "nothing is changed before it is admitted");
    assert_eq!((stream.wants(), stream.request_goes()), (Wants::Ledger, Goes::Nowhere));
    assert!(ended(&mut proxy, stream, &host).is_empty());
    assert_eq!(proxy.granted, 0);
}

#[test]
fn envoys_own_answer_ends_the_waiting() {
    let mut proxy = Proxy::new();
    let (mut stream, host) = (proxy.stream(), request().answers("408", "text/plain"));
    proxy.on(&mut stream, Callback::RequestHeaders { end: false }, &host);
    proxy.on(&mut stream, Callback::RequestBody { end: true }, &host);
    let effects = proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
    assert!(matches!(effects.as_slice(), [Effect::SetResponseHeader("content-type", _), _]), "{effects:?}");
    assert!(ended(&mut proxy, stream, &host).is_empty());
    assert_eq!(proxy.granted, 0);
}

// === attempts ===

fn attempt(number: u64, cluster: &str, plan: Option<&AttemptPlan>) -> (Upstream, FakeStream) {
    let backends = vec![fixture::backend("a"), fixture::backend("b")];
    let stage = wire::filter_config::Stage::Attempt(wire::AttemptStage { backends });
    let config = parse(&wire::FilterConfig { stage: Some(stage) }.encode_to_vec()).unwrap();
    let mut host = FakeStream { body: br#"{"model":"x"}"#.to_vec(), ..FakeStream::default() }
        .with(Property::AttemptNumber, number.to_le_bytes())
        .with(Property::Cluster, cluster)
        .with(Property::UpstreamConnection, ADDRESS);
    if let Some(plan) = plan {
        host = host.with(Property::Plan, plan.encoded());
    }
    (Upstream::new(Rc::new(config)), host)
}

fn plan() -> AttemptPlan {
    let attempt = |name: &str, model: &str| Attempt { cluster: format!("backend/default/{name}"), model: model.into() };
    AttemptPlan {
        path: "/chat".into(),
        model_start: 9,
        model_len: 3,
        attempts: vec![attempt("a", "\"x\""), attempt("b", "\"yy\"")],
        body_len: 13,
        handover: String::new(),
    }
}

#[test]
fn an_attempt_takes_away_what_another_sidecar_was_told() {
    let handed = AttemptPlan { handover: "ab".to_owned(), ..plan() };
    for (plan, removes) in [(handed, true), (plan(), false)] {
        let (mut stream, host) = attempt(1, "backend/default/a", Some(&plan));
        let orders = stream.on(Callback::RequestHeaders { end: false }, &host);
        assert_eq!(orders.contains(&Order::RemoveHeader("x-tollgate-handover")), removes, "{orders:?}");
    }
}

#[test]
fn an_attempt_that_is_not_known_ends() {
    let cases = [
        (Some(plan()), "backend/default/a", Goes::On),
        (None, "backend/default/a", Goes::On),
        (Some(plan()), "backend/default/z", Goes::Nowhere),
        (Some(AttemptPlan::default()), "backend/default/b", Goes::On),
    ];
    for (plan, cluster, goes) in cases {
        // An encoded plan without anything is empty, which Envoy cannot tell from none.
        let (mut upstream, host) = attempt(1, cluster, plan.as_ref());
        let orders = upstream.on(Callback::RequestHeaders { end: false }, &host);
        assert_eq!(upstream.request_goes(), goes, "{cluster}");
        assert_eq!(orders.last() == Some(&Order::End { status: 503 }), goes == Goes::Nowhere);
    }
    let (mut upstream, host) = attempt(1, "backend/default/a", None);
    let orders = upstream.on(Callback::RequestHeaders { end: false }, &host.with(Property::Plan, "\u{1}broken"));
    assert_eq!(orders.last(), Some(&Order::End { status: 503 }), "a plan that cannot be read");
}

#[test]
fn an_attempt_becomes_its_backends_own() {
    let (mut upstream, host) = attempt(2, "backend/default/b", Some(&plan()));
    let orders = upstream.on(Callback::RequestHeaders { end: false }, &host);
    assert_eq!(upstream.request_goes(), Goes::Nowhere, "held until the body names the model");
    let expected = [
        Order::SetHeader(":path", "/v1/chat".into()),
        Order::SetHeader(":authority", "b.example".into()),
        Order::SetHeader("content-length", "14".into()),
    ];
    assert_eq!(orders, expected);
    assert_eq!(upstream.on(Callback::RequestBody { end: false }, &host), []);
    assert_eq!(upstream.request_goes(), Goes::Nowhere);
    let orders = upstream.on(Callback::RequestBody { end: true }, &host);
    assert_eq!(orders, [Order::Body(br#"{"model":"yy"}"#.to_vec())]);
    assert_eq!(upstream.request_goes(), Goes::On);
}

fn next() -> Order {
    Order::Target("backend/default/b".into())
}

/// Where all attempts send the same bytes, nobody need say how many.
#[test]
fn attempts_with_one_body_keep_its_length() {
    let mut plan = plan();
    plan.attempts[1].model = plan.attempts[0].model.clone();
    for (number, cluster) in [(1, "backend/default/a"), (2, "backend/default/b")] {
        let (mut upstream, host) = attempt(number, cluster, Some(&plan));
        let orders = upstream.on(Callback::RequestHeaders { end: false }, &host);
        assert!(!orders.iter().any(|order| matches!(order, Order::SetHeader("content-length", _))), "{orders:?}");
        assert_eq!(upstream.request_goes(), Goes::On);
    }
}

/// One backend may stand twice in a plan, under two names of its models.
#[test]
fn of_two_attempts_at_a_backend_the_number_says_which() {
    let mut plan = plan();
    plan.attempts[1].cluster = plan.attempts[0].cluster.clone();
    for (number, goes) in [(1, Goes::On), (2, Goes::Nowhere), (3, Goes::Nowhere)] {
        let (mut upstream, host) = attempt(number, "backend/default/a", Some(&plan));
        upstream.on(Callback::RequestHeaders { end: false }, &host);
        assert_eq!(upstream.request_goes(), goes, "{number}");
        let next = upstream.on(Callback::Done, &host).contains(&Order::Target("backend/default/a".into()));
        assert!(!next, "Envoy goes to the same by itself");
    }
}

#[test]
fn an_attempt_notes_how_it_failed() {
    let failed = |answer: Option<&str>, connected: bool| {
        let (mut upstream, mut host) = attempt(1, "backend/default/a", Some(&plan()));
        if !connected {
            host.properties.remove(&Property::UpstreamConnection);
        }
        let orders = upstream.on(Callback::RequestHeaders { end: false }, &host);
        assert!(!orders.contains(&next()), "the next one matters only if there is one");
        let mut noted = Vec::new();
        if let Some(status) = answer {
            noted.extend(upstream.on(Callback::AnswerHeaders { end: false }, &host.clone().answers(status, "")));
        }
        noted.extend(upstream.on(Callback::Done, &host));
        noted
    };
    let note = |failure| vec![next(), Order::Failures(Failures::default().with(1, 0, failure).encoded())];
    assert_eq!(failed(None, true), note(Failure::Unanswered));
    assert_eq!(failed(None, false), [next()], "no backend had it");
    assert_eq!(failed(Some("500"), true), note(Failure::Refused));
    assert_eq!(failed(Some("400"), true), note(Failure::Refused));
    assert_eq!(failed(Some("200"), true), []);
    assert_eq!(failed(Some("399"), true), []);
    // What attempts before have noted stays.
    let earlier = Failures::default().with(1, 0, Failure::Refused);
    let (mut upstream, host) = attempt(2, "backend/default/b", Some(&plan()));
    let host = host.with(Property::Failures, earlier.encoded());
    upstream.on(Callback::RequestHeaders { end: false }, &host);
    upstream.on(Callback::RequestBody { end: true }, &host);
    let noted = upstream.on(Callback::Done, &host);
    assert_eq!(noted, [Order::Failures(earlier.with(2, 1, Failure::Unanswered).encoded())]);
}

// === any order ===

fn any_callback() -> impl Strategy<Value = Callback> {
    prop_oneof![
        any::<bool>().prop_map(|end| Callback::RequestHeaders { end }),
        any::<bool>().prop_map(|end| Callback::RequestBody { end }),
        Just(Callback::RequestTrailers),
        any::<bool>().prop_map(|end| Callback::AnswerHeaders { end }),
        (0usize..200, any::<bool>()).prop_map(|(size, end)| Callback::AnswerBody { size, end }),
        Just(Callback::LedgerAnswered),
        Just(Callback::Tick),
        Just(Callback::Log),
        Just(Callback::Done),
    ]
}

/// How many tokens the lease notes under the worker: for running requests, and in its slice.
fn noted(proxy: &Proxy) -> u64 {
    proxy.lease().bury(1).iter().map(|release| release.amount).sum()
}

#[test]
fn a_slice_goes_back_at_the_tick_and_when_its_root_goes() {
    let mut proxy = Proxy { limit: 1000 * LIMIT, ..Proxy::new() };
    let mut root = Root::new(1);
    proxy.step(&mut root, RootEvent::Configured);
    let host = request();
    let mut streams = vec![proxy.sent(&host)];
    proxy.step(&mut root, RootEvent::Tick);
    let each = noted(&proxy);
    for event in [RootEvent::Tick, RootEvent::Done] {
        streams.push(proxy.sent(&host));
        let running = each * streams.len() as u64;
        assert!(noted(&proxy) > running, "{event:?}");
        proxy.step(&mut root, event);
        assert_eq!(noted(&proxy), running);
    }
    proxy.worker.owner = None;
    streams.push(proxy.sent(&host));
    streams.push(proxy.sent(&host));
    assert_eq!(noted(&proxy), each * 5, "nobody would put a slice back");
}

/// A root that waits for its last report still acts, and slices are still cut.
#[test]
fn a_slice_that_was_cut_late_goes_back_with_the_root() {
    let mut proxy = Proxy { limit: 1000 * LIMIT, ..Proxy::new() };
    let mut root = Root::new(1);
    let host = request();
    let first = proxy.sent(&host);
    proxy.step(&mut root, RootEvent::Tick);
    let each = noted(&proxy);
    proxy.worker.reporter.wish(&Bucket::new("default/p/other".into(), Vec::new()), 1);
    proxy.step(&mut root, RootEvent::Done);
    let second = proxy.sent(&host);
    assert!(noted(&proxy) > 2 * each);
    proxy.now += GOING_MS;
    proxy.step(&mut root, RootEvent::Tick);
    assert_eq!((noted(&proxy), proxy.worker.owner), (2 * each, None));
    drop((first, second));
}

/// What a stream meets: its route, key, body, answer, and how its attempts went.
fn any_stream() -> impl Strategy<Value = FakeStream> {
    let body = prop_oneof![
        Just(BODY.to_vec()),
        Just(br#"{"model":"smol","stream":true}"#.to_vec()),
        Just(br#"{"model":"smol","max_tokens":900}"#.to_vec()),
        Just(b"nonsense".to_vec()),
    ];
    let chunk = prop_oneof![
        Just(USAGE.to_vec()),
        Just(b"data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n".to_vec()),
        Just(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":9}}\n\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..100),
    ];
    let answer = (
        prop::sample::select(vec!["200", "400", "429", "503"]),
        prop::sample::select(vec!["application/json", "text/event-stream", "image/png", ""]),
        prop::sample::select(vec!["via_upstream", "response_timeout"]),
    );
    let attempts = (any::<bool>(), 1u64..4, prop::collection::vec((1u64..4, 0u8..3, any::<bool>()), 0..3));
    let route = prop::sample::select(vec![
        fixture::CHAT,
        fixture::CHAT,
        fixture::CHAT,
        fixture::PLAIN,
        fixture::CLOSED,
        fixture::UNKNOWN,
    ]);
    let key = prop::sample::select(vec!["good", "good", "good", "other", "foreign", "none"]);
    (body, chunk, answer, attempts, route, key).prop_map(|(body, chunk, answer, attempts, route, key)| {
        let (status, kind, details) = answer;
        let (connected, number, noted) = attempts;
        let failures = noted.into_iter().fold(Failures::default(), |failures, (number, place, refused)| {
            failures.with(number, place, if refused { Failure::Refused } else { Failure::Unanswered })
        });
        let path = if key == "other" { "/v1/models" } else { "/v1/chat/completions" };
        let method = if key == "other" { "GET" } else { "POST" };
        let mut host = FakeStream { body, chunk, ..FakeStream::default() }
            .answers(status, kind)
            .with(Property::Route, route)
            .with(Property::CodeDetails, details)
            .with(Property::AttemptNumber, number.to_le_bytes())
            .with(Property::Failures, failures.encoded())
            .with(Property::Cluster, "backend/default/b");
        host.request_headers = headers(&[(":method", method), (":path", path), ("x-api-key", key)]);
        if connected {
            host = host.with(Property::UpstreamConnection, ADDRESS);
        }
        host
    })
}

proptest! {
    /// Envoy may call anything in any order, for several streams at once. A stream gets one answer of our own at most.
    /// A request is resumed only if it waited. Nothing happens after the end. Once all streams have ended, every token
    /// that was leased is in the lease, used or given back.
    #[test]
    fn any_order_of_callbacks_keeps_the_books(
        hosts in prop::collection::vec(any_stream(), 1..5),
        steps in prop::collection::vec((0usize..5, any_callback(), prop_oneof![0u64..30, 0u64..700], any::<bool>()), 0..60),
        limit in prop::sample::select(vec![LIMIT, 1000 * LIMIT]),
    ) {
        let mut proxy = Proxy { limit, ..Proxy::new() };
        let mut streams: Vec<(Downstream, u32, bool)> =
            hosts.iter().map(|_| (proxy.stream(), 0, false)).collect();
        let close = hosts.iter().enumerate().map(|(index, _)| (index, Callback::Log, 0, false));
        let steps: Vec<_> = steps.into_iter().chain(close).collect();
        for (index, callback, pause, calls) in steps {
            let index = index % hosts.len();
            proxy.now += pause;
            if calls {
                proxy.call();
            }
            let (stream, replies, closed) = &mut streams[index];
            let waited = stream.wants() == Wants::Ledger;
            let now = proxy.now;
            if callback == Callback::Tick {
                proxy.worker.sweep(&proxy.shared, now);
            }
            let effects = stream.on(callback, &hosts[index], &proxy.shared, &mut proxy.worker, &|| now);
            prop_assert!(!*closed || effects.is_empty(), "nothing after the end: {effects:?}");
            *replies += u32::try_from(effects.iter().filter(|one| matches!(one, Effect::Reply { .. })).count()).unwrap();
            prop_assert!(*replies <= 1);
            prop_assert!(waited || !effects.contains(&Effect::Resume), "{effects:?}");
            if effects.contains(&Effect::Resume) {
                prop_assert_eq!(stream.request_goes(), Goes::On);
            }
            *closed |= callback == Callback::Log;
            if *closed {
                prop_assert_eq!(stream.wants(), if stream.wants() == Wants::RequestHeaders { Wants::RequestHeaders } else { Wants::Nothing });
            }
        }
        proxy.report();
        let lease = proxy.lease();
        prop_assert_eq!(lease.workers().count(), 0, "nothing is reserved or unheard of");
        prop_assert_eq!(proxy.granted, lease.available + proxy.from_lease + proxy.released);
        prop_assert!(proxy.worker.reporter.is_done(), "nobody is asked for any more");
        let rows: u64 = proxy.rows.iter().map(|row| row.input_tokens + row.output_tokens).sum();
        prop_assert_eq!(proxy.charged, rows, "what is charged is in the rows");
    }

    /// However a body is cut into chunks, the same is read and the same bytes arrive.
    #[test]
    fn any_split_of_an_answer_is_read_alike(cuts in prop::collection::vec(1usize..40, 0..20), events in 0usize..6) {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n".repeat(events);
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":9}}\n\n";
        let whole = format!("{event}{usage}data: [DONE]\n\n").into_bytes();
        let mut proxy = Proxy::new();
        let mut host = request().answers("200", "text/event-stream");
        host.body = br#"{"model":"smol","stream":true}"#.to_vec();
        let mut stream = proxy.sent(&host);
        proxy.on(&mut stream, Callback::AnswerHeaders { end: false }, &host);
        let (mut rest, mut passed) = (whole.as_slice(), Vec::new());
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (chunk, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            host.chunk = chunk.to_vec();
            let end = later.is_empty();
            let effects = proxy.on(&mut stream, Callback::AnswerBody { size: chunk.len(), end }, &host);
            let instead = effects.into_iter().find_map(|effect| match effect {
                Effect::ResponseBody(body) => Some(body),
                _ => None,
            });
            passed.extend(instead.unwrap_or_else(|| chunk.to_vec()));
            if end { break }
        }
        prop_assert_eq!(String::from_utf8(passed).unwrap(), format!("{event}data: [DONE]\n\n"));
        let rows = ended(&mut proxy, stream, &host);
        prop_assert_eq!((rows[0].input_tokens, rows[0].output_tokens, rows[0].estimated_requests), (3, 9, 0));
    }
}
