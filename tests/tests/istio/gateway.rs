//! A Gateway of Tollgate in the mesh, with the certificate that Istio's agent gets it: it is asked by members, and leads to a
//! runner that takes the mesh's mutual TLS alone.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_tests::lab::books;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::members;
use crate::sidecars::host;

e2e! {
    a_gateway_reaches_a_runner_of_the_mesh_and_charges_once,
    a_runner_lets_in_whom_an_authorization_policy_names,
}

/// Lets this service account in to the runner, and nobody else.
const ADMITTED: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: runner, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: runner}}
  rules: [{from: [{source: {principals: [cluster.local/ns/NAMESPACE/sa/ACCOUNT]}}]}]
";

/// One policy is for the way by the Gateway and for the runner itself, and another one for the runner alone.
pub const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: NAMESPACE}
spec:
  gatewayClassName: tollgate
  listeners:
  - {name: mesh, port: 8443, protocol: HTTPS, tls: {options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: NAMESPACE}
spec:
  parentRefs: [{name: llm}]
  rules: [{matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: NAMESPACE}
spec: {models: [{name: smol, targets: [{backendRef: {name: runner}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner, namespace: NAMESPACE}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: web, namespace: NAMESPACE}
spec: {identities: [spiffe://cluster.local/ns/NAMESPACE/sa/web]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: both, namespace: NAMESPACE}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}
  - {kind: Service, name: runner}
  limits: [{name: day, tokens: 1000000, window: 1d, scope: [Consumer]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: own, namespace: NAMESPACE}
spec:
  targetRefs: [{kind: Service, name: runner}]
  limits: [{name: day, tokens: 500000, window: 1d, scope: [Consumer]}]
";

async fn a_gateway_reaches_a_runner_of_the_mesh_and_charges_once(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ns = "gateway";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    let stranger = members::caller(&lab, ns, "stranger").await?;
    members::apply(&lab, ns, GATEWAY).await?;
    lab.kubectl(&["-n", ns, "wait", "--for=condition=Programmed", WAIT, "gateway/llm"]).await?.success()?;

    // The runner's sidecar has its filter.
    stranger.answered(&host(ns), 401, "the runner is not open").await?;
    let gateway = format!("llm-tollgate.{ns}:8443");
    let answer = web.answered(&gateway, 200, "the Gateway leads to the runner").await?;
    anyhow::ensure!(answer.body.contains("choices"), "{answer:?}");
    let refused = stranger.chat(&gateway).await?.expect(401)?;
    anyhow::ensure!(refused.body.contains(&stranger.identity()), "{refused:?}");

    let rows = books::rows(&lab, &format!("{ns}/web"), 1).await?;
    let by_gateway = |row: &Value| row.get("route") == Some(&json!(format!("{ns}/chat")));
    anyhow::ensure!(rows.iter().all(by_gateway), "the Gateway tells of it: {rows:?}");
    let used = books::tokens(&rows);
    anyhow::ensure!(used > 0, "{rows:?}");
    // Each budget has it once.
    poll::within(PATIENCE, "both budgets are settled", || async {
        let spent = books::spent(&lab, &format!("{ns}/web")).await?;
        let once = [("both", used), ("own", used)].map(|(policy, used)| (format!("{ns}/{policy}"), used));
        anyhow::ensure!(spent == once, "{used} were used: {spent:?}");
        Ok(())
    })
    .await
}

async fn a_runner_lets_in_whom_an_authorization_policy_names(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ns = "admitted";
    members::namespace(&lab, ns).await?;
    members::runner(&lab, ns).await?;
    let web = members::caller(&lab, ns, "web").await?;
    members::apply(&lab, ns, GATEWAY).await?;
    lab.kubectl(&["-n", ns, "wait", "--for=condition=Programmed", WAIT, "gateway/llm"]).await?.success()?;
    let (direct, gateway) = (host(ns), format!("llm-tollgate.{ns}:8443"));
    for (account, let_in, refused) in [("llm-tollgate", &gateway, &direct), ("web", &direct, &gateway)] {
        members::apply(&lab, ns, &ADMITTED.replace("ACCOUNT", account)).await?;
        web.answered(refused, 403, "who is not named is refused").await?;
        web.answered(let_in, 200, "who is named is let in").await?;
    }
    Ok(())
}
