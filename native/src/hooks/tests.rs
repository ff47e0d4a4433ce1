//! The module as Envoy drives it, against the Envoy of `abi::fake`.

use std::sync::{MutexGuard, mpsc};
use std::time::{Duration, Instant};

use prost::Message as _;
use tollgate_proto::v1 as wire;

use super::{
    calls::*, connection::*, envoy_dynamic_module_on_http_filter_config_destroy as destroy_config,
    envoy_dynamic_module_on_http_filter_config_new as new_config,
    envoy_dynamic_module_on_network_filter_config_destroy as destroy_network_config,
    envoy_dynamic_module_on_network_filter_config_new as new_network_config, http::*,
};
use crate::{
    abi::{Attribute, Bytes, Header, Ours, fake},
    grpc, island,
    plugin::{self, Notice},
    shared::RECORDS,
};

const ROUTE: &str = "c0/httproute/default/chat/rule/0/match/0";
const BODY: &[u8] = br#"{"model":"smol","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &[u8] = br#"{"id":"1","object":"chat.completion","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#;
const LEDGER: &str = "/tollgate.v1.Ledger/Sync";
/// Envoy's object of a configuration, and that of another one.
const CONFIG: usize = 1000;
const OTHER: usize = 2000;
const WORKER: usize = 0;

/// One anonymous pool on two backends, held to this limit.
fn stage(limits: Vec<wire::Limit>) -> wire::RequestStage {
    let target = |backend: u32| wire::Target { backend, weight: 1, priority: backend, ..Default::default() };
    wire::RequestStage {
        control_cluster: "control".into(),
        classes: vec![wire::Class {
            id: "c0".into(),
            pool: Some(0),
            limits: (0..u32::try_from(limits.len()).unwrap()).collect(),
            ..Default::default()
        }],
        pools: vec![wire::Pool {
            name: "chat".into(),
            access: wire::Access::Anonymous.into(),
            models: vec![wire::Model {
                name: "smol".into(),
                targets: vec![target(0), target(1)],
                retries: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        backends: vec![backend("a"), backend("b")],
        limits,
        max_body_bytes: 10_000,
        ..Default::default()
    }
}

fn backend(name: &str) -> wire::Backend {
    wire::Backend {
        name: name.into(),
        cluster: format!("backend/default/{name}"),
        path_prefix: "/v1".into(),
        per_attempt: true,
        ..Default::default()
    }
}

fn daily() -> wire::Limit {
    wire::Limit {
        id: "default/p/daily".into(),
        count: Some(wire::CountWeights { input: 1.0, output: 1.0, ..Default::default() }),
        on_early_end: wire::EarlyEnd::Estimate.into(),
        ..Default::default()
    }
}

/// A new process with this module in a new Envoy, for as long as this is kept.
fn start() -> MutexGuard<'static, ()> {
    let turn = fake::start();
    plugin::forget_all();
    island::all().for_each(|(_, island)| island.end());
    RECORDS.clear();
    turn
}

fn encoded(stage: wire::filter_config::Stage) -> Vec<u8> {
    wire::FilterConfig { stage: Some(stage) }.encode_to_vec()
}

fn configured(config: usize, stage: wire::RequestStage) -> Ours {
    let bytes = encoded(wire::filter_config::Stage::Request(stage));
    new_config(fake::object(config), Bytes::NONE, Bytes::of(&bytes))
}

fn told(config: usize, ours: Ours, notice: Notice) {
    envoy_dynamic_module_on_http_filter_config_scheduled(fake::object(config), ours, number(notice));
}

/// As `Notice` counts them, so that a test says what Envoy would carry.
fn number(notice: Notice) -> u64 {
    (0..4_u64)
        .flat_map(|sort| (0..4).map(move |island| (sort << 32) | island))
        .find(|number| Notice::of_number(*number) == Some(notice))
        .unwrap()
}

/// A request that has come up to the end of its body. Returns what Envoy has of it, and how far it goes.
fn arrived(config: Ours, number: usize) -> (Ours, u32) {
    fake::stream(number, |stream| {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        stream.request = vec![
            header(":method", "POST"),
            header(":path", "/v1/chat/completions"),
            header(":authority", "gateway"),
            header("content-type", "application/json"),
        ];
        stream.has(Attribute::RouteName, ROUTE);
    });
    let filter = fake::object(number);
    let ours = envoy_dynamic_module_on_http_filter_new(config, filter);
    assert_eq!(envoy_dynamic_module_on_http_filter_request_headers(filter, ours, false), 1, "it waits for its body");
    // The first bytes are held already when the last ones come.
    fake::stream(number, |stream| {
        let (held, received) = BODY.split_at(10);
        (stream.held, stream.received) = (held.to_vec(), received.to_vec());
    });
    (ours, envoy_dynamic_module_on_http_filter_request_body(filter, ours, true))
}

fn answered(number: usize, ours: Ours) {
    let filter = fake::object(number);
    fake::stream(number, |stream| {
        stream.answer =
            vec![(":status".into(), b"200".to_vec()), ("content-type".into(), b"application/json".to_vec())];
        stream.chunk = ANSWER.to_vec();
    });
    envoy_dynamic_module_on_http_filter_response_headers(filter, ours, false);
    envoy_dynamic_module_on_http_filter_response_body(filter, ours, true);
    fake::stream(number, |stream| stream.has(Attribute::ClusterName, "backend/default/a"));
    envoy_dynamic_module_on_http_filter_stream_complete(filter, ours);
    envoy_dynamic_module_on_http_filter_destroy(ours);
}

/// The calls to the ledger that this configuration has begun, with their numbers.
fn reports(config: usize) -> Vec<(u64, wire::SyncRequest)> {
    fake::with(|envoy| {
        let calls = envoy.calls.iter().filter(|call| call.config == config);
        let to_ledger = calls.filter(|call| call.headers.contains(&(":path".to_owned(), LEDGER.as_bytes().to_vec())));
        to_ledger.map(|call| (call.id, wire::SyncRequest::decode(&call.sent[5..]).unwrap())).collect()
    })
}

fn answer(config: usize, ours: Ours, call: u64, response: &wire::SyncResponse) {
    let config = fake::object(config);
    let fields = |pairs: &[(&'static str, &'static str)]| -> Vec<Header> {
        pairs.iter().map(|(name, value)| Header::of(name, value.as_bytes())).collect()
    };
    let (began, ended) = (fields(&[(":status", "200")]), fields(&[("grpc-status", "0")]));
    let body = grpc::framed(&response.encode_to_vec());
    let chunk = Bytes::of(&body);
    envoy_dynamic_module_on_http_filter_config_http_stream_headers(config, ours, call, began.as_ptr(), 1, false);
    envoy_dynamic_module_on_http_filter_config_http_stream_data(config, ours, call, &raw const chunk, 1, false);
    envoy_dynamic_module_on_http_filter_config_http_stream_trailers(config, ours, call, ended.as_ptr(), 1);
    envoy_dynamic_module_on_http_filter_config_http_stream_complete(config, ours, call);
}

#[test]
fn a_request_is_led_to_its_backend_and_counted() {
    let _turn = start();
    let config = configured(CONFIG, stage(Vec::new()));
    let (ours, goes) = arrived(config, 1);
    assert_eq!(goes, 0);
    let (target, body) = fake::stream(1, |stream| {
        assert_eq!((stream.chosen_again, &stream.replies), (1, &Vec::new()));
        (stream.state.get("wasm.target").cloned(), [stream.held.clone(), stream.received.clone()].concat())
    });
    assert_eq!(target.as_deref(), Some(b"backend/default/a".as_slice()));
    assert_eq!(body, BODY, "nothing in it is changed");
    answered(1, ours);
    told(CONFIG, config, Notice::Tick);
    let used: Vec<_> = reports(CONFIG).into_iter().flat_map(|(_, report)| report.usage).collect();
    assert_eq!(used.iter().map(|usage| (usage.input_tokens, usage.output_tokens)).collect::<Vec<_>>(), [(7, 5)]);
    assert_eq!(fake::with(|envoy| envoy.counters.get("tollgate.requests").copied()), Some(1));
    destroy_config(config);
    assert!(plugin::all().is_empty());
}

#[test]
fn a_held_request_goes_on_when_the_ledger_has_answered() {
    let _turn = start();
    let config = configured(CONFIG, stage(vec![daily()]));
    told(CONFIG, config, Notice::Tick);
    let (ours, goes) = arrived(config, 1);
    assert_eq!(goes, 1, "the ledger is asked first");
    assert!(fake::with(|envoy| envoy.scheduled.contains(&(CONFIG, number(Notice::Rang { island: WORKER })))));
    told(CONFIG, config, Notice::Rang { island: WORKER });
    let (call, report) = reports(CONFIG).pop().unwrap();
    let want = report.wants.first().unwrap().clone();
    let grant = wire::Grant { bucket: want.bucket, granted: want.wish, ..Default::default() };
    let response = wire::SyncResponse { sequence: report.sequence, grants: vec![grant], ..Default::default() };
    answer(CONFIG, config, call, &response);
    let wakes: Vec<u64> =
        fake::with(|envoy| envoy.scheduled.iter().filter(|(to, _)| *to == 1).map(|(_, event)| *event).collect());
    let [wake] = wakes.as_slice() else { panic!("{wakes:?}") };
    assert_eq!(fake::stream(1, |stream| stream.resumed), 0, "on its own thread, not here");
    envoy_dynamic_module_on_http_filter_scheduled(fake::object(1), ours, *wake);
    assert_eq!(fake::stream(1, |stream| (stream.resumed, stream.replies.len())), (1, 0));
    // Only then the root hears of it.
    let heard = number(Notice::WokenByLedger { island: WORKER });
    assert_eq!(fake::with(|envoy| envoy.scheduled.last().copied()), Some((CONFIG, heard)));
    told(CONFIG, config, Notice::WokenByLedger { island: WORKER });
    answered(1, ours);
    destroy_config(config);
}

#[test]
fn a_held_request_that_leaves_keeps_no_root_waiting() {
    let _turn = start();
    let config = configured(CONFIG, stage(vec![daily()]));
    told(CONFIG, config, Notice::Tick);
    let (ours, _) = arrived(config, 1);
    told(CONFIG, config, Notice::Tick);
    envoy_dynamic_module_on_http_filter_stream_complete(fake::object(1), ours);
    fake::with(|envoy| envoy.scheduled.clear());
    envoy_dynamic_module_on_http_filter_destroy(ours);
    let heard = number(Notice::WokenByTick { island: WORKER });
    assert!(fake::with(|envoy| envoy.scheduled.contains(&(CONFIG, heard))));
    destroy_config(config);
}

#[test]
fn a_call_that_cannot_be_made_is_made_again() {
    let _turn = start();
    let config = configured(CONFIG, stage(Vec::new()));
    fake::with(|envoy| envoy.is_cut_off = true);
    let (ours, _) = arrived(config, 1);
    answered(1, ours);
    told(CONFIG, config, Notice::Tick);
    assert_eq!(reports(CONFIG), []);
    fake::with(|envoy| envoy.is_cut_off = false);
    for _ in 0..6000 {
        told(CONFIG, config, Notice::Tick);
        std::thread::sleep(Duration::from_millis(20));
        if let Some((call, _)) = reports(CONFIG).first() {
            envoy_dynamic_module_on_http_filter_config_http_stream_reset(fake::object(CONFIG), config, *call, 0);
            break;
        }
    }
    let reports = reports(CONFIG);
    assert!(reports.iter().any(|(_, report)| !report.usage.is_empty()), "{reports:?}");
    destroy_config(config);
}

#[test]
fn after_a_panic_requests_are_refused_until_the_worker_begins_anew() {
    let _turn = start();
    let config = configured(CONFIG, stage(vec![daily()]));
    told(CONFIG, config, Notice::Tick);
    let (held, goes) = arrived(config, 1);
    assert_eq!(goes, 1);
    fake::with(|envoy| envoy.scheduled.clear());
    let failed = island::at(WORKER).unwrap().with(|_| -> () { panic!("a fault of the core") });
    assert_eq!(failed, None);

    // The held request is woken for its end, and nobody passes.
    let woken = fake::with(|envoy| envoy.scheduled.iter().find(|(to, _)| *to == 1).copied()).unwrap();
    envoy_dynamic_module_on_http_filter_scheduled(fake::object(1), held, woken.1);
    assert_eq!(fake::stream(1, |stream| stream.replies.first().map(|reply| reply.0)), Some(503));
    let filter = fake::object(2);
    let ours = envoy_dynamic_module_on_http_filter_new(config, filter);
    assert_eq!(envoy_dynamic_module_on_http_filter_request_headers(filter, ours, true), 1);
    assert_eq!(fake::stream(2, |stream| stream.replies.first().map(|reply| reply.0)), Some(503));
    // An answer that is on its way goes on.
    assert_eq!(envoy_dynamic_module_on_http_filter_response_headers(filter, ours, true), 0);
    envoy_dynamic_module_on_http_filter_stream_complete(filter, ours);
    envoy_dynamic_module_on_http_filter_destroy(ours);

    told(CONFIG, config, Notice::Tick);
    let (ours, goes) = arrived(config, 3);
    assert_eq!((goes, fake::stream(3, |stream| stream.replies.len())), (1, 0), "it waits for the ledger");
    envoy_dynamic_module_on_http_filter_stream_complete(fake::object(3), ours);
    envoy_dynamic_module_on_http_filter_destroy(ours);
    // Streams of before are of no worker.
    envoy_dynamic_module_on_http_filter_stream_complete(fake::object(1), held);
    envoy_dynamic_module_on_http_filter_destroy(held);
    destroy_config(config);
}

#[test]
fn no_panic_leaves_a_hook() {
    assert_eq!(super::guarded(7, || panic!("a fault of the edge")), 7);
    assert_eq!(super::guarded(7, || 8), 8);
}

#[test]
fn what_is_no_configuration_is_refused_and_says_why() {
    let _turn = start();
    let refused = new_config(fake::object(CONFIG), Bytes::NONE, Bytes::of(b"\xff"));
    assert!(refused.is_null());
    let warnings = fake::with(|envoy| envoy.warnings.clone());
    assert!(matches!(warnings.as_slice(), [warning] if warning.contains("is not a FilterConfig")), "{warnings:?}");
    assert!(plugin::all().is_empty());
}

#[test]
fn one_configuration_in_two_places_has_one_root_that_moves() {
    let _turn = start();
    let (one, two) = (configured(CONFIG, stage(Vec::new())), configured(OTHER, stage(Vec::new())));
    assert_eq!(plugin::all().len(), 1);
    told(CONFIG, one, Notice::Tick);
    let calls_of = |config| fake::with(|envoy| envoy.calls.iter().filter(|call| call.config == config).count());
    assert!(calls_of(CONFIG) > 0 && calls_of(OTHER) == 0);
    destroy_config(one);
    assert_eq!(plugin::all().len(), 1);
    // What was under way there is lost, and is begun here.
    let (ours, _) = arrived(two, 1);
    answered(1, ours);
    for _ in 0..6000 {
        told(OTHER, two, Notice::Tick);
        if reports(OTHER).iter().any(|(_, report)| !report.usage.is_empty()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(reports(OTHER).iter().any(|(_, report)| !report.usage.is_empty()));
    destroy_config(two);
    assert!(plugin::all().is_empty());
}

#[test]
fn a_newer_configuration_ends_the_calls_of_the_older_ones() {
    let _turn = start();
    let old = configured(CONFIG, stage(Vec::new()));
    told(CONFIG, old, Notice::Tick);
    assert!(fake::with(|envoy| envoy.calls.iter().any(|call| !call.is_reset)));
    let new = configured(OTHER, stage(vec![daily()]));
    let left = fake::with(|envoy| envoy.calls.iter().filter(|call| call.config == CONFIG && !call.is_reset).count());
    assert_eq!(left, 0);
    told(OTHER, new, Notice::Tick);
    let before = fake::with(|envoy| envoy.calls.len());
    told(CONFIG, old, Notice::Tick);
    assert_eq!(fake::with(|envoy| envoy.calls.len()), before, "the older one acts no more");
    destroy_config(old);
    destroy_config(new);
}

/// Runs on a thread of its own, and does not wait for it for ever.
fn ends_soon(run: impl FnOnce() + Send + 'static) {
    let (sender, over) = mpsc::channel();
    std::thread::spawn(move || {
        run();
        sender.send(()).unwrap();
    });
    over.recv_timeout(Duration::from_secs(10)).expect("it waits for a lock of its own");
}

#[test]
fn a_configuration_that_ends_while_it_is_told_holds_up_nobody() {
    let _turn = start();
    let config = configured(CONFIG, stage(Vec::new()));
    let other = configured(OTHER, stage(vec![daily()]));
    let ours = config.expose_provenance();
    fake::meanwhile(CONFIG, move || destroy_config(std::ptr::with_exposed_provenance(ours)));
    let plugin = plugin::of_number(plugin::all().first().unwrap().number).unwrap();
    // As the thread of the time does it.
    ends_soon(move || plugin.tell(Notice::Tick));
    assert_eq!(plugin::all().len(), 1);
    // Others are served on.
    told(OTHER, other, Notice::Tick);
    assert_eq!(arrived(other, 1).1, 1, "it waits for the ledger");
    destroy_config(other);
}

#[test]
fn an_object_that_comes_while_the_last_one_goes_is_served() {
    let _turn = start();
    let ours = configured(CONFIG, stage(vec![daily()])).expose_provenance();
    let (sender, going) = mpsc::channel();
    // The main thread takes in another object of the same bytes.
    fake::meanwhile(OTHER, move || {
        let going = std::thread::spawn(move || destroy_config(std::ptr::with_exposed_provenance(ours)));
        // It may have to wait for us.
        let end = Instant::now() + Duration::from_millis(300);
        while !going.is_finished() && Instant::now() < end {
            std::thread::yield_now();
        }
        sender.send(going).unwrap();
    });
    let other = configured(OTHER, stage(vec![daily()]));
    going.recv().unwrap().join().unwrap();
    assert_eq!(plugin::all().len(), 1);
    told(OTHER, other, Notice::Tick);
    arrived(other, 1);
    assert!(fake::stream(1, |stream| stream.replies.is_empty()), "it waits for the ledger");
    destroy_config(other);
    assert_eq!(plugin::all().len(), 0);
}

#[test]
fn a_request_that_ends_while_it_is_woken_holds_up_nobody() {
    let _turn = start();
    let config = configured(CONFIG, stage(vec![daily()]));
    told(CONFIG, config, Notice::Tick);
    let (held, goes) = arrived(config, 1);
    assert_eq!(goes, 1);
    let (held, ours) = (held.expose_provenance(), config.expose_provenance());
    fake::meanwhile(1, move || envoy_dynamic_module_on_http_filter_destroy(std::ptr::with_exposed_provenance(held)));
    ends_soon(move || told(CONFIG, std::ptr::with_exposed_provenance(ours), Notice::Tick));
    // The root hears that nobody is left to try again.
    let heard = number(Notice::WokenByTick { island: WORKER });
    assert!(fake::with(|envoy| envoy.scheduled.contains(&(CONFIG, heard))));
    destroy_config(config);
}

#[test]
fn an_attempt_that_ended_without_an_answer_is_noted_in_its_request() {
    let _turn = start();
    let config = configured(CONFIG, stage(Vec::new()));
    let attempts = wire::AttemptStage { backends: vec![backend("a"), backend("b")] };
    let attempts = encoded(wire::filter_config::Stage::Attempt(attempts));
    let attempts = new_config(fake::object(OTHER), Bytes::NONE, Bytes::of(&attempts));
    let (ours, _) = arrived(config, 1);
    let noted = || fake::stream(1, |stream| stream.state.get("wasm.tollgate_failures").cloned());
    let attempt = |connected: bool| {
        // The attempt has the request's filter state, and its own filter by which nothing can be asked at its end.
        let state = fake::stream(1, |stream| stream.state.clone());
        fake::stream(2, |stream| {
            stream.state = state;
            stream.has(Attribute::ClusterName, "backend/default/a");
            stream.numbers.insert(Attribute::AttemptCount as u32, 1);
        });
        let attempt = envoy_dynamic_module_on_http_filter_new(attempts, fake::object(2));
        assert_eq!(envoy_dynamic_module_on_http_filter_request_headers(fake::object(2), attempt, false), 0);
        fake::stream(1, |stream| {
            stream.attributes.remove(&(Attribute::UpstreamLocalAddress as u32));
            if connected {
                stream.has(Attribute::UpstreamLocalAddress, "127.0.0.1:1");
            }
        });
        envoy_dynamic_module_on_http_filter_destroy(attempt);
    };
    attempt(false);
    assert_eq!(noted(), None, "no backend had it");
    attempt(true);
    assert!(noted().is_some());
    envoy_dynamic_module_on_http_filter_stream_complete(fake::object(1), ours);
    envoy_dynamic_module_on_http_filter_destroy(ours);
    destroy_config(attempts);
    destroy_config(config);
}

#[test]
fn one_connection_too_many_is_closed_until_another_ends() {
    let _turn = start();
    let stage = wire::filter_config::Stage::Connection(wire::ConnectionStage { max_per_source: 1 });
    let config = new_network_config(fake::object(CONFIG), Bytes::NONE, Bytes::of(&encoded(stage)));
    let connected = |number: usize, address: &str| {
        fake::stream(number, |stream| stream.address = Some((address.to_owned(), 7)));
        let ours = envoy_dynamic_module_on_network_filter_new(config, fake::object(number));
        let goes = envoy_dynamic_module_on_network_filter_new_connection(fake::object(number), ours);
        (ours, goes, fake::stream(number, |stream| stream.is_closed))
    };
    // A worker's share is no less than 64.
    let (first, goes, is_closed) = connected(1, "192.0.2.1");
    assert_eq!((goes, is_closed), (0, false));
    let others: Vec<Ours> = (2..=64).map(|number| connected(number, "192.0.2.1").0).collect();
    let (refused, goes, is_closed) = connected(65, "192.0.2.1");
    assert_eq!((goes, is_closed), (1, true));
    assert_eq!(connected(66, "2001:db8::1").1, 0, "another source");
    envoy_dynamic_module_on_network_filter_destroy(first);
    let (last, goes, _) = connected(67, "192.0.2.1");
    assert_eq!(goes, 0);
    others.into_iter().chain([refused, last]).for_each(|ours| envoy_dynamic_module_on_network_filter_destroy(ours));
    destroy_network_config(config);
}
