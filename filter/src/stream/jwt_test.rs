//! Who a client is by what Envoy has verified of a JWT, in the sidecars of a workload.

use std::rc::Rc;

use prost::Message as _;
use serde_json::{Value, json};
use tollgate_proto::{jwt::canonical, v1 as wire};

use super::fake::{FakeStream, headers};
use super::*;
use crate::{
    exchange::Effect,
    fixture,
    host::{FakeShared, Shared as _},
    jwt::tests::metadata,
    key::{KeyHash, Proof, record},
    worker::Worker,
};

const IDP: &str = "https://idp.example";
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
/// Of the Consumer `app`, which has the key `good`, too.
const WEB: &str = "spiffe://cluster.local/ns/app/sa/web";
const STRANGER: &str = "spiffe://cluster.local/ns/app/sa/stranger";
/// A JWT as it may be left in a header. What is in it counts for nothing.
const LEFT: &str = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.c2ln";

/// Consumers by claims: `app` is alice of research, `team` all of research, `foreign` is of another namespace.
fn shared() -> FakeShared {
    let shared = fixture::shared();
    for (consumer, namespace, claims) in [
        ("app", "default", &[("sub", "alice"), ("team", "research")][..]),
        ("team", "default", &[("team", "research")]),
        ("tenant-b/mallory", "tenant-b", &[("team", "foreign")]),
    ] {
        let key = wire::ApiKey {
            consumer: consumer.into(),
            namespace: namespace.into(),
            all_models: true,
            ..Default::default()
        };
        let proof = Proof::Jwt(KeyHash::of(&canonical(IDP, claims.iter().copied())));
        shared.set(&proof.record(), &record(1, &key.encode_to_vec()), None).unwrap();
    }
    shared
}

fn stage() -> wire::RequestStage {
    let set = |claims: &[&str]| wire::ClaimSet {
        issuer: IDP.into(),
        claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
    };
    wire::RequestStage { claim_sets: vec![set(&["sub", "team"]), set(&["team"])], ..fixture::workload() }
}

fn request(uri: &str, metadata: Vec<u8>, more: &[(&str, &str)]) -> FakeStream {
    let request = [&[(":method", "POST"), (":path", "/v1/chat/completions")], more].concat();
    FakeStream { request_headers: headers(&request), ..FakeStream::default() }
        .with(Property::ClientUri, uri)
        .with(Property::Metadata, metadata)
}

/// What became of a request: nothing yet, or the text that answers it with 401.
fn asked(uri: &str, metadata: Vec<u8>, more: &[(&str, &str)]) -> Option<String> {
    let mut worker = Worker::default();
    let mut stream = Downstream::new(Rc::new(fixture::config(stage())));
    let host = request(uri, metadata, more);
    let effects = stream.on(Callback::RequestHeaders { end: false }, &host, &shared(), &mut worker, &|| 1_000_000);
    effects.into_iter().find_map(|effect| match effect {
        Effect::Reply { status: 401, body, .. } => Some(String::from_utf8(body).unwrap()),
        Effect::Reply { status, .. } => panic!("{status}"),
        _ => None,
    })
}

fn verified(payload: &Value) -> Vec<u8> {
    metadata(JWT_AUTHN, &json!({"payload": payload}))
}

fn alice() -> Vec<u8> {
    verified(&json!({"iss": IDP, "sub": "alice", "team": "research"}))
}

fn bob() -> Vec<u8> {
    verified(&json!({"iss": IDP, "sub": "bob", "team": "research"}))
}

#[test]
fn a_verified_jwt_needs_no_key() {
    assert_eq!(asked(STRANGER, alice(), &[]), None);
    assert_eq!(asked("", bob(), &[]), None, "no certificate is needed");
    let list = verified(&json!({"iss": IDP, "team": ["sales", "research"]}));
    assert_eq!(asked(STRANGER, list, &[]), None);
}

#[test]
fn what_is_not_verified_counts_for_nothing() {
    for more in [
        &[][..],
        &[("authorization", LEFT)],
        &[("x-jwt-payload", "eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIn0")],
        &[("x-api-key", "jwt/0000000000000000000000000000000000000000000000000000000000000000")],
        &[("x-tollgate-consumer", "app")],
    ] {
        assert!(asked(STRANGER, Vec::new(), more).is_some(), "{more:?}");
        let failed = metadata(JWT_AUTHN, &json!({"failed_status": {"code": 14, "message": "Jwt expired"}}));
        assert!(asked(STRANGER, failed, more).is_some(), "{more:?}");
    }
    let other = metadata("envoy.filters.http.lua", &json!({"payload": {"iss": IDP, "team": "research"}}));
    assert!(asked(STRANGER, other, &[]).is_some(), "another filter's word");
}

#[test]
fn claims_that_are_nobodys_are_refused() {
    for payload in [
        json!({"iss": "https://evil.example", "sub": "alice", "team": "research"}),
        json!({"iss": IDP, "sub": "alice"}),
        json!({"iss": IDP, "sub": "alice", "team": "sales"}),
        json!({"iss": IDP, "team": "foreign"}),
    ] {
        let text = asked(STRANGER, verified(&payload), &[]).unwrap();
        assert!(text.contains("the claims of your JWT are those of no Consumer"), "{payload}: {text}");
    }
}

#[test]
fn a_jwt_a_key_and_an_identity_agree() {
    let differs = |uri, metadata, more: &[(&str, &str)]| {
        asked(uri, metadata, more).is_some_and(|text| text.contains("another Consumer than your API key"))
    };
    assert_eq!(asked(WEB, alice(), &[("x-api-key", "good")]), None, "all three are of app");
    assert!(differs(STRANGER, alice(), &[("x-api-key", "other")]));
    assert!(differs(STRANGER, bob(), &[("x-api-key", "good")]));
    assert!(differs(WEB, bob(), &[]));
    assert!(asked(WEB, alice(), &[("x-api-key", "wrong")]).is_some());
    // What is nobody's decides nothing.
    let nobody = || verified(&json!({"iss": IDP, "sub": "carol"}));
    assert_eq!(asked(STRANGER, nobody(), &[("x-api-key", "good")]), None);
    assert_eq!(asked(WEB, nobody(), &[]), None);
}

#[test]
fn a_jwt_that_envoy_has_left_is_no_key() {
    assert_eq!(asked(STRANGER, alice(), &[("authorization", LEFT)]), None);
    assert_eq!(asked(STRANGER, alice(), &[("authorization", LEFT), ("x-api-key", "good")]), None);
    assert!(asked(STRANGER, alice(), &[("authorization", LEFT), ("x-api-key", "other")]).is_some());
    assert!(asked(STRANGER, verified(&json!({"iss": "other"})), &[("authorization", LEFT)]).is_some());
}

#[test]
fn what_is_too_much_is_refused_whoever_asks() {
    let groups: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let many = verified(&json!({"iss": IDP, "team": groups}));
    let large = verified(&json!({"iss": IDP, "team": "x".repeat(20_000)}));
    for metadata in [many, large, b"\xff\xff".to_vec()] {
        let text = asked(STRANGER, metadata, &[("x-api-key", "good")]).unwrap();
        assert!(text.contains("more than is looked at"), "{text}");
    }
}

#[test]
fn where_nobody_asks_for_claims_none_are_fetched() {
    let host = request(STRANGER, b"\xff\xff".to_vec(), &[("x-api-key", "good")]);
    let mut stream = Downstream::new(Rc::new(fixture::config(fixture::workload())));
    let arrived = Callback::RequestHeaders { end: false };
    let effects = stream.on(arrived, &host, &shared(), &mut Worker::default(), &|| 1_000_000);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Reply { .. })), "{effects:?}");
}

/// The scopes of the buckets that a request asks the ledger for.
fn scopes(stage: wire::RequestStage, uri: &str, metadata: Vec<u8>, more: &[(&str, &str)]) -> Vec<Vec<String>> {
    let (shared, mut worker) = (shared(), Worker::default());
    worker.introduce(&shared, || "proxy".into(), 1_000_000);
    let mut stream = Downstream::new(Rc::new(fixture::config(stage)));
    let host = FakeStream { body: br#"{"model":"smol"}"#.to_vec(), ..request(uri, metadata, more) };
    for callback in [Callback::RequestHeaders { end: false }, Callback::RequestBody { end: true }] {
        stream.on(callback, &host, &shared, &mut worker, &|| 1_000_000);
    }
    let call = worker.next_call(&shared, 1_000_000).cloned();
    call.into_iter().flat_map(|call| call.wants).filter_map(|want| want.bucket).map(|bucket| bucket.scope).collect()
}

#[test]
fn a_budget_is_for_each_value_of_a_claim() {
    let by_claim = || {
        let mut stage = stage();
        stage.limits[0].scope = ["org", "sub"]
            .map(|claim| wire::ScopePart { part: Some(wire::scope_part::Part::Claim(claim.to_owned())) })
            .into();
        stage
    };
    let of = |payload: &Value, more: &[(&str, &str)]| scopes(by_claim(), STRANGER, verified(payload), more);
    assert_eq!(of(&json!({"iss": IDP, "team": "research", "sub": "bob", "org": 7}), &[]), [["7", "bob"]]);
    assert_eq!(of(&json!({"iss": IDP, "team": "research", "sub": "eve", "org": [7]}), &[]), [["", "eve"]]);
    // The caller may be known otherwise.
    assert_eq!(of(&json!({"iss": "other", "org": "x"}), &[("x-api-key", "good")]), [["x", ""]]);
    assert_eq!(scopes(by_claim(), STRANGER, Vec::new(), &[("x-api-key", "good")]), [["", ""]]);
    // Of two JWTs, that counts by which the caller is known. If it is by none, none counts.
    let two = |one: Value| {
        let two = json!({"a": {"iss": "other", "sub": "x", "org": "x"}, "b": one});
        scopes(by_claim(), STRANGER, metadata(JWT_AUTHN, &two), &[("x-api-key", "good")])
    };
    assert_eq!(two(json!({"iss": IDP, "team": "research", "sub": "alice", "org": "y"})), [["y", "alice"]]);
    assert_eq!(two(json!({"iss": IDP, "sub": "bob", "org": "y"})), [["", ""]]);
}

/// The Gateway's word says whose the request is. A JWT that goes along says what it always says of a budget.
#[test]
fn what_a_gateway_hands_over_has_the_claims_of_its_own_jwt() {
    let handover = wire::Handover {
        consumer: "tenant/app".into(),
        model: "smol".into(),
        limits: vec!["default/charged".into()],
        ..Default::default()
    };
    let said = crate::key::hex(&handover.encode_to_vec());
    let mut stage = stage();
    stage.limits[0].scope = [wire::scope_part::Part::Consumer(true), wire::scope_part::Part::Claim("sub".to_owned())]
        .map(|part| wire::ScopePart { part: Some(part) })
        .into();
    let more = [("x-tollgate-handover", said.as_str())];
    assert_eq!(scopes(stage.clone(), fixture::GATEWAY, Vec::new(), &more), [["tenant/app", ""]]);
    assert_eq!(scopes(stage.clone(), fixture::GATEWAY, bob(), &more), [["tenant/app", "bob"]]);
    // A limit that the Gateway has charged is not charged again, whatever the claims are.
    stage.limits[0].id = "default/charged".into();
    assert_eq!(scopes(stage, fixture::GATEWAY, bob(), &more), Vec::<Vec<String>>::new());
}
