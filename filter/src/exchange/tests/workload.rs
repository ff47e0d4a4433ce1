//! Requests to a workload, in its own sidecar.

use super::*;
use crate::key::Table;

const BODY: &str = r#"{"model":"smol","stream":true}"#;
const WEB: &str = "spiffe://cluster.local/ns/app/sa/web";

fn sidecar() -> World {
    World::new(|stage| *stage = fixture::workload())
}

/// Where istiod leads: to a route whose name says nothing.
fn arrive(world: &mut World, method: &str, more: &[(&str, &str)], seen: &mut Seen) -> Exchange {
    world.arrive_on(Some("default"), method, CHAT, more, seen)
}

#[test]
fn a_request_goes_where_it_would_go_and_is_charged() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let reading = arrive(&mut world, "POST", &[("x-api-key", "good"), ("x-tollgate-consumer", "root")], &mut seen);
    assert!(reading.wants() == Wants::RequestBody, "{reading:?}");
    world.body = BODY.as_bytes().to_vec();
    let waiting = world.step(reading, Event::RequestEnd, &mut seen);
    let call = world.call().unwrap();
    assert_eq!(call.wants[0].bucket.as_ref().map(|bucket| bucket.scope.clone()), Some(vec!["app".to_owned()]));
    world.ledger(&call, 600, 400);
    let sent = world.step(waiting, Event::LedgerAnswered, &mut seen);
    assert_eq!((seen.target, seen.rewritten), (None, None));
    assert!(
        seen.removed.iter().any(|name| name == "x-api-key")
            && seen.removed.iter().any(|name| name == "x-tollgate-consumer")
    );
    let orders = seen.sent_headers.iter().filter(|(name, _)| name.starts_with("x-envoy-"));
    assert_eq!(orders.count(), 0, "Envoy's own retries are the mesh's business");
    assert!(seen.sent_headers.contains(&("accept-encoding".into(), "identity".into())), "{:?}", seen.sent_headers);
    // The backend is asked for its usage, and nothing else of the body is another.
    let body: serde_json::Value = serde_json::from_slice(&seen.body.take().unwrap()).unwrap();
    assert_eq!(body, serde_json::json!({"model": "smol", "stream": true, "stream_options": {"include_usage": true}}));

    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":5}}\n\n";
    let mut seen = Seen::default();
    let answering = world.answer(sent, "200", "text/event-stream", &[usage, "data: [DONE]\n\n"], &mut seen);
    assert!(seen.answer_headers.iter().any(|(name, value)| *name == "x-ratelimit-limit-tokens" && value == "1000"));
    let report = world.end(answering, Ending::default());
    let [row] = report.usage.as_slice() else { panic!("{report:?}") };
    assert_eq!((row.route.as_str(), row.backend.as_str()), ("service/runner", "service/runner"));
    assert_eq!((row.model.as_str(), row.asked_model.as_str(), row.consumer.as_str()), ("*", "smol", "app"));
    assert_eq!((row.input_tokens, row.output_tokens, row.requests), (8, 5, 1));
    assert_eq!(report.settlements[0].charged, 13);
}

/// The budgets that requests for these models ask of the ledger, where pools have these names.
fn buckets(names: &[wire::Model], models: &[&str]) -> Vec<Vec<String>> {
    let by_model = wire::ScopePart { part: Some(wire::scope_part::Part::Model(true)) };
    let bucket = |model: &&str| {
        let mut world = World::new(|stage| {
            *stage = fixture::workload();
            stage.limits[0].scope.push(by_model.clone());
            stage.workload.as_mut().unwrap().models = names.to_vec();
        });
        let reading = arrive(&mut world, "POST", &[("x-api-key", "good")], &mut Seen::default());
        world.body = format!(r#"{{"model":"{model}"}}"#).into_bytes();
        world.step(reading, Event::RequestEnd, &mut Seen::default());
        world.call().unwrap().wants.remove(0).bucket.unwrap().scope
    };
    models.iter().map(bucket).collect()
}

#[test]
fn a_budget_of_a_model_is_one_for_all_that_a_workload_is_asked_for() {
    // A runner that serves one model answers to any name.
    assert_eq!(buckets(&[], &["smol", "made-up"]), [["app", "*"], ["app", "*"]]);
}

#[test]
fn a_model_counts_as_pools_name_it() {
    let asked = |name: &str, prefix, counts_as: &str| wire::Model {
        name: name.to_owned(),
        prefix,
        counts_as: counts_as.to_owned(),
        ..wire::Model::default()
    };
    let two = [asked("smollm2", false, "smol"), asked("gpt-", true, "gpt-*")];
    let found = buckets(&two, &["smollm2", "gpt-4", "smol", "smollm2-x"]);
    assert_eq!(found, [["app", "smol"], ["app", "gpt-*"], ["app", "*"], ["app", "*"]]);
    let any = [asked("smollm2", false, "smol"), asked("", true, "smol")];
    assert_eq!(buckets(&any, &["smollm2", "made-up"]), [["app", "smol"], ["app", "smol"]]);
}

#[test]
fn who_has_no_key_and_no_identity_is_refused() {
    let refused = |more: &[(&str, &str)]| {
        let (mut world, mut seen) = (sidecar(), Seen::default());
        arrive(&mut world, "POST", more, &mut seen);
        seen.reply.as_ref().map(|reply| reply.0)
    };
    assert_eq!(refused(&[]), Some(401));
    assert_eq!(refused(&[("x-api-key", "wrong")]), Some(401));
    assert_eq!(refused(&[("x-api-key", "foreign")]), Some(401), "a Consumer of another namespace");
    assert_eq!(refused(&[("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/app/sa/web")]), Some(401));
    assert_eq!(refused(&[("x-api-key", "good")]), None);
}

#[test]
fn an_identity_needs_no_key() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let headers = Headers::from_iter([(":method", "POST"), (":path", CHAT)]);
    let head = Head { headers: &headers, route: Some("default"), identity: Some(WEB), metadata: None };
    let reading = world.step(Exchange::New, Event::RequestHeaders { head, end: false }, &mut seen);
    assert!(seen.reply.is_none() && reading.wants() == Wants::RequestBody, "{reading:?}");
}

#[test]
fn what_only_reads_passes_without_any_key_of_ours() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let (mut world, mut seen) = (sidecar(), Seen::default());
        let more = [("authorization", "Bearer good"), ("x-tollgate-consumer", "root")];
        let passing = arrive(&mut world, method, &more, &mut seen);
        assert!(matches!(passing, Exchange::Passing), "{method}: {passing:?}");
        assert_eq!(seen.removed, ["x-tollgate-consumer", "authorization"], "{method}");
        assert!(seen.sent_headers.is_empty(), "{method}");
    }
    // Another protocol would run there uncounted, and so would what is written.
    for (method, more) in
        [("GET", &[("upgrade", "websocket"), ("x-api-key", "good")][..]), ("PUT", &[("x-api-key", "good")])]
    {
        let mut seen = Seen::default();
        arrive(&mut sidecar(), method, more, &mut seen);
        assert_eq!(seen.reply.map(|reply| reply.0), Some(400), "{method}");
    }
}

#[test]
fn before_the_keys_are_there_it_is_closed() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    Table::Empty.write(&world.shared);
    world.worker.refresh(&world.shared);
    arrive(&mut world, "POST", &[("x-api-key", "good")], &mut seen);
    assert_eq!(code(&seen), (503, "backend_unavailable".to_owned()));
}

#[test]
fn a_refused_policy_closes_it() {
    let mut world = World::new(|stage| {
        *stage = fixture::workload();
        stage.classes[0].closed_by = "default/p".into();
    });
    let mut seen = Seen::default();
    arrive(&mut world, "POST", &[("x-api-key", "good")], &mut seen);
    assert_eq!(code(&seen), (503, "policy_invalid".to_owned()));
}

#[test]
fn a_call_says_for_which_workload_it_is_made() {
    let metadata = |world: &World| {
        let Stage::Request(stage) = &world.config.stage else { panic!() };
        stage.metadata().into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(metadata(&sidecar()), [("tollgate-scope".to_owned(), b"workload/default/runner/inbound".to_vec())]);
    assert_eq!(metadata(&world()), []);
}

/// A request that the proxy of a Gateway sends, which says this.
fn handed(world: &mut World, from: &str, said: &[&str], seen: &mut Seen) -> Exchange {
    let said = said.iter().map(|value| ("x-tollgate-handover", *value));
    let headers: Headers = [(":method", "POST"), (":path", CHAT)].into_iter().chain(said).collect();
    let head = Head { headers: &headers, route: Some("default"), identity: Some(from), metadata: None };
    world.step(Exchange::New, Event::RequestHeaders { head, end: false }, seen)
}

/// What a Gateway says that has charged these limits.
fn said(limits: &[&str]) -> String {
    let handover = wire::Handover {
        consumer: "tenant/app".into(),
        labels: [("team".to_owned(), "red".to_owned())].into(),
        model: "pool-name".into(),
        limits: limits.iter().map(|limit| (*limit).to_owned()).collect(),
    };
    crate::key::hex(&prost::Message::encode_to_vec(&handover))
}

#[test]
fn what_a_gateway_has_charged_is_not_charged_again() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let passing = handed(&mut world, fixture::GATEWAY, &[&said(&["default/p/daily"])], &mut seen);
    assert!(matches!(passing, Exchange::Passing), "{passing:?}");
    assert_eq!((seen.removed, seen.reply), (vec!["x-tollgate-handover".to_owned()], None));
}

#[test]
fn what_a_gateway_has_not_charged_is_charged_to_its_caller() {
    let mut world = World::new(|stage| {
        *stage = fixture::workload();
        let parts = [
            wire::scope_part::Part::Consumer(true),
            wire::scope_part::Part::Model(true),
            wire::scope_part::Part::Route(true),
            wire::scope_part::Part::Label("team".to_owned()),
        ];
        stage.limits.push(wire::Limit {
            id: "default/own/daily".into(),
            scope: parts.map(|part| wire::ScopePart { part: Some(part) }).into(),
            ..stage.limits[0].clone()
        });
        stage.classes[0].limits = vec![0, 1];
    });
    let mut seen = Seen::default();
    let reading =
        handed(&mut world, fixture::GATEWAY, &[&said(&["default/p/daily", "default/elsewhere/x"])], &mut seen);
    assert!(seen.reply.is_none() && reading.wants() == Wants::RequestBody, "{reading:?}");
    world.body = br#"{"model":"as-the-runner-knows-it"}"#.to_vec();
    let waiting = world.step(reading, Event::RequestEnd, &mut seen);
    let call = world.call().unwrap();
    let buckets: Vec<_> = call.wants.iter().filter_map(|want| want.bucket.clone()).collect();
    let [bucket] = buckets.as_slice() else { panic!("{buckets:?}") };
    assert_eq!(
        (bucket.limit.as_str(), &bucket.scope[..]),
        ("default/own/daily", &["tenant/app", "pool-name", "service/runner", "red"].map(String::from)[..])
    );
    world.ledger(&call, 600, 400);
    let sent = world.step(waiting, Event::LedgerAnswered, &mut seen);
    let answering = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
    let report = world.end(answering, Ending::default());
    assert_eq!((report.usage.len(), report.settlements[0].charged), (0, 13), "the Gateway tells of it: {report:?}");
}

#[test]
fn nobody_but_a_gateway_hands_anything_over() {
    let refused = |from: &str, said: &[&str]| {
        let mut seen = Seen::default();
        handed(&mut sidecar(), from, said, &mut seen);
        seen.reply.map(|reply| reply.0)
    };
    let said = said(&["default/p/daily"]);
    assert_eq!(refused(fixture::GATEWAY, &[&said]), None);
    assert_eq!(refused("spiffe://cluster.local/ns/other/sa/llm-tollgate", &[&said]), Some(401));
    // A Gateway that says nothing, or nothing that can be understood, is a caller like all.
    for bad in ["", "zz", "0", &said[1..], &said.to_uppercase(), &format!("{said},{said}"), "0a00"] {
        assert_eq!(refused(fixture::GATEWAY, &[bad]), Some(401), "{bad}");
    }
    assert_eq!(refused(fixture::GATEWAY, &[]), Some(401));
    assert_eq!(refused(fixture::GATEWAY, &[&said, &said]), Some(401), "it could be read in two ways");
    assert_eq!(refused(fixture::GATEWAY, &[&said.repeat(200)]), Some(401), "it is too long");
    // A Consumer's own request is charged as ever, whatever it says besides.
    let mut seen = Seen::default();
    let reading = handed(&mut sidecar(), WEB, &[&said], &mut seen);
    assert!(reading.wants() == Wants::RequestBody && seen.removed == ["x-tollgate-handover"], "{reading:?}");
}

#[test]
fn a_closed_workload_is_closed_for_gateways_too() {
    let mut world = World::new(|stage| {
        *stage = fixture::workload();
        stage.classes[0].closed_by = "default/p".into();
    });
    let mut seen = Seen::default();
    handed(&mut world, fixture::GATEWAY, &[&said(&["default/p/daily"])], &mut seen);
    assert_eq!(code(&seen), (503, "policy_invalid".to_owned()));
}

#[test]
fn a_gateway_says_whose_a_request_is_to_backends_that_are_to_know_it() {
    for (hands_over, retries) in [(false, 0), (true, 0)] {
        let mut world = World::new(|stage| {
            for backend in &mut stage.backends {
                (backend.hands_over, backend.per_attempt) = (hands_over, false);
            }
            stage.pools[0].models[0].targets.truncate(1);
            stage.pools[0].models[0].retries = retries;
        });
        let mut seen = Seen::default();
        world.sent(r#"{"model":"smol"}"#, &mut seen);
        let said = seen.sent_headers.iter().find(|(name, _)| name == "x-tollgate-handover").map(|(_, value)| value);
        assert_eq!(said.is_some(), hands_over);
        let Some(said) = said else { continue };
        let handover = crate::handover::Handover::read(said.as_bytes()).unwrap();
        assert_eq!((&*handover.caller.consumer, &*handover.model), ("app", "smol"));
        // The sidecar under the same policy has nothing left to charge.
        let (mut world, mut seen) = (sidecar(), Seen::default());
        assert!(matches!(handed(&mut world, fixture::GATEWAY, &[said], &mut seen), Exchange::Passing));
    }
}

#[test]
fn the_listener_of_a_sidecar_may_hold_less_than_the_filter_takes() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let reading = arrive(&mut world, "POST", &[("x-api-key", "good")], &mut seen);
    let headers = Headers::from_iter([(":status", "413")]);
    let head = AnswerHead { headers: &headers, origin: Origin::Envoy };
    world.step(reading, Event::ResponseHeaders { head, end: true }, &mut seen);
    let (status, _, body) = seen.reply.unwrap();
    assert_eq!(status, 413);
    assert!(!body["error"]["message"].to_string().contains("10000"), "{body}");
}
