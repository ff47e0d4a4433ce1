//! Exchanges from their first header to their last byte, with shared data in memory and a ledger that
//! answers when the test says so.

mod caller;
mod signals;
mod workload;

use tollgate_proto::v1 as wire;

use super::*;
use crate::{
    config::{Config, Stage},
    fixture,
    headers::Headers,
    host::FakeShared,
    worker::Worker,
};

/// A worker and its surroundings.
struct World {
    shared: FakeShared,
    worker: Worker,
    config: Config,
    body: Vec<u8>,
    now: u64,
}

/// A request's body, as Envoy holds it.
struct Held<'a>(&'a [u8]);

impl RequestBody for Held<'_> {
    fn read(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// What became of a request, as a client and a backend see it.
#[derive(Debug, Default)]
struct Seen {
    target: Option<String>,
    sent_headers: Vec<(String, String)>,
    removed: Vec<String>,
    body: Option<Vec<u8>>,
    /// Path and authority, where the route rewrites them.
    rewritten: Option<(Option<String>, Option<String>)>,
    reply: Option<Replied>,
    answer_headers: Vec<(&'static str, String)>,
    answer_headers_removed: Vec<String>,
    answer: Vec<u8>,
    fields: Vec<(&'static str, String)>,
    rang: bool,
    resumed: bool,
}

/// Status, headers, body.
type Replied = (u32, Vec<(&'static str, String)>, serde_json::Value);

const CHAT: &str = "/v1/chat/completions";
/// An answer that tells its usage.
const EXACT: &str = r#"{"usage":{"prompt_tokens":8,"completion_tokens":5}}"#;

// === impl World ===

impl World {
    /// The gateway of the fixture, changed by `mode`.
    fn new(mode: impl FnOnce(&mut wire::RequestStage)) -> Self {
        let mut stage = fixture::stage();
        mode(&mut stage);
        let shared = fixture::shared();
        let mut worker = Worker::default();
        worker.introduce(&shared, || "proxy".into(), 1_000_000);
        Self { shared, worker, config: fixture::config(stage), body: Vec::new(), now: 1_000_000 }
    }

    fn step(&mut self, exchange: Exchange, event: Event<'_>, seen: &mut Seen) -> Exchange {
        let Stage::Request(stage) = &self.config.stage else { panic!() };
        let request = Held(&self.body);
        let mut desk = self.worker.desk(stage, &self.shared, &request, self.now);
        let (exchange, effects) = exchange.step(event, &mut desk);
        for effect in effects {
            match effect {
                Effect::RemoveRequestHeader(name) => seen.removed.push(name),
                Effect::SetRequestHeader(name, value) => seen.sent_headers.push((name.to_owned(), value.into_owned())),
                Effect::Target(cluster) => seen.target = Some(cluster.to_string()),
                Effect::Plan(_) => {}
                Effect::RemoveResponseHeader(name) => seen.answer_headers_removed.push(name),
                Effect::Rewrite { path, authority } => seen.rewritten = Some((path, authority)),
                Effect::RequestBody(body) => seen.body = Some(body),
                Effect::Ring => seen.rang = true,
                Effect::Resume => seen.resumed = true,
                Effect::Reply { status, headers, body } => {
                    seen.reply = Some((status, headers, serde_json::from_slice(&body).unwrap()));
                }
                Effect::SetResponseHeader(name, value) => seen.answer_headers.push((name, value)),
                Effect::ResponseBody(body) => seen.answer = body,
                Effect::Field(name, value) => seen.fields.push((name, value)),
            }
        }
        exchange
    }

    fn arrive(&mut self, path: &str, key: &str, seen: &mut Seen) -> Exchange {
        let key = format!("Bearer {key}");
        let more = [("authorization", key.as_str()), ("x-tollgate-consumer", "root"), ("accept-encoding", "gzip")];
        self.arrive_with("POST", path, &more, seen)
    }

    fn arrive_with(&mut self, method: &str, path: &str, more: &[(&str, &str)], seen: &mut Seen) -> Exchange {
        self.arrive_on(Some(fixture::CHAT), method, path, more, seen)
    }

    fn arrive_on(
        &mut self,
        route: Option<&str>,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        seen: &mut Seen,
    ) -> Exchange {
        let headers: Headers = [(":method", method), (":path", path)].iter().chain(more).copied().collect();
        let head = Head { headers: &headers, route, identity: None, metadata: None };
        self.step(Exchange::New, Event::RequestHeaders { head, end: false }, seen)
    }

    fn ask_at(&mut self, path: &str, body: &str, seen: &mut Seen) -> Exchange {
        let exchange = self.arrive(path, "good", seen);
        self.body = body.as_bytes().to_vec();
        self.step(exchange, Event::RequestEnd, seen)
    }

    fn ask(&mut self, body: &str, seen: &mut Seen) -> Exchange {
        let exchange = self.arrive(CHAT, "good", seen);
        self.body = body.as_bytes().to_vec();
        self.step(exchange, Event::RequestEnd, seen)
    }

    /// The call that is due to the ledger.
    fn call(&mut self) -> Option<wire::SyncRequest> {
        self.worker.next_call(&self.shared, self.now).cloned()
    }

    fn ledger(&mut self, call: &wire::SyncRequest, granted: u64, remaining: u64) {
        let grant = |_| wire::Grant {
            window_end: 9_000,
            granted,
            limit: 1000,
            remaining,
            exhausted: granted + remaining == 0,
            ..Default::default()
        };
        let grants = call.wants.iter().map(grant).collect();
        let answer = wire::SyncResponse { sequence: call.sequence, grants, lease_ttl_ms: 30_000, now: 0 };
        self.worker.ledger_answered(&self.shared, answer, self.now);
    }

    /// A request that is on its way, from a lease of 600 tokens.
    fn sent(&mut self, body: &str, seen: &mut Seen) -> Exchange {
        let waiting = self.ask(body, seen);
        assert!(waiting.wants() == Wants::Ledger && seen.rang, "{waiting:?}");
        let call = self.call().unwrap();
        self.ledger(&call, 600, 400);
        let sent = self.step(waiting, Event::LedgerAnswered, seen);
        assert!(seen.resumed && sent.wants() == Wants::AnswerHeaders, "{sent:?}");
        sent
    }

    fn answer(&mut self, exchange: Exchange, status: &str, kind: &str, chunks: &[&str], seen: &mut Seen) -> Exchange {
        let headers = Headers::from_iter([(":status", status), ("content-type", kind)]);
        let head = AnswerHead { headers: &headers, origin: Origin::Backend };
        let mut exchange = self.step(exchange, Event::ResponseHeaders { head, end: false }, seen);
        for chunk in chunks {
            let chunk = &chunk.as_bytes().to_vec();
            exchange = self.step(exchange, Event::ResponseBody { chunk, end: false }, seen);
        }
        exchange
    }

    /// What the ledger is told at the end of an exchange.
    fn end(&mut self, exchange: Exchange, ending: Ending) -> wire::SyncRequest {
        let closed = self.step(exchange, Event::Ended(ending), &mut Seen::default());
        assert!(matches!(closed, Exchange::Closed));
        self.call().unwrap_or_default()
    }
}

fn code(seen: &Seen) -> (u32, String) {
    let (status, _, body) = seen.reply.as_ref().unwrap();
    (*status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn world() -> World {
    World::new(|_| {})
}

/// Without the key of its scope a request would lose its route: Envoy looks for it again when headers change.
/// Two workers have the first requests of a new budget, and one of them is interrupted while it creates the lease.
#[test]
fn a_request_waits_while_another_worker_is_at_the_lease() {
    let (mut world, mut seen) = (World::new(|_| {}), Seen::default());
    world.shared.lock(world.now);
    let waiting = world.ask(r#"{"model":"smol"}"#, &mut seen);
    assert!(waiting.wants() == Wants::Ledger && seen.rang, "{waiting:?}");
    world.shared.lock(0);
    let call = world.call().unwrap();
    world.ledger(&call, 600, 400);
    let sent = world.step(waiting, Event::LedgerAnswered, &mut seen);
    assert!(seen.resumed && sent.wants() == Wants::AnswerHeaders, "{sent:?}");
}

/// That worker died there. The lock of the dead one is broken in the time that a request waits.
#[test]
fn a_request_that_waited_for_another_worker_is_tried_again_before_it_is_refused() {
    let (mut world, mut seen) = (World::new(|_| {}), Seen::default());
    world.shared.lock(world.now);
    let waiting = world.ask(r#"{"model":"smol"}"#, &mut seen);
    let call = world.call().unwrap();
    world.ledger(&call, 600, 400);
    let waiting = world.step(waiting, Event::LedgerAnswered, &mut seen);
    assert!(waiting.wants() == Wants::Ledger, "{waiting:?}");
    let back = world.call().unwrap();
    assert_eq!(back.settlements.iter().map(|settled| settled.released).collect::<Vec<_>>(), [600], "nothing is lost");
    world.shared.lock(0);
    world.ledger(&back, 600, 400);
    let sent = world.step(waiting, Event::LedgerAnswered, &mut seen);
    assert!(seen.resumed && sent.wants() == Wants::AnswerHeaders, "{sent:?}");
}

#[test]
fn the_key_of_the_scope_stays() {
    let mut seen = Seen::default();
    let more = [("x-tollgate-scope", "default/llm/8080"), ("x-tollgate-scope-other", "")];
    world().arrive_with("POST", CHAT, &more, &mut seen);
    assert_eq!(seen.removed, ["x-tollgate-scope-other"]);
}

#[test]
fn nothing_of_the_clients_key_goes_on() {
    let mut seen = Seen::default();
    world().arrive(CHAT, "good", &mut seen);
    assert_eq!(seen.removed, ["x-tollgate-consumer", "authorization"]);
}

#[test]
fn the_backend_is_told_what_the_body_is() {
    let json = ("content-type", "application/json");
    for (more, sent) in [(&[][..], &[json][..]), (&[json], &[])] {
        let mut seen = Seen::default();
        let headers = [&[("x-api-key", "good")], more].concat();
        world().arrive_with("POST", CHAT, &headers, &mut seen);
        let sent: Vec<_> = sent.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(seen.sent_headers, sent, "{more:?}");
    }
}

/// The route has the most retries of the pool.
#[test]
fn a_model_with_fewer_retries_says_so() {
    for (retries, of_another, said) in [(1, 0, None), (1, 3, Some("1")), (0, 2, Some("0")), (2, 2, None)] {
        let mut world = World::new(|stage| {
            let models = &mut stage.pools[0].models;
            models[0].retries = retries;
            models.push(wire::Model { name: "other".into(), retries: of_another, ..models[0].clone() });
        });
        let mut seen = Seen::default();
        world.sent(r#"{"model":"smol","max_tokens":50}"#, &mut seen);
        let header =
            |name| seen.sent_headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
        assert_eq!(header("x-envoy-max-retries"), said, "{retries} {of_another}");
        assert_eq!(
            header("accept-encoding"),
            Some("identity"),
            "Envoy chooses the cluster by a change after the target"
        );
    }
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_refused() {
    let json = ("content-type", "application/json");
    let form = ("content-type", "multipart/form-data; boundary=x");
    for (method, path, more, taken) in [
        ("POST", CHAT, &[json][..], true),
        ("POST", "/v1/audio/transcriptions", &[form], true),
        ("POST", "/v1/chat/complet%69ons", &[], true),
        ("POST", "/v1/chat%2fcompletions", &[], false),
        ("POST", "/v1/..%2f..%2fadmin", &[], false),
        ("POST", "/v1/chat/completions;a", &[], false),
        ("POST", "/v1/models/org%2Fname", &[], false),
        ("POST", CHAT, &[form], false),
        ("POST", CHAT, &[json, json], false),
        ("POST", CHAT, &[("content-type", "application/x-www-form-urlencoded")], false),
        ("POST", CHAT, &[("content-encoding", "identity"), ("content-encoding", "gzip")], false),
        ("GET", CHAT, &[], false),
        ("DELETE", "/v1/responses/resp_1", &[], false),
        ("GET", "/v1/realtime?model=smol", &[("upgrade", "websocket")], false),
        ("PUT", CHAT, &[json], false),
    ] {
        let mut seen = Seen::default();
        let state = world().arrive_with(method, path, &[&[("x-api-key", "good")], more].concat(), &mut seen);
        assert_eq!(state.wants() == Wants::RequestBody, taken, "{method} {path} {more:?}");
        if !taken {
            assert_eq!(code(&seen), (400, "invalid_request_error".into()), "{method} {path} {more:?}");
        }
    }
    // The path of Anthropic's API is enough, also without its version.
    let mut seen = Seen::default();
    world().arrive_with("POST", "/v1/messages", &[("x-api-key", "wrong")], &mut seen);
    assert_eq!(seen.reply.unwrap().2["type"], "error");
    let mut seen = Seen::default();
    let anthropic = [("x-api-key", "good"), ("anthropic-version", "2023-06-01")];
    world().arrive_with("POST", "/v1/messages%2fcount_tokens", &anthropic, &mut seen);
    assert_eq!(seen.reply.unwrap().2["type"], "error", "in the shape of the client's API");
}

#[test]
fn a_models_name_with_a_slash_is_looked_up() {
    let mut seen = Seen::default();
    world().arrive_with("GET", "/v1/models/org%2Fname", &[("x-api-key", "good")], &mut seen);
    assert_eq!(code(&seen), (404, "model_not_found".into()));
    let mut world = World::new(|stage| stage.pools[0].models[0].name = "org/name".into());
    let mut seen = Seen::default();
    world.arrive_with("GET", "/v1/models/org%2Fname", &[("x-api-key", "good")], &mut seen);
    let (status, _, body) = seen.reply.unwrap();
    assert_eq!((status, &body["id"]), (200, &"org/name".into()));
}

#[test]
fn two_keys_are_nobodys_and_one_key_twice_is_one() {
    let bearer = ("authorization", "Bearer good");
    for (keys, refused) in [
        (&[bearer, ("x-api-key", "good"), ("api-key", "good")][..], false),
        (&[bearer, ("x-api-key", "other")], true),
        (&[("x-api-key", "good"), ("x-api-key", "nonsense")], true),
    ] {
        let mut seen = Seen::default();
        let state = world().arrive_with("POST", CHAT, keys, &mut seen);
        assert_eq!(state.wants() == Wants::RequestBody, !refused, "{keys:?}");
        assert_eq!(seen.removed.len(), keys.len(), "{keys:?}");
        if refused {
            assert_eq!(code(&seen), (401, "invalid_api_key".into()));
        }
    }
}

#[test]
fn a_known_key_never_passes_a_plain_route() {
    let known = [("authorization", "Bearer good"), ("x-api-key", "the-app's-own"), ("api-key", "other")];
    for route in [Some(fixture::PLAIN), None] {
        let mut seen = Seen::default();
        let state = world().arrive_on(route, "GET", "/a;b%2f..", &known, &mut seen);
        assert!(matches!(state, Exchange::Passing));
        assert_eq!(seen.removed, ["authorization", "api-key"]);
    }
    let mut seen = Seen::default();
    world().arrive_on(Some(fixture::PLAIN), "GET", "/", &[("authorization", "Bearer theirs,Bearer good")], &mut seen);
    assert_eq!(seen.removed, ["authorization"]);
    // Before the keys are there nobody can tell.
    let (mut world, mut seen) = (world(), Seen::default());
    Table::Empty.write(&world.shared);
    world.arrive_on(Some(fixture::PLAIN), "GET", "/", &[("x-api-key", "good")], &mut seen);
    assert_eq!(code(&seen), (503, "backend_unavailable".into()));
}

#[test]
fn work_whose_usage_never_comes_is_refused_under_a_budget() {
    let background = r#"{"model":"smol","background":true}"#;
    let plain = r#"{"model":"smol"}"#;
    for (path, body, param) in [
        ("/v1/responses", background, Some("background")),
        ("/v1/chat/completions", r#"{"model":"smol","deferred":true}"#, Some("deferred")),
        ("/v1/batches", plain, None),
        ("/v1/videos/", plain, None),
        ("/v1/fine_tuning/jobs", plain, None),
    ] {
        let mut seen = Seen::default();
        world().ask_at(path, body, &mut seen);
        assert_eq!(code(&seen), (400, "invalid_request_error".into()), "{path}");
        let error = &seen.reply.unwrap().2["error"];
        assert_eq!(error["param"].as_str(), param);
        assert!(error["message"].as_str().unwrap().contains("mode Shadow"), "{error}");
        for free in
            [(|stage: &mut wire::RequestStage| stage.limits[0].shadow = true) as fn(&mut wire::RequestStage), |stage| {
                stage.classes[0].limits.clear()
            }]
        {
            let mut seen = Seen::default();
            let sent = World::new(free).ask_at(path, body, &mut seen);
            assert!(sent.wants() == Wants::AnswerHeaders, "{path}");
        }
    }
    let (mut world, mut seen) = (world(), Seen::default());
    world.sent(r#"{"model":"smol","background":false}"#, &mut seen);
}

#[test]
fn each_answer_asked_for_is_reserved() {
    for (members, reserved) in [("", 50), (r#","n":2,"best_of":3"#, 150), (r#","prompt":["a","b"],"n":2"#, 200)] {
        let (mut world, mut seen) = (world(), Seen::default());
        world.ask(&format!(r#"{{"model":"smol","max_tokens":1,"max_completion_tokens":50{members}}}"#), &mut seen);
        let call = world.call().unwrap();
        let least = call.wants[0].least;
        assert!((reserved + 10..reserved + 40).contains(&least), "{members}: {least}");
    }
}

#[test]
fn each_refusal_comes_as_early_as_it_can() {
    let mut seen = Seen::default();
    let refused = world().arrive(CHAT, "bad", &mut seen);
    assert_eq!(code(&seen), (401, "invalid_api_key".into()));
    assert_eq!(refused.request_goes(), Goes::Nowhere);
    for (body, key, expected) in [
        (r#"{"model":"nope"}"#, "good", (404, "model_not_found")),
        (r#"{"model":"smol"}"#, "other", (403, "model_not_allowed")),
        (r#"{"model":"a","model":"b"}"#, "good", (400, "invalid_request_error")),
        ("", "good", (400, "invalid_request_error")),
    ] {
        let (mut world, mut seen) = (world(), Seen::default());
        let reading = world.arrive(CHAT, key, &mut seen);
        world.body = body.as_bytes().to_vec();
        world.step(reading, Event::RequestEnd, &mut seen);
        assert_eq!(code(&seen), (expected.0, expected.1.to_owned()), "{body}");
        assert_eq!(seen.target, None);
    }
}

#[test]
fn without_keys_or_configuration_it_is_503_and_never_401() {
    let (mut world, mut seen) = (world(), Seen::default());
    Table::Empty.write(&world.shared);
    world.arrive(CHAT, "good", &mut seen);
    assert_eq!(code(&seen), (503, "backend_unavailable".into()));
    for (route, passes) in
        [(Some(fixture::UNKNOWN), false), (Some("unknown"), false), (Some(fixture::PLAIN), true), (None, true)]
    {
        let mut seen = Seen::default();
        let head = Head { headers: &Headers::default(), route, identity: None, metadata: None };
        let state = world.step(Exchange::New, Event::RequestHeaders { head, end: false }, &mut seen);
        assert_eq!(matches!(state, Exchange::Passing), passes, "{route:?}");
    }
}

#[test]
fn the_routes_name_says_what_its_requests_are_held_to() {
    let refused = |route: &str| {
        let mut seen = Seen::default();
        world().arrive_on(Some(route), "POST", CHAT, &[("x-api-key", "good")], &mut seen);
        code(&seen)
    };
    assert_eq!(refused(fixture::CLOSED), (503, "policy_invalid".into()));
    for unknown in [fixture::UNKNOWN, "chat", "c0", "c0/httproute/default/chat", &fixture::CHAT.replace("0/m", "x/m")] {
        assert_eq!(refused(unknown), (503, "backend_unavailable".into()), "{unknown}");
    }
}

/// Each has its own budget and its own rows, whatever the route's rule and class.
#[test]
fn the_routes_name_says_whose_budget_and_usage_it_is() {
    let scope = vec![wire::ScopePart { part: Some(wire::scope_part::Part::Route(true)) }];
    let mut world = World::new(|stage| {
        stage.limits[0].scope = scope;
        stage.limits[0].shadow = true;
        stage.classes.push(wire::Class { id: "c2".into(), ..stage.classes[0].clone() });
    });
    for (route, told) in [
        ("c0/httproute/default/chat/rule/0/match/0", "chat"),
        ("c2/httproute/default/chat/rule/1/match/2", "chat"),
        ("c2/httproute/tenant/chat/rule/0/match/0", "tenant/chat"),
    ] {
        let mut seen = Seen::default();
        let reading = world.arrive_on(Some(route), "POST", CHAT, &[("x-api-key", "good")], &mut seen);
        world.body = br#"{"model":"smol"}"#.to_vec();
        let sent = world.step(reading, Event::RequestEnd, &mut seen);
        let answering = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
        let report = world.end(answering, Ending::default());
        let (usage, settlements) = (&report.usage[..], &report.settlements[..]);
        let ([usage], [settled]) = (usage, settlements) else { panic!("{report:?}") };
        assert_eq!((usage.route.as_str(), &*settled.bucket.clone().unwrap().scope), (told, &[told.to_owned()][..]));
        world.ledger(&report, 0, 0);
    }
}

/// Envoy has the new configuration of a filter before it has the routes that name the new classes.
#[test]
fn a_class_of_the_configuration_before_serves_its_routes_until_they_change() {
    let mut world = world();
    let Stage::Request(before) = &world.config.stage else { panic!() };
    world.worker.known.add(&before.classes);
    let mut now = fixture::stage();
    now.classes = vec![wire::Class { id: "c9".into(), pool: Some(0), ..Default::default() }];
    world.config = fixture::config(now);
    for (route, serves) in
        [(fixture::CHAT, true), (&fixture::CHAT.replace("c0", "c9"), true), (fixture::UNKNOWN, false)]
    {
        let mut seen = Seen::default();
        let state = world.arrive_on(Some(route), "POST", CHAT, &[("x-api-key", "good")], &mut seen);
        assert_eq!(state.wants() == Wants::RequestBody, serves, "{route}");
    }
    let mut seen = Seen::default();
    world.arrive_on(Some(fixture::CLOSED), "POST", CHAT, &[("x-api-key", "good")], &mut seen);
    assert_eq!(code(&seen), (503, "policy_invalid".into()), "what was closed stays closed");
}

#[test]
fn a_request_waits_for_its_lease_and_goes_to_its_backend() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol","max_tokens":50}"#, &mut seen);
    assert_eq!(seen.target.as_deref(), Some("backend/default/a"));
    assert_eq!(seen.body.as_deref(), Some(br#"{"model":"smol-0","max_tokens":50}"#.as_slice()));
    assert!(seen.sent_headers.contains(&("accept-encoding".into(), "identity".into())));
    let body = r#"{"usage":{"prompt_tokens":8,"completion_tokens":5}}"#;
    let answering = world.answer(sent, "200", "application/json", &[&body[..10], &body[10..]], &mut seen);
    assert!(seen.answer_headers.contains(&("x-ratelimit-limit-tokens", "1000".into())));
    let report = world.end(answering, Ending { cluster: Some("backend/default/b".into()), ..Ending::default() });
    let [usage] = report.usage.as_slice() else { panic!("{report:?}") };
    assert_eq!((usage.backend.as_str(), usage.input_tokens, usage.output_tokens), ("b", 8, 5));
    assert_eq!((usage.consumer.as_str(), usage.route.as_str(), usage.estimated_requests), ("app", "chat", 0));
    let [settled] = report.settlements.as_slice() else { panic!("{report:?}") };
    assert_eq!((settled.from_lease, settled.charged), (13, 13));
}

#[test]
fn inside_the_lease_nobody_waits() {
    let (mut world, mut seen) = (world(), Seen::default());
    world.sent(r#"{"model":"smol","max_tokens":5}"#, &mut seen);
    let mut second = Seen::default();
    let sent = world.ask(r#"{"model":"smol","max_tokens":5}"#, &mut second);
    assert!(sent.wants() == Wants::AnswerHeaders && !second.rang);
}

#[test]
fn an_exhausted_budget_is_429() {
    let (mut world, mut seen) = (world(), Seen::default());
    let waiting = world.ask(r#"{"model":"smol"}"#, &mut seen);
    let call = world.call().unwrap();
    world.ledger(&call, 0, 0);
    world.step(waiting, Event::LedgerAnswered, &mut seen);
    assert_eq!(code(&seen), (429, "rate_limit_exceeded".into()));
    let (_, headers, _) = seen.reply.unwrap();
    assert!(headers.contains(&("retry-after", "8000".into())), "{headers:?}");
    assert!(headers.contains(&("x-ratelimit-remaining-tokens", "0".into())), "{headers:?}");
}

#[test]
fn without_the_ledger_the_policy_decides() {
    for (allow, reply) in [(false, Some(503)), (true, None)] {
        let mut world = World::new(|stage| stage.limits[0].allow_without_ledger = allow);
        let mut seen = Seen::default();
        let waiting = world.ask(r#"{"model":"smol"}"#, &mut seen);
        world.now += PATIENCE_MS - 1;
        let waiting = world.step(waiting, Event::Tick, &mut seen);
        assert!(waiting.wants() == Wants::Ledger);
        world.now += 1;
        world.step(waiting, Event::Tick, &mut seen);
        assert_eq!((seen.reply.map(|reply| reply.0), seen.resumed), (reply, allow));
    }
}

#[test]
fn a_shadow_limit_counts_and_never_holds() {
    let mut world = World::new(|stage| stage.limits[0].shadow = true);
    let mut seen = Seen::default();
    let sent = world.ask(r#"{"model":"smol"}"#, &mut seen);
    let body = r#"{"usage":{"prompt_tokens":8,"completion_tokens":5}}"#;
    let answering = world.answer(sent, "200", "application/json", &[body], &mut seen);
    let report = world.end(answering, Ending::default());
    let [settled] = report.settlements.as_slice() else { panic!("{report:?}") };
    assert_eq!((settled.from_lease, settled.charged, settled.window_start), (0, 13, 0));
}

#[test]
fn a_client_that_leaves_is_charged_an_estimate() {
    let stream = r#"{"model":"smol","stream":true,"messages":["0123456789012345678901234567890123456789"]}"#;
    let (mut world, mut seen) = (world(), Seen::default());
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let sent = world.sent(stream, &mut seen);
    let answering = world.answer(sent, "200", "text/event-stream", &[event, event, event], &mut seen);
    let report = world.end(answering, Ending::default());
    assert_eq!((report.usage[0].requests, report.usage[0].estimated_requests), (1, 1));
    assert_eq!(report.usage[0].output_tokens, 256, "nothing is known of the model: what was expected");
    assert!(report.usage[0].input_tokens > 10);
    assert!(report.settlements[0].charged > 13);
    world.ledger(&report, 0, 400);

    let exact =
        r#"{"choices":[{"message":{"content":"two words"}}],"usage":{"prompt_tokens":20,"completion_tokens":2}}"#;
    let sent = world.ask(stream, &mut seen);
    let answering = world.answer(sent, "200", "application/json", &[exact], &mut seen);
    world.step(answering, Event::Ended(Ending::default()), &mut seen);
    let sent = world.ask(stream, &mut seen);
    let answering = world.answer(sent, "200", "text/event-stream", &[event, event, event], &mut seen);
    let report = world.end(answering, Ending::default());
    let [said, seen] = report.usage.as_slice() else { panic!("{report:?}") };
    assert_eq!((said.requests, said.estimated_requests, said.output_tokens), (1, 0, 2), "what was said");
    assert_eq!((seen.requests, seen.estimated_requests, seen.output_tokens), (1, 1, 3), "what was seen");
}

#[test]
fn what_no_backend_answered_costs_nothing() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol"}"#, &mut seen);
    let headers = Headers::from_iter([(":status", "503")]);
    let head = AnswerHead { headers: &headers, origin: Origin::Envoy };
    let replaced = world.step(sent, Event::ResponseHeaders { head, end: false }, &mut seen);
    let replaced = world.step(replaced, Event::ResponseBody { chunk: &b"upstream".to_vec(), end: true }, &mut seen);
    let told: serde_json::Value = serde_json::from_slice(&seen.answer).unwrap();
    assert_eq!(told["error"]["code"], "backend_unavailable");
    let report = world.end(replaced, Ending::default());
    assert!(costs_nothing(&report) && report.settlements.is_empty(), "{report:?}");
    let mut next = Seen::default();
    let sent = world.ask(r#"{"model":"smol"}"#, &mut next);
    assert!(sent.wants() == Wants::AnswerHeaders, "the reservation is back in the lease");
}

#[test]
fn a_backends_own_error_passes_and_costs_nothing() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol"}"#, &mut seen);
    let answering = world.answer(sent, "429", "application/json", &[r#"{"error":{}}"#], &mut seen);
    assert!(seen.answer.is_empty(), "not replaced");
    assert!(costs_nothing(&world.end(answering, Ending::default())));
}

/// What costs nothing is only measured.
fn costs_nothing(report: &wire::SyncRequest) -> bool {
    report.usage.iter().all(|row| {
        let counts = [row.requests, row.estimated_requests, row.input_tokens, row.output_tokens];
        counts == [0; 4] && row.error_status != 0
    })
}

/// The usage row of an answer with these headers. The answer ended whole or not.
fn row(world: &mut World, headers: &[(&str, &str)], body: &[u8], end: bool) -> wire::Usage {
    let mut seen = Seen::default();
    let sent = world.sent(r#"{"model":"smol","messages":"0123456789012345678901234567890123456789"}"#, &mut seen);
    let headers: Headers = headers.iter().copied().collect();
    let head = AnswerHead { headers: &headers, origin: Origin::Backend };
    let answering = world.step(sent, Event::ResponseHeaders { head, end: false }, &mut seen);
    let answering = world.step(answering, Event::ResponseBody { chunk: &body.to_vec(), end }, &mut seen);
    assert_eq!(seen.answer, b"", "it passes as it is");
    let report = world.end(answering, Ending::default());
    let [usage] = report.usage.as_slice() else { panic!("{report:?}") };
    usage.clone()
}

#[test]
fn a_coded_answer_costs_what_was_reserved() {
    let usage = br#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    for coding in ["gzip", "br", "deflate, gzip"] {
        let headers = [(":status", "200"), ("content-type", "application/json"), ("content-encoding", coding)];
        let usage = row(&mut world(), &headers, usage, true);
        assert!(usage.estimated_requests == 1, "{coding}: its bytes are not what they look like");
        assert!((usage.input_tokens > 10, usage.output_tokens) == (true, 256), "{usage:?}");
    }
    let headers = [(":status", "200"), ("content-type", "application/json"), ("content-encoding", "Identity")];
    assert_eq!(row(&mut world(), &headers, usage, true).estimated_requests, 0);
}

#[test]
fn a_json_answer_that_was_cut_off_costs_what_is_usual() {
    let headers = [(":status", "200"), ("content-type", "application/json")];
    let cut = br#"{"choices":[{"message":{"content":"a fe"#;
    let usage = row(&mut world(), &headers, cut, false);
    assert!(usage.estimated_requests == 1 && usage.input_tokens > 10 && usage.output_tokens == 256, "{usage:?}");
}

#[test]
fn large_chunks_are_read_in_slices_and_put_together_again() {
    let text = "word ".repeat(60_000);
    let events = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":9}}}}\n\ndata: [DONE]\n\n"
    );
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol","stream":true}"#, &mut seen);
    let answering = world.answer(sent, "200", "text/event-stream", &[&events], &mut seen);
    let given = String::from_utf8(std::mem::take(&mut seen.answer)).unwrap();
    let at = events.find("data: {\"choices\":[],").unwrap();
    assert_eq!(given, [&events[..at], "data: [DONE]\n\n"].concat());
    let report = world.end(answering, Ending::default());
    let [usage] = report.usage.as_slice() else { panic!("{report:?}") };
    assert_eq!((usage.requests, usage.estimated_requests, usage.output_tokens), (1, 0, 9));
}

#[test]
fn the_last_text_waits_where_a_limit_is_enforced_only() {
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    for (shadow, given) in [(false, ""), (true, event)] {
        let mut world = World::new(|stage| stage.limits[0].shadow = shadow);
        let mut seen = Seen::default();
        let body = r#"{"model":"smol","stream":true,"stream_options":{"include_usage":true}}"#;
        let sent = if shadow { world.ask(body, &mut seen) } else { world.sent(body, &mut seen) };
        let headers = Headers::from_iter([(":status", "200"), ("content-type", "text/event-stream")]);
        let head = AnswerHead { headers: &headers, origin: Origin::Backend };
        let answering = world.step(sent, Event::ResponseHeaders { head, end: false }, &mut seen);
        seen.answer = event.into();
        let answering =
            world.step(answering, Event::ResponseBody { chunk: &event.as_bytes().to_vec(), end: false }, &mut seen);
        assert_eq!(String::from_utf8_lossy(&seen.answer), given);
        world.step(answering, Event::ResponseBody { chunk: &Vec::new(), end: true }, &mut seen);
        assert_eq!(String::from_utf8_lossy(&seen.answer), event, "the end lets it go");
    }
}

#[test]
fn durations_are_written_as_openai_writes_them() {
    let expected = [
        (0, "0s"),
        (59, "59s"),
        (60, "1m0s"),
        (3599, "59m59s"),
        (3600, "1h0m0s"),
        (5461, "1h31m1s"),
        (90_000, "25h0m0s"),
    ];
    for (seconds, written) in expected {
        assert_eq!(duration(seconds), written);
    }
}

#[test]
fn a_route_rewrites_what_its_only_backend_has_otherwise() {
    for (prefix, authority, rewritten) in
        [("/v1", "a.example", (None, Some("a.example"))), ("/openai", "", (Some("/openai/chat/completions"), None))]
    {
        let mut world = World::new(|stage| {
            stage.backends[0].per_attempt = false;
            stage.backends[0].path_prefix = prefix.into();
            stage.backends[0].authority = authority.into();
            stage.pools[0].models[0].targets.truncate(1);
            stage.classes[0].limits.clear();
        });
        let mut seen = Seen::default();
        world.ask_at("/v1/chat/completions?a=b", r#"{"model":"smol"}"#, &mut seen);
        assert!(seen.target.is_some());
        let expected = (rewritten.0.map(str::to_owned), rewritten.1.map(str::to_owned));
        assert_eq!(seen.rewritten, Some(expected));
    }
}

#[test]
fn the_asked_name_is_told_where_the_pool_has_a_pattern() {
    let mut world = World::new(|stage| {
        let target = wire::Target { backend: 0, weight: 1, ..Default::default() };
        let model = wire::Model { name: "gpt-".into(), prefix: true, targets: vec![target], ..Default::default() };
        stage.pools[0].models.push(model);
        stage.classes[0].limits.clear();
    });
    let long = format!("gpt-{}", "\u{e4}".repeat(40));
    for (asked, told, model) in [("smol", "", "smol"), ("gpt-mine", "gpt-mine", "gpt-*"), (&long, &long[..64], "gpt-*")]
    {
        let mut seen = Seen::default();
        let sent = world.ask(&format!(r#"{{"model":"{asked}"}}"#), &mut seen);
        let answering = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
        let report = world.end(answering, Ending::default());
        let [row] = report.usage.as_slice() else { panic!("{report:?}") };
        assert_eq!((row.asked_model.as_str(), row.model.as_str()), (told, model));
        world.ledger(&report, 0, 0);
    }
}

#[test]
fn requests_and_their_tokens_are_counted() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol","max_tokens":50}"#, &mut seen);
    let answering = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
    world.end(answering, Ending::default());
    let counters = &world.worker.counters;
    assert_eq!((counters.requests, counters.input_tokens, counters.output_tokens, counters.estimated), (1, 8, 5, 0));
    world.arrive_on(Some(fixture::PLAIN), "POST", CHAT, &[], &mut seen);
    assert_eq!(world.worker.counters.requests, 1, "only those to models");

    let sent = world.ask(r#"{"model":"smol","max_tokens":5}"#, &mut seen);
    let answering = world.answer(sent, "200", "application/json", &["{"], &mut seen);
    world.end(answering, Ending::default());
    let counters = &world.worker.counters;
    assert_eq!((counters.requests, counters.output_tokens, counters.estimated), (2, 10, 1));
    assert!(counters.input_tokens > 8);
}

#[test]
fn a_key_is_valid_until_its_last_second_is_over() {
    for (not_after, refused) in [(0, false), (1000, false), (999, true)] {
        let mut world = world();
        let key = wire::ApiKey {
            consumer: "app".into(),
            namespace: "default".into(),
            all_models: true,
            not_after,
            ..Default::default()
        };
        let record = crate::key::record(1, &prost::Message::encode_to_vec(&key));
        world.shared.set(&crate::key::KeyHash::of(b"old").record(), &record, None).unwrap();
        world.now = 1_000_999;
        let mut seen = Seen::default();
        world.arrive(CHAT, "old", &mut seen);
        assert_eq!(seen.reply.map(|reply| reply.0), refused.then_some(401), "{not_after}");
    }
}

#[test]
fn leases_are_kept_alive_as_long_as_a_request_runs() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol"}"#, &mut seen);
    world.worker.touched.clear();
    world.now += 20_000;
    assert!(world.call().is_some(), "its bucket may have been out of sight for long");
    world.ledger(&wire::SyncRequest { sequence: 2, ..Default::default() }, 0, 0);
    world.step(sent, Event::Ended(Ending::default()), &mut seen);
    world.call();
    world.ledger(&wire::SyncRequest { sequence: 3, ..Default::default() }, 0, 0);
    world.worker.touched.clear();
    world.now += 20_000;
    assert_eq!(world.call(), None, "nothing is held any more");
}

/// The lease expired while the request ran, so its reservation cannot go back into it.
#[test]
fn a_free_request_of_an_expired_lease_gives_its_tokens_back_to_the_ledger() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol","max_tokens":50}"#, &mut seen);
    world.now += 40_000;
    let call = world.call().unwrap();
    world.ledger(&call, 0, 0);
    let answering = world.answer(sent, "400", "application/json", &["{}"], &mut seen);
    let report = world.end(answering, Ending::default());
    let [settled] = report.settlements.as_slice() else { panic!("{report:?}") };
    assert!(settled.from_lease > 50 && settled.charged == 0, "{settled:?}");
}

/// What is taken out of a stream makes it shorter than its backend said.
#[test]
fn a_stream_that_gets_shorter_says_no_length() {
    for (asks, removed) in [("", true), (r#","stream_options":{"include_usage":true}"#, false)] {
        let (mut world, mut seen) = (world(), Seen::default());
        let sent = world.sent(&format!(r#"{{"model":"smol","stream":true{asks}}}"#), &mut seen);
        let headers =
            Headers::from_iter([(":status", "200"), ("content-type", "text/event-stream"), ("content-length", "400")]);
        let head = AnswerHead { headers: &headers, origin: Origin::Backend };
        world.step(sent, Event::ResponseHeaders { head, end: false }, &mut seen);
        assert_eq!(seen.answer_headers_removed.iter().any(|name| name == "content-length"), removed, "{asks}");
    }
}

#[test]
fn what_an_account_has_left_is_not_passed_on() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(r#"{"model":"smol"}"#, &mut seen);
    let headers = Headers::from_iter([
        (":status", "200"),
        ("content-type", "application/json"),
        ("x-ratelimit-remaining-requests", "7"),
        ("anthropic-ratelimit-tokens-remaining", "8"),
        ("x-tollgate-anything", "9"),
    ]);
    let head = AnswerHead { headers: &headers, origin: Origin::Backend };
    world.step(sent, Event::ResponseHeaders { head, end: false }, &mut seen);
    assert_eq!(
        seen.answer_headers_removed,
        ["x-ratelimit-remaining-requests", "anthropic-ratelimit-tokens-remaining", "x-tollgate-anything"]
    );
}
