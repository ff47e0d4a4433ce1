//! The control plane as proxies meet it: real ADS clients over mTLS against `tollgate serve` on a folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has failed"
)]

#[path = "wire/alerts.rs"]
mod alerts;
#[path = "wire/audit.rs"]
mod audit;
#[path = "wire/gen_ai.rs"]
mod gen_ai;
#[path = "wire/otlp.rs"]
mod otlp;
#[path = "../../tests/src/prometheus.rs"]
mod prometheus;
mod support;

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use prost::Message as _;
use tollgate_proto::v1::ledger_client::LedgerClient;
use tollgate_proto::v1::{self, SyncRequest};
use tonic::Code;
use tonic::client::GrpcService as _;
use tonic::transport::Endpoint;

use support::{
    CLUSTER, Client, EXTENSION, KEY, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, Server, nack, names, until, versions,
};

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
    server.status_with(|status| status["findings"].to_string().contains("one.yaml")).await;
    envoy.assert_silent().await;
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
    let status = server.status_with(|status| status["findings"].to_string().contains("Address already in use")).await;
    let gateway_status = &status["gateways"][0];
    assert_eq!(gateway_status["programmed"], false);
    assert_eq!(gateway_status["proxies"][0]["acked"], false);
    let finding = status["findings"].as_array().unwrap().iter().find(|finding| finding["reason"] == "Refused").unwrap();
    assert_eq!(finding["origin"]["kind"], "Gateway");
    assert_eq!(finding["origin"]["name"], "one");
    let objects = status["objects"].as_array().unwrap();
    let gateway_object = objects.iter().find(|object| object["kind"] == "Gateway" && object["name"] == "one").unwrap();
    for conditions in [&gateway_object["conditions"], &gateway_object["listeners"][0]["conditions"]] {
        let programmed = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == "Programmed");
        let programmed = programmed.unwrap();
        assert_eq!((&programmed["status"], &programmed["reason"]), (&"False".into(), &"Invalid".into()));
        assert!(programmed["message"].to_string().contains("Address already in use"), "{programmed}");
    }
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

/// One bad scope refuses the whole response. It is found, the others are taken, and its rule is told.
#[tokio::test]
async fn a_refused_scope_is_reported_on_its_rule() {
    let route = |name: &str, target: &str| {
        format!(
            r"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: one}}]
  hostnames: [{name}.org]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {target}}}}}]}}]
"
        )
    };
    let files =
        [("one.yaml", &gateway("one", 18080, 18081)), ("a.yaml", &route("a", "x")), ("b.yaml", &route("b", "x"))];
    let files = files.map(|(name, text)| (name, text.as_str()));
    let server = Server::start_with(&files, &["--scoped-routes-above", "0"]);
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.ask(SCOPED_ROUTE, &[]).await;
    let all = envoy.next().await;
    assert_eq!(names(&all), ["default/one/18080", "default/one/18080|a.org", "default/one/18080|b.org"]);
    envoy.answer(&all, nack("one of them is bad")).await;
    for name in names(&all) {
        let one = envoy.next().await;
        assert_eq!(names(&one), [name.as_str()]);
        envoy.answer(&one, if name.ends_with("b.org") { nack("this one is bad") } else { None }).await;
    }
    let status = server.status_with(|status| status["findings"].to_string().contains("this one is bad")).await;
    assert_eq!(status["gateways"][0]["programmed"], false);
    let finding = status["findings"].as_array().unwrap().iter().find(|finding| finding["reason"] == "Refused").unwrap();
    assert_eq!(
        (finding["origin"]["kind"].as_str(), finding["origin"]["name"].as_str()),
        (Some("HTTPRoute"), Some("b"))
    );
    assert!(finding["spot"]["file"].as_str().unwrap().ends_with("b.yaml"));
    envoy.assert_silent().await;

    server.write("b.yaml", &route("b", "z"));
    assert_eq!(names(&envoy.take(SCOPED_ROUTE).await), ["default/one/18080|b.org"]);
    server.status_with(|status| !status.to_string().contains("this one is bad")).await;
}

/// Envoy says ACK to bytes that it has seen before, whether it could use them or not. So no sending is like another, and
/// the status says what was taken.
#[tokio::test]
async fn a_filter_that_was_refused_is_never_sent_again_unchanged() {
    let server = two_gateways();
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.ask(CLUSTER, &[]).await;
    envoy.take(CLUSTER).await;
    envoy.ask(LISTENER, &[]).await;
    let listener = names(&envoy.take(LISTENER).await).remove(0);
    envoy.ask(EXTENSION, &["tollgate/default/one/connection", "tollgate/default/one/request"]).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut is_new = |response: &DeltaDiscoveryResponse| {
        response.resources.iter().all(|resource| seen.insert(resource.resource.clone().unwrap().value))
    };
    let both = envoy.next().await;
    assert!(is_new(&both));
    assert_eq!(names(&both).len(), 2);
    envoy.answer(&both, nack("Unable to create Wasm plugin tollgate/default/one/connection#sent=17")).await;

    // One by one, and the first of them is refused once more.
    let first = envoy.next().await;
    assert!(is_new(&first));
    let refused = names(&first);
    envoy.answer(&first, nack(&format!("Unable to create Wasm plugin {}#sent=18", refused[0]))).await;
    let second = envoy.take(EXTENSION).await;
    assert!(is_new(&second));
    // Each start has that, because the code is fetched then. So nobody is told before it has come several times.
    for _ in 0..3 {
        let status = server.status_with(|status| status["gateways"][0]["programmed"] == false).await;
        assert!(!status.to_string().contains("Unable to create"), "{status}");
        let again = envoy.next().await;
        assert!(is_new(&again));
        assert_eq!(names(&again), refused);
        envoy.answer(&again, nack(&format!("Unable to create Wasm plugin {}#sent=19", refused[0]))).await;
    }
    let status = server.status_with(|status| status["findings"].to_string().contains("Unable to create")).await;
    assert_eq!(status["gateways"][0]["programmed"], false);
    assert!(status.to_string().contains(&format!("Unable to create Wasm plugin {}\"", refused[0])), "{status}");

    let again = envoy.take(EXTENSION).await;
    assert!(is_new(&again));
    assert_eq!(names(&again), refused);
    envoy.ask(ROUTE, &[&listener]).await;
    envoy.take(ROUTE).await;
    server.status_with(|status| status["gateways"][0]["proxies"][0]["acked"] == true).await;

    // Nor on a stream of its own, as after a restart of the control plane.
    drop(envoy);
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.ask(EXTENSION, &["tollgate/default/one/request"]).await;
    assert!(is_new(&envoy.take(EXTENSION).await));
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
}

/// A name of somebody else's is answered as one that nobody has, so asking does not tell which names there are.
#[tokio::test]
async fn what_is_not_of_the_identity_is_not_there() {
    let secret = |name: &str| {
        let backend = format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{apiKey: k-{name}}}\n"
        );
        let text = gateway(name, if name == "one" { 18080 } else { 18090 }, 18081);
        text.replace("tls: {mode: None}", &format!("tls: {{mode: None}}, credential: {{secretRef: {{name: {name}}}}}"))
            + &backend
    };
    let open = secret("two").replace("spec:\n  models:", "spec:\n  access: Anonymous\n  models:");
    let server = Server::start(&[
        ("one.yaml", &secret("one")),
        ("two.yaml", &open),
        ("consumers.yaml", &consumer("alice", 'a', "'*'")),
    ]);
    let (one, two) = (server.client("default/one"), server.client("default/two"));
    let mut its_own = one.delta(&server).await;
    its_own.ask(SECRET, &["*"]).await;
    let theirs = names(&its_own.take(SECRET).await);
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    assert!(!theirs[0].contains("two"), "{theirs:?}");
    its_own.ask(KEY, &[]).await;
    let keys = names(&its_own.take(KEY).await);
    assert_eq!(keys, ["a".repeat(64)]);
    let mut envoy = one.delta(&server).await;
    let route = names(&envoy.take_all("default/one").await[1]).remove(0);

    let mut other = two.delta(&server).await;
    for (kind, name) in [
        (SECRET, theirs[0].as_str()),
        (CLUSTER, "backend/default/one"),
        (ROUTE, &route),
        (LISTENER, &route),
        (EXTENSION, "tollgate/default/one/request"),
        // Its only pool takes no keys.
        (KEY, &keys[0]),
    ] {
        other.ask(kind, &[name]).await;
        let asked = other.take(kind).await;
        other.ask(kind, &["nobodys"]).await;
        let made_up = other.take(kind).await;
        assert_eq!(names(&asked), [""; 0], "{kind}");
        assert_eq!(
            (asked.removed_resources, made_up.removed_resources),
            (vec![name.to_owned()], vec!["nobodys".to_owned()])
        );
    }
    // Everything is everything of its own; a type that is not served is not answered, and the stream goes on.
    other.ask("type.googleapis.com/envoy.service.runtime.v3.Runtime", &["*"]).await;
    other.ask(SECRET, &["*"]).await;
    let own = names(&other.take(SECRET).await);
    assert!(own.len() == 1 && own[0].contains("two"), "{own:?}");
    other.ask(KEY, &["*"]).await;
    assert_eq!(names(&other.take(KEY).await), [""; 0]);

    let mut whole = two.state_of_the_world(&server).await;
    whole.ask(SECRET, &[&theirs[0]]).await;
    whole.assert_silent().await;
    whole.ask(CLUSTER, &[]).await;
    assert_eq!(whole.take(CLUSTER, &[]).await.resources.len(), 1);
}

#[tokio::test]
async fn a_deleted_gateway_is_emptied_and_its_certificate_refused_at_once() {
    let server = two_gateways();
    let client = server.client("default/one");
    let mut other = server.client("default/two").delta(&server).await;
    other.take_all("default/two").await;
    let mut envoy = client.delta(&server).await;
    let all = envoy.take_all("default/one").await;
    let (clusters, listener) = (versions(&all[0]), versions(&all[1]));
    let mut filter = client.delta(&server).await;
    filter.ask(KEY, &[]).await;
    filter.take(KEY).await;
    let mut ledger = LedgerClient::new(client.channel(&server).await.unwrap());
    ledger.sync(SyncRequest::default()).await.expect_err("an empty call is invalid, but its caller is known");

    server.remove("one.yaml");
    let (removed, status) = envoy.refusal().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    for (name, _) in clusters.iter().chain(&listener) {
        assert!(removed.contains(name), "{name} is not in {removed:?}");
    }
    let (removed, status) = filter.refusal().await;
    assert_eq!((removed.len(), status.code()), (2, Code::PermissionDenied));
    // The same connection, another call.
    let status = ledger.sync(SyncRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(fetch(&client, &server, "/code/00.wasm").await, 403);

    // A new stream gets nothing; one that says what it has, gives it back.
    for kind in [CLUSTER, KEY, LISTENER] {
        let mut again = client.delta(&server).await;
        again.ask(kind, &[]).await;
        let (removed, status) = again.refusal().await;
        assert_eq!((removed.len(), status.code()), (0, Code::PermissionDenied));
    }
    let mut back = client.delta(&server).await;
    back.come_back(CLUSTER, &[], &clusters).await;
    back.come_back(LISTENER, &[], &listener).await;
    let (removed, status) = back.refusal().await;
    assert_eq!((removed.len(), status.code()), (clusters.len() + listener.len(), Code::PermissionDenied));
    let mut whole = client.state_of_the_world(&server).await;
    whole.ask(CLUSTER, &[]).await;
    assert_eq!(whole.refusal().await.code(), Code::PermissionDenied);

    other.assert_silent().await;
    server.write("one.yaml", &gateway("one", 18080, 18081));
    server.status_with(|status| status["gateways"].as_array().unwrap().len() == 2).await;
    client.delta(&server).await.take_all("default/one").await;
}

/// Streams outlive their certificates, new connections do not.
#[tokio::test]
async fn a_stream_goes_on_while_certificates_are_renewed() {
    let two = gateway("one", 18080, 18081);
    let server = Server::start_with(&[("one.yaml", &two)], &["--certificate-lifetime", "20s"]);
    let first = Client::living_for("20s", &server.state(), "default/one");
    let mut envoy = first.delta(&server).await;
    envoy.take_all("default/one").await;
    let mut filter = first.delta(&server).await;
    filter.ask(KEY, &[]).await;
    filter.take(KEY).await;
    while first.try_delta(&server).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The server's first one has ended by now as well, and it goes on to let in who has a present one.
    server.client("default/one").delta(&server).await.take_all("default/one").await;
    server.write("consumers.yaml", &consumer("alice", 'a', "'*'"));
    assert_eq!(names(&filter.take(KEY).await), ["a".repeat(64)]);
    envoy.assert_silent().await;
}

#[tokio::test]
async fn no_certificate_a_foreign_one_and_one_that_has_ended_are_refused() {
    let server = two_gateways();
    let own = server.client("default/one");
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Client::made_in(elsewhere.path(), "default/one").that_trusts(&own);
    assert!(refused(foreign, &server).await);
    assert!(refused(own.without_certificate(), &server).await);
    let short = Client::living_for("1s", &server.state(), "default/one");
    // It is good until it ends, which is soon.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(refused(short, &server).await);
    // Without TLS.
    let plain = Endpoint::from_shared(server.xds.replace("https", "http")).unwrap().connect().await;
    let mut plain = AggregatedDiscoveryServiceClient::new(plain.unwrap());
    assert!(plain.delta_aggregated_resources(tokio_stream::empty()).await.is_err());
    for reason in ["NoCertificate", "UnknownAuthority", "Expired", "Other"] {
        let none = format!("tollgate_tls_handshake_failures_total{{port=\"xds\",reason=\"{reason}\"}} 0");
        until("each refusal is counted", async || {
            let text = reqwest::get(format!("http://{}/metrics", server.metrics)).await.unwrap().text().await.unwrap();
            let is_counted = text.contains(&none[..none.len() - 1]) && !text.lines().any(|line| line == none);
            if is_counted { Ok(()) } else { Err(format!("{reason}: {text}")) }
        })
        .await;
    }
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
    let client = server.client("default/one");
    assert_eq!(fetch(&client, &server, &path).await, 200);
    assert_eq!(fetch(&client, &server, "/code/00.wasm").await, 404);
}

/// The status of a GET over the port of the proxies.
async fn fetch(client: &Client, server: &Server, path: &str) -> u16 {
    let mut channel = client.channel(server).await.unwrap();
    let request = axum::http::Request::get(format!("{}{path}", server.xds));
    let request = request.body(tonic::body::Body::empty()).unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    channel.call(request).await.unwrap().status().as_u16()
}

// === the ledger asks who calls ===

/// A budget of 1,000 tokens a day for each consumer, on the route of this Gateway.
fn policy(name: &str) -> String {
    format!(
        "---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
  limits: [{{name: daily, tokens: 1000, window: 1d, scope: [Consumer]}}]
"
    )
}

fn two_gateways_with_budgets() -> Server {
    let consumers = format!("{}---\n{}", consumer("alice", 'a', "'*'"), consumer("bob", 'b', "'*'"));
    Server::start(&[
        ("one.yaml", &format!("{}{}", gateway("one", 18080, 18081), policy("one"))),
        ("two.yaml", &format!("{}{}", gateway("two", 18090, 18091), policy("two"))),
        ("consumers.yaml", &consumers),
    ])
}

fn call(sequence: u64) -> SyncRequest {
    SyncRequest { proxy: "envoy-of-one".into(), epoch: 7, worker: 1, sequence, ..SyncRequest::default() }
}

fn budget_of_one(consumer: &str) -> Option<v1::Bucket> {
    Some(v1::Bucket { limit: "default/one/daily".into(), scope: vec![consumer.into()] })
}

fn used(consumer: &str, route: &str, input_tokens: u64) -> v1::Usage {
    v1::Usage {
        consumer: consumer.into(),
        route: route.into(),
        model: "one-model".into(),
        input_tokens,
        requests: 1,
        ..v1::Usage::default()
    }
}

#[tokio::test]
async fn a_certificate_moves_only_the_budgets_and_usage_of_its_own_gateway() {
    let server = two_gateways_with_budgets();
    let mut own = server.client("default/one").ledger(&server).await;
    let mut other = server.client("default/two").ledger(&server).await;
    let want = |least| v1::Want { bucket: budget_of_one("alice"), wish: least, least };
    let leased = own.sync(SyncRequest { wants: vec![want(300)], ..call(1) }).await.unwrap().into_inner();
    let window_start = leased.grants[0].window_start;
    assert_eq!(leased.grants[0].granted, 300);
    assert!(leased.now > 0, "the ledger says its time");

    // The other one takes the node's name and epoch, spends, leases, writes usage, and skips the numbers ahead.
    let theft =
        v1::Settlement { bucket: budget_of_one("alice"), window_start, from_lease: 300, charged: 1000, released: 0 };
    let attack = SyncRequest {
        usage: vec![used("alice", "one", 50), used("bob", "two", 3)],
        settlements: vec![theft.clone()],
        wants: vec![want(700), v1::Want { bucket: budget_of_one("bob"), wish: 1000, least: 1000 }],
        ..call(1_000_000)
    };
    let answer = other.sync(attack).await.unwrap().into_inner();
    assert!(answer.grants.iter().all(|grant| grant.granted == 0 && grant.limit == 0 && !grant.unknown), "{answer:?}");

    // Ours goes on as if nothing had been.
    let settlement = v1::Settlement { charged: 290, ..theft };
    let report = SyncRequest { usage: vec![used("alice", "one", 290)], settlements: vec![settlement], ..call(2) };
    own.sync(report).await.unwrap();
    let budgets = server.rows("/api/budgets").await;
    assert_eq!(budgets.len(), 1, "{budgets:?}");
    assert_eq!(
        (&budgets[0]["policy"], &budgets[0]["spent"], &budgets[0]["leased"]),
        (&"one".into(), &290.into(), &0.into())
    );
    let usage = server.rows("/api/usage").await;
    let told: Vec<_> = usage
        .iter()
        .map(|row| (row["consumer"].as_str(), row["route"].as_str(), row["input_tokens"].as_u64()))
        .collect();
    assert_eq!(told, [(Some("alice"), Some("one"), Some(290)), (Some("bob"), Some("two"), Some(3))]);
    let metrics = reqwest::get(format!("{}/metrics", server.admin)).await.unwrap().text().await.unwrap();
    for (entry, count) in [("Usage", 1), ("Settlement", 1), ("Want", 2)] {
        let line = format!("tollgate_ledger_refused_entries_total{{entry=\"{entry}\",reason=\"Foreign\"}} {count}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_report_of_a_route_that_was_just_removed_counts() {
    let server = two_gateways_with_budgets();
    let mut own = server.client("default/one").ledger(&server).await;
    let wants = vec![v1::Want { bucket: budget_of_one("alice"), wish: 100, least: 100 }];
    let leased = own.sync(SyncRequest { wants, ..call(1) }).await.unwrap().into_inner();
    server.write("one.yaml", gateway("one", 18080, 18081).split("---").next().unwrap());
    server.status_with(|status| status["generation"] == 2).await;
    let settlement = v1::Settlement {
        bucket: budget_of_one("alice"),
        window_start: leased.grants[0].window_start,
        from_lease: 100,
        charged: 60,
        released: 0,
    };
    let report = SyncRequest { usage: vec![used("alice", "one", 60)], settlements: vec![settlement], ..call(2) };
    own.sync(report).await.unwrap();
    assert_eq!(server.rows("/api/usage").await[0]["input_tokens"], 60);
}

#[tokio::test]
async fn a_call_above_the_limit_is_refused_and_one_below_it_is_not() {
    let server = two_gateways_with_budgets();
    let mut own = server.client("default/one").ledger(&server).await;
    let of_bytes = |bytes: usize| {
        let mut request = call(1);
        let row = used("alice", "one", 1);
        let each = SyncRequest { usage: vec![row.clone()], ..SyncRequest::default() }.encoded_len();
        request.usage = vec![row; (bytes - request.encoded_len()) / each];
        request
    };
    let status = own.sync(of_bytes(v1::MAX_CALL_BYTES + 1024)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let mut largest = of_bytes(v1::MAX_CALL_BYTES);
    largest.usage.truncate(16_384);
    largest.usage[0].backend = "x".repeat(v1::MAX_CALL_BYTES - largest.encoded_len() - 8);
    assert!(largest.encoded_len() <= v1::MAX_CALL_BYTES && largest.encoded_len() > v1::MAX_CALL_BYTES - 64);
    own.sync(largest).await.unwrap();
}

#[tokio::test]
async fn an_envoy_in_which_the_module_may_not_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("filter.so");
    std::fs::write(&module, b"\x7fELF").unwrap();
    let text = gateway("one", 18080, 18081);
    let files = [("one.yaml", text.as_str())];
    let native = Server::start_with(&files, &["--filter", "native", "--module", module.to_str().unwrap()]);
    let mut older = native.client("default/one").delta(&native).await;
    older.ask_as((1, 39), CLUSTER).await;
    let (_, status) = older.refusal().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("1.40"), "{status}");
    let wasm = Server::start(&files);
    for (server, version) in [(&native, (1, 40)), (&wasm, (1, 39))] {
        let mut envoy = server.client("default/one").delta(server).await;
        envoy.ask_as(version, CLUSTER).await;
        assert_eq!(names(&envoy.take(CLUSTER).await), ["backend/default/one"], "{version:?}");
    }
    // A filter that asks for its keys says no version.
    let mut filter = native.client("default/one").delta(&native).await;
    filter.ask(KEY, &[]).await;
    filter.take(KEY).await;
}
