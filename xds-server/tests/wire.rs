//! The control plane as proxies meet it: real ADS clients over mTLS against `tollgate serve` on a folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has failed"
)]

mod support;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use prost::Message as _;
use tonic::client::GrpcService as _;

use support::{CLUSTER, Client, EXTENSION, KEY, LISTENER, ROUTE, Server, nack, names, versions};

/// A Gateway with its route, pool and backend, all called `name`.
fn gateway(name: &str, port: u16, backend_port: u16) -> String {
    format!(
        r"apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec: {{gatewayClassName: tollgate, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {name}}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /v1}}}}]
    backendRefs: [{{group: tollgate.dev, kind: ModelPool, name: {name}}}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {{name: {name}}}
spec:
  models:
  - name: {name}-model
    targets: [{{backendRef: {{name: {name}}}}}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec: {{schema: OpenAI, endpoint: {{hostname: 127.0.0.1, port: {backend_port}}}, tls: {{mode: None}}}}
"
    )
}

fn consumer(name: &str, digit: char, models: &str) -> String {
    let sha256 = digit.to_string().repeat(64);
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}}}\nspec: {{keys: [{{sha256: '{sha256}'}}], models: [{models}]}}\n"
    )
}

fn two_gateways() -> Server {
    let consumers = format!("{}---\n{}", consumer("alice", 'a', "'*'"), consumer("bob", 'b', "'*'"));
    Server::start(&[
        ("one.yaml", &gateway("one", 18080, 18081)),
        ("two.yaml", &gateway("two", 18090, 18091)),
        ("consumers.yaml", &consumers),
    ])
}

#[tokio::test]
async fn delta_sends_what_was_asked_then_only_what_changed() {
    let server = two_gateways();
    let mut envoy = server.client("default/one").delta(&server).await;
    let all = envoy.take_all("default/one").await;
    assert_eq!(names(&all[0]), ["backend/default/one"]);
    let status = server.status_with(|status| status["gateways"][0]["programmed"] == true).await;
    assert_eq!(status["gateways"][0]["proxies"][0]["node"], "test-envoy");
    assert_eq!(status["gateways"][1]["programmed"], false, "no Envoy of the other Gateway is there");

    server.write("one.yaml", &gateway("one", 18080, 19999));
    let update = envoy.take(CLUSTER).await;
    assert_eq!(names(&update), ["backend/default/one"]);
    let cluster = Cluster::decode(update.resources[0].resource.as_ref().unwrap().value.as_slice()).unwrap();
    assert!(format!("{cluster:?}").contains("19999"));
    // The filter writes the backend's authority, so its configuration changes too; the listener and routes do not.
    assert_eq!(names(&envoy.take(EXTENSION).await), ["tollgate/default/one/request"]);
    envoy.assert_silent().await;
    // Broken YAML changes nothing.
    server.write("one.yaml", "kind: [");
    envoy.assert_silent().await;
    server.status_with(|status| status["findings"].to_string().contains("one.yaml")).await;
}

#[tokio::test]
async fn a_removed_object_goes_after_what_refers_to_it() {
    let server = two_gateways();
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.take_all("default/one").await;
    // The Gateway stays, without a route.
    let text = gateway("one", 18080, 18081);
    server.write("one.yaml", text.split("---").next().unwrap());
    let mut removed = Vec::new();
    let mut changed = Vec::new();
    while !removed.iter().any(|name| name == "backend/default/one") {
        let response = envoy.next().await;
        envoy.answer(&response, None).await;
        changed.extend(names(&response));
        removed.extend(response.removed_resources);
    }
    assert!(!changed.is_empty(), "the route is emptied before its cluster goes");
}

#[tokio::test]
async fn a_nack_ends_in_the_status_and_its_version_is_not_sent_again() {
    let server = two_gateways();
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.ask(CLUSTER, &[]).await;
    envoy.take(CLUSTER).await;
    envoy.ask(LISTENER, &[]).await;
    let listener = envoy.next().await;
    envoy.answer(&listener, nack("cannot bind '0.0.0.0:18080': Address already in use")).await;
    let status = server.status_with(|status| status.to_string().contains("Address already in use")).await;
    let gateway_status = &status["gateways"][0];
    assert_eq!(gateway_status["programmed"], false);
    assert_eq!(gateway_status["proxies"][0]["acked"], false);
    let finding = status["findings"].as_array().unwrap().iter().find(|finding| finding["reason"] == "Refused").unwrap();
    assert_eq!(finding["origin"]["kind"], "Gateway");
    assert_eq!(finding["origin"]["name"], "one");
    envoy.assert_silent().await;

    server.write("one.yaml", &gateway("one", 18082, 18081));
    loop {
        let response = envoy.next().await;
        envoy.answer(&response, None).await;
        if !response.resources.is_empty() {
            assert_eq!(response.type_url, LISTENER);
            break;
        }
    }
    server.status_with(|status| !status.to_string().contains("Address already in use")).await;
}

#[tokio::test]
async fn an_envoy_that_comes_back_is_sent_the_difference() {
    let server = two_gateways();
    let client = server.client("default/one");
    let mut envoy = client.delta(&server).await;
    let all = envoy.take_all("default/one").await;
    let (clusters, listeners) = (versions(&all[0]), versions(&all[1]));
    drop(envoy);
    server.status_with(|status| status["gateways"][0]["proxies"].as_array().unwrap().is_empty()).await;
    server.write("one.yaml", &gateway("one", 18080, 19999));
    server.status_with(|status| status["generation"] == 2).await;

    let mut envoy = client.delta(&server).await;
    envoy.come_back(LISTENER, &[], &listeners).await;
    let nothing = envoy.take(LISTENER).await;
    assert!(nothing.resources.is_empty() && nothing.removed_resources.is_empty(), "{nothing:?}");
    let mut has = clusters.clone();
    has.push(("backend/default/gone".to_owned(), "x".to_owned()));
    envoy.come_back(CLUSTER, &[], &has).await;
    let changed = envoy.take(CLUSTER).await;
    assert_eq!(names(&changed), ["backend/default/one"]);
    let gone = envoy.take(CLUSTER).await;
    assert_eq!(gone.removed_resources, ["backend/default/gone"]);
}

#[tokio::test]
async fn keys_travel_alone() {
    let server = two_gateways();
    let mut filter = server.client("default/one").delta(&server).await;
    filter.ask(KEY, &[]).await;
    let first = filter.take(KEY).await;
    assert_eq!(names(&first), ["a".repeat(64), "b".repeat(64)]);
    // One key changes, one goes.
    let alice = consumer("alice", 'a', "'gpt-*'");
    server.write("consumers.yaml", &format!("{alice}---\n{}", consumer("bob", 'b', "'*'")));
    let changed = filter.take(KEY).await;
    assert_eq!(names(&changed), ["a".repeat(64)]);
    server.write("consumers.yaml", &alice);
    let revoked = filter.take(KEY).await;
    assert_eq!(revoked.removed_resources, ["b".repeat(64)]);
    assert!(revoked.resources.is_empty());
    filter.assert_silent().await;
}

#[tokio::test]
async fn state_of_the_world_sends_whole_sets() {
    let server = two_gateways();
    let mut envoy = server.client("default/one").state_of_the_world(&server).await;
    envoy.ask(CLUSTER, &[]).await;
    let clusters = envoy.take(CLUSTER, &[]).await;
    assert_eq!(clusters.resources.len(), 1);
    envoy.ask(LISTENER, &[]).await;
    assert_eq!(envoy.take(LISTENER, &[]).await.resources.len(), 1);
    let request = "tollgate/default/one/request";
    envoy.ask(EXTENSION, &[request]).await;
    assert_eq!(envoy.take(EXTENSION, &[request]).await.resources.len(), 1);
    envoy.assert_silent().await;
    server.write("one.yaml", &gateway("one", 18080, 19999));
    let update = envoy.take(CLUSTER, &[]).await;
    assert_ne!(update.version_info, clusters.version_info);
    envoy.take(EXTENSION, &[request]).await;
    envoy.assert_silent().await;
}

#[tokio::test]
async fn a_certificate_opens_only_its_own_gateway() {
    let server = two_gateways();
    let mut other = server.client("default/two").delta(&server).await;
    other.ask(CLUSTER, &[]).await;
    assert_eq!(names(&other.take(CLUSTER).await), ["backend/default/two"]);
    // Asking by name does not help.
    other.ask(ROUTE, &["default/one/18080"]).await;
    assert!(other.take(ROUTE).await.resources.is_empty());
    other.ask(EXTENSION, &["tollgate/default/one/request"]).await;
    assert!(other.take(EXTENSION).await.resources.is_empty());

    let mut nobody = server.client("default/unknown").delta(&server).await;
    nobody.ask(CLUSTER, &[]).await;
    assert!(nobody.take(CLUSTER).await.resources.is_empty());
    nobody.ask(KEY, &[]).await;
    assert!(nobody.take(KEY).await.resources.is_empty());
}

#[tokio::test]
async fn no_certificate_and_a_foreign_one_are_refused() {
    let server = two_gateways();
    let own = server.client("default/one");
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Client::made_in(elsewhere.path(), "default/one").that_trusts(&own);
    assert!(refused(foreign, &server).await);
    assert!(refused(own.without_certificate(), &server).await);
}

/// With TLS 1.3 the refusal may come after the client believes to be connected.
async fn refused(client: Client, server: &Server) -> bool {
    client.try_delta(server).await.is_err()
}

#[tokio::test]
async fn the_filter_is_fetched_by_its_hash() {
    use sha2::Digest as _;
    let server = two_gateways();
    let sha256 = hex::encode(sha2::Sha256::digest(b"\0asm\x01\0\0\0"));
    let mut envoy = server.client("default/one").delta(&server).await;
    let all = envoy.take_all("default/one").await;
    let extension = &all[2].resources[0].resource.as_ref().unwrap().value;
    let path = format!("/code/{sha256}.wasm");
    assert!(String::from_utf8_lossy(extension).contains(&path), "the filter's configuration names its code");
    for (path, status) in [(path, 200), ("/code/00.wasm".to_owned(), 404)] {
        let mut channel = server.client("default/one").channel(&server).await.unwrap();
        let request = axum::http::Request::get(format!("{}{path}", server.xds));
        let request = request.body(tonic::body::Body::empty()).unwrap();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
        let response = channel.call(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}
