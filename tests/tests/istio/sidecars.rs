//! A runner whose sidecar has the filter, put there by istiod: who may ask it and what that costs.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::books;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;

use crate::members;

e2e! {
    members_reach_runners_by_mutual_tls_alone,
    a_policy_of_a_service_acts_in_its_sidecars,
    a_policy_changes_and_no_listener_does,
}

/// A Consumer that a certificate shows, and a budget for each.
pub const POLICY: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: web, namespace: NAMESPACE}
spec: {identities: [spiffe://cluster.local/ns/NAMESPACE/sa/web]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: daily, namespace: NAMESPACE}
spec:
  targetRefs: [{kind: Service, name: runner}]
  limits: [{name: day, tokens: TOKENS, window: 1d, scope: [Consumer]}]
";

/// What the policy allows.
pub fn policy(tokens: u64) -> String {
    POLICY.replace("TOKENS", &tokens.to_string())
}

/// The runner as its callers name it.
pub fn host(namespace: &str) -> String {
    format!("runner.{namespace}")
}

async fn members_reach_runners_by_mutual_tls_alone(lab: Arc<Lab>) -> anyhow::Result<()> {
    members::namespace(&lab, "strict").await?;
    members::runner(&lab, "strict").await?;
    let web = members::caller(&lab, "strict", "web").await?;
    let answer = web.answered(&host("strict"), 200, "the model answers through both sidecars").await?;
    anyhow::ensure!(answer.body.contains("choices"), "{answer:?}");
    // Somebody outside of the mesh.
    let address = lab.field(&["-n", "strict", "pods", "-l", "app=runner"], "{.items[0].status.podIP}").await?;
    let url = format!("http://{address}:8000/health");
    let plain = lab.exec(&["curl", "-s", "-i", "--max-time", "10", &url]).await?;
    anyhow::ensure!(plain.code != Some(0) && plain.out.is_empty(), "plain text is taken: {plain:?}");
    Ok(())
}

async fn a_policy_of_a_service_acts_in_its_sidecars(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("models", host("models"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    stranger.answered(&runner, 200, "nothing limits the runner yet").await?;

    members::apply(&lab, ns, &policy(1_000_000)).await?;
    let filter = ["-n", ns, "envoyfilter", "tollgate-inbound-runner"];
    poll::until("there is an EnvoyFilter", || lab.field(&filter, "{.metadata.uid}")).await?;
    let refused = stranger.answered(&runner, 401, "a stranger is refused").await?;
    anyhow::ensure!(refused.body.contains(&stranger.identity()), "{refused:?}");
    web.limited(&runner, 1_000_000).await?;
    // What a caller says of itself counts for nothing.
    let forged = format!("x-forwarded-client-cert: By=spiffe://x/y;Hash=00;URI={}", web.identity());
    stranger.answered_with(&runner, &["-H", &forged], 401, "a forged identity is refused").await?;
    // Istiod has carried it.
    let pod = lab.pod(ns, "app=runner").await?;
    poll::until("istioctl shows the filter", || async {
        let carried = lab.istioctl(&["proxy-config", "ecds", &pod, "-n", ns, "-o", "json"]).await?.success()?;
        anyhow::ensure!(carried.out.contains("tollgate/workload/models/runner/inbound/request"), "{}", carried.out);
        Ok(())
    })
    .await?;

    let rows = books::rows(&lab, "models/web", 1).await?;
    let is_of_runner = |row: &Value| row.get("route") == Some(&json!("service/models/runner"));
    anyhow::ensure!(rows.iter().all(is_of_runner), "{rows:?}");

    // The budget ends.
    members::apply(&lab, ns, &policy(100)).await?;
    let refused = web.answered(&runner, 429, "the budget is used up").await?;
    anyhow::ensure!(
        refused.head.contains("retry-after") && refused.body.contains("rate_limit_exceeded"),
        "{refused:?}"
    );
    // The last policy takes the filter with it.
    lab.kubectl(&["-n", ns, "delete", "tokenpolicy", "daily"]).await?.success()?;
    stranger.answered(&runner, 200, "nothing limits the runner any more").await?;
    Ok(())
}

async fn a_policy_changes_and_no_listener_does(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (ns, runner) = ("changes", host("changes"));
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    members::apply(&lab, ns, &policy(1_000_000)).await?;
    web.limited(&runner, 1_000_000).await?;
    // The first policy has changed them.
    members::drained(&lab, ns).await?;
    let pod = lab.pod(ns, "app=runner").await?;
    let listeners = async || {
        let names = ["listener_modified", "listener_in_place_updated", "total_filter_chains_draining"];
        let mut found = Vec::new();
        for name in names {
            found.push(members::counted(&lab, ns, &pod, &format!("listener_manager.{name}")).await?);
        }
        anyhow::Ok(found)
    };
    let before = listeners().await?;
    for tokens in [900_000, 800_000] {
        members::apply(&lab, ns, &policy(tokens)).await?;
        web.limited(&runner, tokens).await?;
    }
    let after = listeners().await?;
    anyhow::ensure!(before == after, "listeners have changed: {before:?} and {after:?}");
    Ok(())
}
