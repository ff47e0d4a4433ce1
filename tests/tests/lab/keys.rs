//! `tollgate key` on a real API server: a Consumer is made and its keys are rotated, and people are told when one ends.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tollgate_tests::cli::Output;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

use crate::source::account;
use crate::statuses::{Serving, WRITERS, get, is};

e2e! {
    a_key_is_let_in_by_its_hash_and_rotated_with_an_overlap,
    whoever_may_not_write_consumers_is_told_what_is_missing,
}

const CONSUMER: [&str; 4] = ["-n", "keys", "consumer", "app"];

async fn a_key_is_let_in_by_its_hash_and_rotated_with_an_overlap(lab: Arc<Lab>) -> anyhow::Result<()> {
    let _writers = WRITERS.read().await;
    lab.apply("{apiVersion: v1, kind: Namespace, metadata: {name: keys}}").await?;
    let arguments = ["--leader-election", "false", "--namespace", "keys", "--key-expiry-warning", "1h"];
    let mut serving = Serving::start(&lab, "keys", &arguments)?;
    let kubeconfig = lab.kubeconfig();

    let first = key(&kubeconfig, &["new"]).await?;
    let hashes = json!([{"sha256": hex::encode(Sha256::digest(&first))}]);
    let made = get(&lab, &CONSUMER).await?;
    anyhow::ensure!(made.pointer("/spec/keys") == Some(&hashes), "{made}");
    says(&lab, 1).await?;
    anyhow::ensure!(is(&lab, &CONSUMER, "/status/conditions", "KeysExpiring", "True", "KeyEnds").await.is_err());

    let second = key(&kubeconfig, &["rotate", "--overlap", "30m"]).await?;
    anyhow::ensure!(first != second, "the same key again");
    says(&lab, 2).await?;
    poll::until("it is warned of the first key's end", || async {
        is(&lab, &CONSUMER, "/status/conditions", "KeysExpiring", "True", "KeyEnds").await
    })
    .await?;
    // An overlap of seconds might be over before anybody has looked.
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 5)?;
    let ends = json!([{"op": "replace", "path": "/spec/keys/0/notAfter", "value": soon.to_string()}]).to_string();
    lab.kubectl(&["-n", "keys", "patch", "consumer", "app", "--type", "json", "-p", &ends]).await?.success()?;
    poll::until("the first key has ended", || async {
        is(&lab, &CONSUMER, "/status/conditions", "KeysExpiring", "False", "KeyEnded").await
    })
    .await?;
    says(&lab, 1).await?;
    poll::until("there are events", || async {
        let events = get(&lab, &["-n", "keys", "events"]).await?.to_string();
        anyhow::ensure!(events.contains("KeyEnds") && events.contains("KeyEnded"), "{events}");
        Ok(())
    })
    .await?;

    let third = key(&kubeconfig, &["rotate", "--expires", "30d"]).await?;
    let rotated = get(&lab, &CONSUMER).await?;
    let keys = rotated.pointer("/spec/keys").and_then(Value::as_array).context("a list of keys")?;
    let hash = |place: usize| keys.get(place).and_then(|key| key.get("sha256")).and_then(Value::as_str);
    let expected = [&second, &third].map(|key| hex::encode(Sha256::digest(key)));
    anyhow::ensure!([hash(0), hash(1)] == expected.each_ref().map(|hash| Some(hash.as_str())), "{rotated}");
    let all =
        lab.kubectl(&["-n", "keys", "get", "consumers,secrets,configmaps,events", "-o", "yaml"]).await?.success()?;
    let shown = [&first, &second, &third].into_iter().any(|key| all.out.contains(key.as_str()));
    anyhow::ensure!(!shown, "a key is in the cluster");
    let row = lab.kubectl(&["-n", "keys", "get", "consumer", "app"]).await?.success()?.out;
    anyhow::ensure!(row.contains("KEYS") && row.contains("LAST USED"), "{row}");
    serving.process.kill()
}

async fn whoever_may_not_write_consumers_is_told_what_is_missing(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply("{apiVersion: v1, kind: Namespace, metadata: {name: keyless}}").await?;
    let rule = "{apiGroups: [tollgate.dev], resources: [consumers], verbs: [get]}";
    let kubeconfig = account(&lab, "keyless", rule).await?;
    let output = tollgate(&kubeconfig, &["new", "--namespace", "keyless"]).await?;
    let told = "create of consumers.tollgate.dev is forbidden in namespace keyless";
    anyhow::ensure!(output.code == Some(2) && output.err.contains(told) && output.out.is_empty(), "{output:?}");
    Ok(())
}

/// The status says that so many keys count.
async fn says(lab: &Lab, keys: u64) -> anyhow::Result<()> {
    poll::until("the status counts the keys", || async {
        let found = get(lab, &CONSUMER).await?;
        anyhow::ensure!(found.pointer("/status/keys") == Some(&keys.into()), "{found}");
        Ok(())
    })
    .await
}

/// The key that is printed.
async fn key(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = tollgate(kubeconfig, &[arguments, &["--namespace", "keys"]].concat()).await?.success()?;
    let key = output.out.trim().to_owned();
    anyhow::ensure!(key.starts_with("tg-") && !output.err.contains(&key), "{output:?}");
    Ok(key)
}

async fn tollgate(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(Tools::find()?.tollgate);
    command.arg("key").args(arguments).args(["--consumer", "app", "--apply", "--kubeconfig"]).arg(kubeconfig);
    Ok(command.output().await.context("tollgate does not start")?.into())
}
