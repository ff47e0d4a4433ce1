//! Requests of a caller to a Service of models, in the caller's own sidecar.

use super::*;
use crate::config::{Place, Stage};

fn sidecar() -> World {
    World::new(|stage| *stage = fixture::caller())
}

fn arrive(world: &mut World, method: &str, path: &str, more: &[(&str, &str)], seen: &mut Seen) -> Exchange {
    world.arrive_on(Some("default"), method, path, more, seen)
}

fn ask(world: &mut World, body: &str, seen: &mut Seen) -> Exchange {
    let reading = arrive(world, "POST", CHAT, &[], seen);
    world.body = body.as_bytes().to_vec();
    world.step(reading, Event::RequestEnd, seen)
}

fn header<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.sent_headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_model_says_where_the_route_leads() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let passing = ask(&mut world, r#"{"model":"smol","stream":true}"#, &mut seen);
    assert!(matches!(passing, Exchange::Passing), "{passing:?}");
    assert_eq!(passing.wants(), Wants::Nothing);
    assert_eq!(header(&seen, "x-tollgate-backend"), Some("a"));
    assert!(seen.target.is_none() && seen.rewritten.is_none(), "{seen:?}");
    // The model has the backend's name for it. The runner's own sidecar asks for the usage.
    assert_eq!(seen.body.as_deref(), Some(br#"{"model":"smol-0","stream":true}"#.as_slice()));
    assert_eq!(header(&seen, "content-length"), Some("32"));
    let orders = seen.sent_headers.iter().filter(|(name, _)| name.starts_with("x-envoy-") || name == ":path");
    assert_eq!(orders.count(), 0, "{:?}", seen.sent_headers);
    assert!(world.call().is_none(), "nothing is counted there");
}

#[test]
fn a_key_goes_on_to_the_runner_and_an_order_of_the_client_does_not() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let more = [("authorization", "Bearer good"), ("x-api-key", "other"), ("x-tollgate-backend", "b")];
    let reading = arrive(&mut world, "POST", CHAT, &more, &mut seen);
    assert_eq!(reading.wants(), Wants::RequestBody);
    assert_eq!(seen.removed, ["x-tollgate-backend"]);
    assert_eq!(header(&seen, "accept-encoding"), None);
}

#[test]
fn a_model_that_there_is_not_is_the_apis_404() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    let refused = ask(&mut world, r#"{"model":"nope"}"#, &mut seen);
    assert!(matches!(refused, Exchange::Refused), "{refused:?}");
    let (status, _, body) = seen.reply.clone().unwrap();
    assert_eq!(status, 404);
    assert_eq!(body["error"]["code"], "model_not_found");
    assert_eq!(header(&seen, "x-tollgate-backend"), None);
}

#[test]
fn the_models_are_listed_without_a_key() {
    let (mut world, mut seen) = (sidecar(), Seen::default());
    arrive(&mut world, "GET", "/v1/models", &[], &mut seen);
    let (status, _, body) = seen.reply.unwrap();
    assert_eq!((status, &body["data"][0]["id"]), (200, &serde_json::json!("smol")));
}

#[test]
fn the_path_is_the_backends_own() {
    let mut world = World::new(|stage| {
        *stage = fixture::caller();
        stage.backends[0].path_prefix = "/openai/v1".into();
    });
    let mut seen = Seen::default();
    let reading = arrive(&mut world, "POST", "/v1/chat/completions?a=b", &[], &mut seen);
    world.body = br#"{"model":"smol"}"#.to_vec();
    world.step(reading, Event::RequestEnd, &mut seen);
    assert_eq!(header(&seen, ":path"), Some("/openai/v1/chat/completions?a=b"));
}

#[test]
fn a_body_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    // The fixture takes 10,000 bytes.
    for (len, expected) in [(10_000, None), (10_001, Some(413))] {
        let (mut world, mut seen) = (sidecar(), Seen::default());
        let length = len.to_string();
        let reading = arrive(&mut world, "POST", CHAT, &[("content-length", &length)], &mut seen);
        assert_eq!(seen.reply.as_ref().map(|(status, ..)| *status), expected, "by its header");
        if expected.is_none() {
            assert_eq!(reading.wants(), Wants::RequestBody);
        }
        // Nobody has said how long it is.
        let (mut world, mut seen) = (sidecar(), Seen::default());
        let reading = arrive(&mut world, "POST", CHAT, &[], &mut seen);
        let body = r#"{"model":"smol"}"#;
        world.body = format!("{body}{}", " ".repeat(len - body.len())).into_bytes();
        world.step(reading, Event::RequestEnd, &mut seen);
        assert_eq!(seen.reply.map(|(status, ..)| status), expected);
    }
}

#[test]
fn it_has_no_control_plane() {
    let Stage::Request(stage) = fixture::config(fixture::caller()).stage else { panic!() };
    assert!(matches!(stage.place, Place::Caller(_)) && !stage.needs_control_plane() && stage.metadata().is_empty());
    let Stage::Request(stage) = fixture::config(fixture::workload()).stage else { panic!() };
    assert!(stage.needs_control_plane() && stage.envoy_holds().is_none(), "its listener is not ours");
    let Stage::Request(stage) = fixture::config(fixture::stage()).stage else { panic!() };
    assert_eq!(stage.envoy_holds(), Some(10_000));
}
