//! The chart's alerts, each by its real fault: a real Prometheus scrapes the port for scrapers of a real control plane.
//! Those that need a real API server are in tests/tests/lab/alerts.rs.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tollgate_proto::v1::{self, SyncRequest};

use super::prometheus::{self, Prometheus};
use super::support::{CLUSTER, Client, Server, nack, until};
use super::{call, consumer, gateway, policy, used};

fn server(arguments: &[&str]) -> Server {
    let files = format!("{}{}", gateway("one", 18080, 18081), policy("one"));
    Server::start_with(&[("one.yaml", &files), ("consumers.yaml", &consumer("alice", 'a', "'*'"))], arguments)
}

/// Alice owes so many tokens.
fn owes(sequence: u64, charged: u64) -> SyncRequest {
    let bucket = Some(v1::Bucket { limit: "default/one/daily".into(), scope: vec!["alice".into()] });
    let settlements = vec![v1::Settlement { bucket, window_start: 0, from_lease: 0, charged, released: 0 }];
    SyncRequest { settlements, ..call(sequence) }
}

#[tokio::test]
async fn every_alert_is_silent_until_its_fault_and_fires_after_it() {
    if !prometheus::is_here() {
        return;
    }
    // Nobody listens there.
    let server = server(&["--webhook", "http://127.0.0.1:9/"]);
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    let client = server.client("default/one");
    let mut envoy = client.delta(&server).await;
    envoy.take_all("default/one").await;
    let mut ledger = client.ledger(&server).await;
    let used_exactly = vec![used("alice", "one", 50)];
    ledger.sync(SyncRequest { usage: used_exactly, ..owes(1, 500) }).await.unwrap();
    prometheus.silent(&[]).await.unwrap();

    let sequence = Cell::new(1);
    let next = || {
        sequence.set(sequence.get() + 1);
        sequence.get()
    };
    ledger.sync(owes(next(), 450)).await.unwrap();
    prometheus.fires("TollgateBudgetNearlySpent", async || {}).await.unwrap();
    prometheus.fires("TollgateWebhookFails", async || {}).await.unwrap();

    let estimated = async || {
        let usage = vec![v1::Usage { estimated_requests: 1, ..used("alice", "one", 1) }];
        ledger.clone().sync(SyncRequest { usage, ..call(next()) }).await.unwrap();
    };
    prometheus.fires("TollgateEstimatedShareHigh", estimated).await.unwrap();

    let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
    let ends = consumer("alice", 'a', "'*'").replace("'}]", &format!("', notAfter: '{tomorrow}'}}]"));
    server.write("consumers.yaml", &ends);
    prometheus.fires("TollgateKeysEndSoon", async || {}).await.unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Client::made_in(elsewhere.path(), "default/one").that_trusts(&client);
    let foreign_knocks = async || assert!(foreign.try_delta(&server).await.is_err());
    prometheus.fires("TollgateTlsHandshakesFail", foreign_knocks).await.unwrap();
    let of_foreign = r#"tollgate_tls_handshake_failures_total{port="xds",reason="UnknownAuthority"} > 0"#;
    assert_eq!(prometheus.query(of_foreign).await.unwrap().len(), 1);

    // It does not say yet what it thinks of that.
    server.write("one.yaml", &format!("{}{}", gateway("one", 18080, 19999), policy("one")));
    let update = envoy.next().await;
    assert_eq!(update.type_url, CLUSTER);
    prometheus.fires("TollgateProxiesOutOfSync", async || {}).await.unwrap();
    envoy.answer(&update, nack("no such port")).await;
    prometheus.fires("TollgateConfigurationRefused", async || {}).await.unwrap();

    drop(server);
    prometheus.fires("TollgateAbsent", async || {}).await.unwrap();
}

#[tokio::test]
async fn what_a_real_port_serves_is_in_the_reference() {
    let server = server(&["--webhook", "http://127.0.0.1:9/"]);
    server.client("default/one").delta(&server).await.take_all("default/one").await;
    let text = reqwest::get(format!("http://{}/metrics", server.metrics)).await.unwrap().text().await.unwrap();
    let reference = include_str!("../../../docs/reference/metrics.md");
    let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(types.len() > 20, "{types:?}");
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(reference.contains(&format!("| `{name}` | {kind} | ")), "{name} is not in docs/reference/metrics.md");
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_told_and_its_end_too() {
    if !prometheus::is_here() {
        return;
    }
    let server = server(&["--certificate-lifetime", "20s"]);
    // An Envoy that has its certificate from the state directory.
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["bootstrap", "--gateway", "default/one", "--certificate-lifetime", "20s", "--state"])
        .arg(server.state())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    let mut ledger = server.client("default/one").ledger(&server).await;
    ledger.sync(owes(1, 1)).await.unwrap();
    prometheus.silent(&[]).await.unwrap();
    assert_eq!(prometheus.query(r#"tollgate_certificate_expiry_seconds{certificate="envoy"}"#).await.unwrap().len(), 1);

    files_may_have(&server, Some(0));
    let sequence = Cell::new(1);
    let calls = async |answers: bool| {
        sequence.set(sequence.get() + 1);
        assert_eq!(ledger.clone().sync(owes(sequence.get(), 1)).await.is_ok(), answers);
    };
    prometheus.fires("TollgateLedgerUnavailable", async || calls(false).await).await.unwrap();
    prometheus.fires("TollgateCertificateNotRenewed", async || {}).await.unwrap();
    files_may_have(&server, None);
    until("the ledger writes again", async || {
        sequence.set(sequence.get() + 1);
        ledger.clone().sync(owes(sequence.get(), 1)).await.map(drop).map_err(|status| status.to_string())
    })
    .await;
    prometheus.ends("TollgateLedgerUnavailable", async || calls(true).await).await.unwrap();
    prometheus.ends("TollgateCertificateNotRenewed", async || {}).await.unwrap();
}

/// Only a proxy in a Pod knows when its own certificate ends. This is what it says, beside what a control plane does.
#[tokio::test]
async fn a_proxy_that_gets_no_new_certificate_is_told() {
    if !prometheus::is_here() {
        return;
    }
    let ends = Arc::new(AtomicI64::new(i64::MAX));
    let said = Arc::clone(&ends);
    let metrics = axum::routing::get(async move || {
        let ends = said.load(Ordering::Relaxed);
        format!(
            "tollgate_certificate_expiry_seconds{{certificate=\"proxy\"}} {ends}\n\
             tollgate_certificate_lifetime_seconds{{certificate=\"proxy\"}} 86400\n"
        )
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/metrics", metrics)).await });
    let server = server(&[]);
    let prometheus = Prometheus::start(&[&server.metrics, &proxy]).await.unwrap();
    let in_a_day = Timestamp::now().as_second() + 86400;
    ends.store(in_a_day, Ordering::Relaxed);
    prometheus.silent(&[]).await.unwrap();
    // A sixth of it is left.
    ends.store(in_a_day - 72000, Ordering::Relaxed);
    prometheus.fires("TollgateCertificateNotRenewed", async || {}).await.unwrap();
    ends.store(in_a_day, Ordering::Relaxed);
    prometheus.ends("TollgateCertificateNotRenewed", async || {}).await.unwrap();
}

/// As on a disk that is full: what would write beyond so many bytes of a file fails. None: all may be written.
fn files_may_have(server: &Server, bytes: Option<u64>) {
    let process = Pid::from_raw(server.process().try_into().unwrap());
    prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[tokio::test]
async fn a_ca_that_ends_soon_is_told() {
    if !prometheus::is_here() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let pki = state.path().join("state/pki");
    std::fs::create_dir_all(&pki).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(300);
    ca.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(60);
    std::fs::write(pki.join("ca.key"), key.serialize_pem()).unwrap();
    std::fs::write(pki.join("ca.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
    let server = Server::start_in(state, &[("one.yaml", &gateway("one", 18080, 18081))], &[]);
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    prometheus.fires("TollgateAuthorityEndsSoon", async || {}).await.unwrap();
    prometheus.silent(&["TollgateAuthorityEndsSoon"]).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_told() {
    if !prometheus::is_here() {
        return;
    }
    let kubeconfig = "\
apiVersion: v1
kind: Config
current-context: gone
contexts: [{name: gone, context: {cluster: gone, user: nobody}}]
clusters: [{name: gone, cluster: {server: 'https://127.0.0.1:9'}}]
users: [{name: nobody, user: {token: none}}]
";
    let server = Server::of_cluster(kubeconfig);
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    prometheus.fires("TollgateNotReady", async || {}).await.unwrap();
    prometheus.fires("TollgateWatchNotSynced", async || {}).await.unwrap();
}

/// Nobody listens where the collector should be.
#[tokio::test]
async fn a_collector_that_takes_nothing_is_told() {
    if !prometheus::is_here() {
        return;
    }
    let server = server(&["--otlp-endpoint", "http://127.0.0.1:9"]);
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    let client = server.client("default/one");
    client.delta(&server).await.take_all("default/one").await;
    let mut ledger = client.ledger(&server).await;
    prometheus.silent(&[]).await.unwrap();
    ledger.sync(SyncRequest { usage: vec![used("alice", "one", 50)], ..call(1) }).await.unwrap();
    prometheus.fires("TollgateUsageEventsFail", async || {}).await.unwrap();
}
