//! Keys at a Service of the mesh. A sidecar gets them from the control plane by the mesh's TLS, and callers show them through
//! their own sidecar.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;
use tollgate_tests::lab::books;
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::lab::curl::Answer;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::{host, policy};

e2e! {
    a_key_is_taken_by_the_sidecar_of_a_service,
    a_key_that_is_revoked_is_refused_soon,
}

/// A Consumer that a Secret shows. A key that two namespaces have would be nobody's.
const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: batch, namespace: NAMESPACE}
stringData: {apiKey: KEY}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: batch, namespace: NAMESPACE}
spec: {keys: [{secretRef: {name: batch}}]}
";

async fn a_key_is_taken_by_the_sidecar_of_a_service(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, foreign, runner) = ("keys", "keys-foreign", host("keys"));
    for namespace in [ns, foreign] {
        members::namespace(&lab, namespace).await?;
    }
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    // Its account is no Consumer's, and it is of another namespace.
    let stranger = members::caller(&lab, foreign, "stranger").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    let of_secret = "planted-key-of-the-first-secret";
    members::apply(&lab, ns, &SECRET.replace("KEY", of_secret)).await?;
    let of_foreign = lab.new_key(foreign, "research")?;
    let [research, own] = [lab.new_key(ns, "research")?, lab.new_key(ns, "web")?];
    stranger.answered(&runner, 401, "the policy is in force").await?;
    members::drained(&lab, ns).await?;

    by_key(&stranger, &runner, &research, "a key is taken").await?;
    by_key(&stranger, &runner, of_secret, "a key of a Secret is taken").await?;
    by_key(&web, &runner, &own, "a key and an identity of one Consumer").await?;
    // The last key that was made is known, so none of these is refused because it came early.
    for (caller, key, what) in [
        (&stranger, "planted-key-of-nobody", "a key of nobody"),
        (&stranger, of_foreign.as_str(), "a key of a Consumer of another namespace"),
        (&web, research.as_str(), "a key and the identity of another Consumer"),
        (&web, "planted-key-of-nobody", "a key of nobody and an identity"),
    ] {
        let refused = with_key(caller, &runner, key).await?;
        anyhow::ensure!(refused.status == 401, "{what}: {refused:?}");
        anyhow::ensure!(!refused.body.contains(key), "{what}: the answer has the key in it: {refused:?}");
    }

    // Each is charged to the Consumer that was shown, by whoever came.
    for (consumer, requests) in [("research", 1), ("batch", 1), ("web", 1)] {
        let rows = books::rows(&lab, &format!("{ns}/{consumer}"), requests).await?;
        let is_of_runner = |row: &Value| row.get("route") == Some(&json!(format!("service/{ns}/runner")));
        anyhow::ensure!(rows.iter().all(is_of_runner), "{rows:?}");
    }
    books::rows(&lab, &format!("{foreign}/research"), 0).await?;
    Ok(())
}

async fn a_key_that_is_revoked_is_refused_soon(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("revoked", host("revoked"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    let [of_secret, next] = ["planted-key-of-the-second-secret", "planted-next-key-of-the-second-secret"];
    members::apply(&lab, ns, &SECRET.replace("KEY", of_secret)).await?;
    let key = lab.new_key(ns, "research")?;
    stranger.answered(&runner, 401, "the policy is in force").await?;
    members::drained(&lab, ns).await?;
    by_key(&stranger, &runner, &key, "the key is taken").await?;
    by_key(&stranger, &runner, of_secret, "the key of the Secret is taken").await?;

    let none = r#"{"spec": {"keys": []}}"#;
    lab.kubectl(&["-n", ns, "patch", "consumer", "research", "--type", "merge", "-p", none]).await?.success()?;
    refused_soon(&stranger, &runner, &key, "a key that was taken from its Consumer").await?;
    members::apply(&lab, ns, &SECRET.replace("KEY", next)).await?;
    refused_soon(&stranger, &runner, of_secret, "a key that its Secret has no more").await?;
    by_key(&stranger, &runner, next, "the next key of the Secret is taken").await
}

async fn with_key(caller: &Caller<'_>, host: &str, key: &str) -> anyhow::Result<Answer> {
    caller.chat_with(host, &["-H", &format!("x-api-key: {key}")]).await
}

/// Asks until a request with this key is answered.
async fn by_key(caller: &Caller<'_>, host: &str, key: &str, what: &str) -> anyhow::Result<()> {
    caller.answered_with(host, &["-H", &format!("authorization: Bearer {key}")], 200, what).await?;
    Ok(())
}

/// From now on.
async fn refused_soon(caller: &Caller<'_>, host: &str, key: &str, what: &str) -> anyhow::Result<()> {
    let from = Instant::now();
    poll::within(PATIENCE, what, || async { with_key(caller, host, key).await?.expect(401) }).await?;
    println!("    {what} was refused after {:.1} s", from.elapsed().as_secs_f64());
    Ok(())
}
