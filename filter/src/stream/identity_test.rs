//! Who a client is, by its key and by what its connection proves.

use std::rc::Rc;

use tollgate_proto::v1 as wire;

use super::fake::{FakeStream, headers};
use super::*;
use crate::{exchange::Effect, fixture, host::FakeShared, key::Table, worker::Worker};

const CHAIN: &str = "mesh:default/llm/8443/mesh";
/// Of the Consumer `app`, which has the key `good` too.
const WEB: &str = "spiffe://cluster.local/ns/app/sa/web";
const STRANGER: &str = "spiffe://cluster.local/ns/app/sa/stranger";
/// Of a Consumer of another namespace.
const FOREIGN: &str = "spiffe://cluster.local/ns/tenant-b/sa/mallory";

/// What became of a request: nothing yet, or the status and the text that answer it.
fn asked(
    stage: impl FnOnce(&mut wire::RequestStage),
    shared: &FakeShared,
    (chain, uri): (&str, &str),
    more: &[(&str, &str)],
) -> Option<(u32, String)> {
    let mut of_stage = fixture::stage();
    stage(&mut of_stage);
    let request = [&[(":method", "POST"), (":path", "/v1/chat/completions")], more].concat();
    let host = FakeStream { request_headers: headers(&request), ..FakeStream::default() }
        .with(Property::Route, fixture::CHAT)
        .with(Property::FilterChain, chain)
        .with(Property::ClientUri, uri);
    let mut worker = Worker::default();
    let mut stream = Downstream::new(Rc::new(fixture::config(of_stage)));
    let effects = stream.on(Callback::RequestHeaders { end: false }, &host, shared, &mut worker, &|| 1_000_000);
    effects.into_iter().find_map(|effect| match effect {
        Effect::Reply { status, body, .. } => Some((status, String::from_utf8(body).unwrap())),
        _ => None,
    })
}

fn status(connection: (&str, &str), more: &[(&str, &str)]) -> Option<u32> {
    asked(|_| {}, &fixture::shared(), connection, more).map(|(status, _)| status)
}

#[test]
fn a_member_of_the_mesh_needs_no_key() {
    assert_eq!(status((CHAIN, WEB), &[]), None);
    assert_eq!(status((CHAIN, WEB), &[("x-api-key", "good")]), None, "its own key agrees");
}

#[test]
fn only_a_connection_of_the_mesh_proves_an_identity() {
    // Another listener may ask for certificates too, of whomever its owner trusts. A namespace may be called `mesh`.
    for chain in ["default/llm/8443/https", "", "mesh", "default/mesh/8443/mesh", "mesh/llm/8443/mesh"] {
        assert_eq!(status((chain, WEB), &[]), Some(401), "{chain}");
    }
    for uri in ["", "https://cluster.local/ns/app/sa/web"] {
        assert_eq!(status((CHAIN, uri), &[]), Some(401), "{uri}");
    }
    let told = asked(|stage| stage.has_members = false, &fixture::shared(), (CHAIN, WEB), &[]);
    assert_eq!(told.unwrap().0, 401, "this scope has no members");
    // What a client says of itself counts for nothing, and an identity is no key.
    for header in ["x-forwarded-client-cert", "x-api-key", "authorization"] {
        for value in [WEB.to_owned(), format!("URI={WEB}"), format!("Bearer {WEB}")] {
            assert_eq!(status(("", ""), &[(header, &value)]), Some(401), "{header}: {value}");
        }
    }
}

#[test]
fn a_key_and_an_identity_agree() {
    let others = asked(|_| {}, &fixture::shared(), (CHAIN, WEB), &[("x-api-key", "other")]).unwrap();
    assert_eq!(others.0, 401);
    assert!(others.1.contains("another Consumer than your identity"), "{}", others.1);
    assert_eq!(status((CHAIN, WEB), &[("x-api-key", "wrong")]), Some(401));
    assert_eq!(status((CHAIN, WEB), &[("x-api-key", "good"), ("api-key", "other")]), Some(401));
    // Nobody has said whose such a workload is, so its key decides.
    for unknown in [STRANGER, FOREIGN] {
        assert_eq!(status((CHAIN, unknown), &[("x-api-key", "good")]), None, "{unknown}");
    }
}

#[test]
fn an_identity_that_is_no_consumers_is_told_its_name() {
    for unknown in [STRANGER, FOREIGN] {
        let (status, text) = asked(|_| {}, &fixture::shared(), (CHAIN, unknown), &[]).unwrap();
        assert_eq!(status, 401);
        assert!(text.contains(unknown), "{text}");
    }
    let (_, text) = asked(|_| {}, &fixture::shared(), ("", ""), &[]).unwrap();
    assert!(text.contains("Authorization: Bearer KEY"), "{text}");
}

#[test]
fn a_sidecar_takes_certificates_of_the_mesh_alone() {
    // Istiod gives its chains names that say nothing.
    let asked = |uri| asked(|stage| *stage = fixture::workload(), &fixture::shared(), ("0.0.0.0_8080", uri), &[]);
    assert_eq!(asked(WEB), None);
    for unknown in [STRANGER, FOREIGN, ""] {
        assert_eq!(asked(unknown).map(|(status, _)| status), Some(401), "{unknown}");
    }
}

#[test]
fn before_the_keys_are_there_nobody_is_known() {
    let shared = fixture::shared();
    Table::Empty.write(&shared);
    assert_eq!(asked(|_| {}, &shared, (CHAIN, WEB), &[]).unwrap().0, 503);
}
