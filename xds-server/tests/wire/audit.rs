//! The audit log of a real control plane.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tollgate_proto::v1::{self, SyncRequest};

use super::support::{Client, Server, until};
use super::{call, gateway, policy, used};

const KEY: &str = "sk-planted-key-of-alice-7b1f";
const CREDENTIAL: &str = "planted-credential-of-a-provider";

/// Alice, with her key in a Secret, and the Secret of a provider.
fn alice(models: &str) -> String {
    format!(
        "apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: alice}}
spec: {{keys: [{{secretRef: {{name: alice}}}}], models: [{models}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: alice}}
stringData: {{apiKey: {KEY}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: provider}}
stringData: {{apiKey: {CREDENTIAL}}}
"
    )
}

fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last one may be half there.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for a line that has all of this.
async fn line(log: &Path, wanted: Value) -> Value {
    let fits = |line: &Value| wanted.as_object().unwrap().iter().all(|(name, value)| line[name] == *value);
    until("a line of the audit log", async || {
        let lines = lines(log);
        let found = lines.iter().find(|line| fits(line)).cloned();
        found.ok_or_else(|| format!("{wanted} is not in {lines:#?}"))
    })
    .await
}

#[tokio::test]
async fn what_happens_is_in_the_audit_log_and_no_key() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.jsonl");
    let one = |port| format!("{}{}", gateway("one", 18080, port), policy("one"));
    let files = [("one.yaml", one(18081)), ("alice.yaml", alice("'*'"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let server = Server::start_with(&files, &["--audit-log", log.to_str().unwrap()]);

    // The configuration, as it is and as it changes.
    let backend = json!({"event": "configuration", "kind": "ModelBackend", "namespace": "default", "name": "one"});
    let with = |action: &str| {
        let mut wanted = backend.clone();
        wanted["action"] = action.into();
        wanted
    };
    let before = line(&log, with("added")).await;
    assert!(before["file"].as_str().unwrap().ends_with("one.yaml:23"), "{before}");
    server.write("one.yaml", &one(19999));
    let after = line(&log, with("changed")).await;
    assert_ne!(after["spec"], before["spec"]);
    server.write("one.yaml", &one(19999).replace("schema: OpenAI", "schema: Nonsense"));
    line(&log, with("refused")).await;
    server.write("one.yaml", &one(19999));

    // Her key, by eight digits.
    let digits = &hex::encode(Sha256::digest(KEY))[..8];
    let key = json!({"event": "key", "consumer": "alice", "key": format!("sha256 {digits}…")});
    let added = line(&log, key).await;
    assert_eq!(added["action"], "added");

    // What she uses and spends, and what nobody may.
    let mut ledger = server.client("default/one").ledger(&server).await;
    let bucket = Some(v1::Bucket { limit: "default/one/daily".into(), scope: vec!["alice".into()] });
    let settlements = vec![v1::Settlement { bucket, window_start: 0, from_lease: 0, charged: 850, released: 0 }];
    let usage = vec![used("alice", "one", 850), used("mallory", "one", 1)];
    ledger.sync(SyncRequest { usage, settlements, ..call(1) }).await.unwrap();
    let threshold = json!({"event": "budgetThreshold", "policy": "default/one", "limit": "daily", "threshold": 80});
    assert_eq!(line(&log, threshold).await["scope"], json!(["alice"]));
    line(&log, json!({"event": "ledgerRefused", "entry": "Usage", "reason": "Foreign", "count": 1})).await;
    // It ended in a minute that has passed: the call does not say when.
    let usage = line(&log, json!({"event": "usage", "consumer": "alice", "route": "one"})).await;
    assert_eq!((&usage["requests"], &usage["inputTokens"]), (&1.into(), &850.into()));

    // Who does not get in.
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Client::made_in(elsewhere.path(), "default/one").that_trusts(&server.client("default/one"));
    assert!(foreign.try_delta(&server).await.is_err());
    let refused = line(&log, json!({"event": "tlsRefused", "port": "xds", "reason": "UnknownAuthority"})).await;
    assert!(refused["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");

    server.remove("alice.yaml");
    line(&log, json!({"event": "key", "action": "removed", "consumer": "alice"})).await;
    line(&log, json!({"event": "configuration", "action": "removed", "kind": "Consumer", "name": "alice"})).await;

    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().count() > 10, "{text}");
    for secret in [KEY, CREDENTIAL, &hex::encode(Sha256::digest(KEY))] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

/// TLS takes its certificate for a while yet.
#[tokio::test]
async fn a_proxy_without_a_gateway_is_in_the_audit_log_once() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.jsonl");
    let files = [("one.yaml", gateway("one", 18080, 18081)), ("two.yaml", gateway("two", 18082, 18083))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let server = Server::start_with(&files, &["--audit-log", log.to_str().unwrap()]);
    let mut ledger = server.client("default/one").ledger(&server).await;
    let mut envoy = server.client("default/one").delta(&server).await;
    envoy.take_all("default/one").await;
    server.remove("one.yaml");
    envoy.refusal().await;
    let refused = line(&log, json!({"event": "callRefused"})).await;
    assert!(refused["identity"].as_str().unwrap().contains("one"), "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("no Gateway"), "{refused}");
    for _ in 0..3 {
        ledger.sync(SyncRequest::default()).await.unwrap_err();
    }
    // What is told after it is written after it.
    server.remove("two.yaml");
    line(&log, json!({"event": "configuration", "kind": "Gateway", "name": "two", "action": "removed"})).await;
    assert_eq!(lines(&log).iter().filter(|line| line["event"] == "callRefused").count(), 1);
}

#[tokio::test]
async fn the_file_is_private_and_another_is_begun_when_it_is_moved() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.jsonl");
    let server =
        Server::start_with(&[("one.yaml", &gateway("one", 18080, 18081))], &["--audit-log", log.to_str().unwrap()]);
    let gateway_one = json!({"event": "configuration", "kind": "Gateway", "name": "one"});
    line(&log, gateway_one.clone()).await;
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let moved = home.path().join("audit.jsonl.1");
    fs::rename(&log, &moved).unwrap();
    server.remove("one.yaml");
    line(&log, json!({"event": "configuration", "kind": "Gateway", "name": "one", "action": "removed"})).await;
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    line(&moved, gateway_one).await;
}
