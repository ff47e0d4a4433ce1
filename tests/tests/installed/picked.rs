//! InferencePools with the endpoint picker of the Inference Extension's conformance suite, which picks what a header of the
//! request says.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;

use crate::shop;

e2e! {
    a_picker_is_followed_and_without_it_a_pool_is_closed_or_open,
}

/// The pools are of the Pods of the shop. The picker is that of `closed`, and `open` asks it as well.
const POOLS: &str = include_str!("picked.yaml");
const PICK: &str = "test-epp-endpoint-selection";

async fn a_picker_is_followed_and_without_it_a_pool_is_closed_or_open(lab: Arc<Lab>) -> anyhow::Result<()> {
    let address = shop::web(&lab, "picked", "").await?;
    lab.apply(POOLS).await?;
    let pods = pods(&lab).await?;
    let [(first, ip), (_, other)] = pods.as_slice() else { anyhow::bail!("{pods:?}") };
    let ask = async |path: &str, headers: &[String]| {
        let url = format!("http://{address}/{path}");
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let body = ["--data", r#"{"model": "m"}"#, &url];
        let answer = shop::ask(&lab, &headers.chain(body).collect::<Vec<_>>()).await?;
        let told: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let pod = told.get("pod").and_then(Value::as_str).unwrap_or_default().to_owned();
        anyhow::Ok((answer.status, pod))
    };
    // Without a picker the gateway chooses, and each Pod has its turn.
    poll::until("both Pods answer", || async {
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            seen.insert(ask("own", &[]).await?);
        }
        let all: BTreeSet<(u16, String)> = pods.iter().map(|(name, _)| (200, name.clone())).collect();
        anyhow::ensure!(seen == all, "{seen:?}");
        Ok(())
    })
    .await?;
    for path in ["closed", "open"] {
        poll::until("the picker is followed", || async {
            let found = ask(path, &[format!("{PICK}: {ip}")]).await?;
            anyhow::ensure!(found == (200, first.clone()), "{found:?}");
            Ok(())
        })
        .await?;
        // A client is not its own picker.
        for _ in 0..10 {
            let own = format!("x-gateway-destination-endpoint: {other}:8080");
            let found = ask(path, &[format!("{PICK}: {ip}"), own]).await?;
            anyhow::ensure!(found == (200, first.clone()), "{path}: {found:?}");
        }
    }
    let at = "{.status.parents[*].parentRef.name} {.status.parents[*].conditions[*].status}";
    for pool in ["own", "closed", "open"] {
        poll::until("the pool says so", || async {
            let said = lab.field(&["-n", "picked", "inferencepool", pool], at).await?;
            anyhow::ensure!(said == "shop True True", "{pool}: {said}");
            Ok(())
        })
        .await?;
    }
    lab.kubectl(&["-n", "picked", "scale", "deployment", "picker", "--replicas=0"]).await?.success()?;
    poll::until("the picker is gone", || async {
        let (closed, open) = (ask("closed", &[]).await?, ask("open", &[]).await?);
        anyhow::ensure!((closed.0, open.0) == (503, 200), "{closed:?} {open:?}");
        Ok(())
    })
    .await?;
    // Nobody names the pool any more.
    lab.kubectl(&["-n", "picked", "delete", "httproute", "pools"]).await?.success()?;
    poll::until("the pool has no parent", || async {
        let said = lab.field(&["-n", "picked", "inferencepool", "own"], at).await?;
        anyhow::ensure!(said.trim().is_empty(), "{said}");
        Ok(())
    })
    .await
}

/// Names and addresses.
async fn pods(lab: &Lab) -> anyhow::Result<Vec<(String, String)>> {
    let get = ["-n", "picked", "get", "pods", "-l", "app=web", "-o", "json"];
    let pods: Value = serde_json::from_str(&lab.kubectl(&get).await?.success()?.out)?;
    let pods = pods.get("items").and_then(Value::as_array).context("there are no Pods")?;
    let text = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let found = pods.iter().map(|pod| Some((text(pod, "/metadata/name")?, text(pod, "/status/podIP")?)));
    found.collect::<Option<Vec<_>>>().context("a Pod has no address")
}
