//! A namespace of the mesh and a runner in it, and what the sidecar of a Pod counts. Istio's webhook gives Pods their sidecars.

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::lab::caller::Caller;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

/// A namespace whose Pods are in the mesh.
const MEMBERS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE, labels: {istio-injection: enabled}}
";

/// A Pod that asks, with an account of its own.
const CALLER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: CALLER, namespace: NAMESPACE}
---
apiVersion: v1
kind: Pod
metadata: {name: CALLER, namespace: NAMESPACE, labels: {app: CALLER}}
spec:
  serviceAccountName: CALLER
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000}
  containers:
  - {name: caller, image: busybox, command: [sleep, infinity]}
";

/// llama.cpp with a real model, and its Service.
const RUNNER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner, namespace: NAMESPACE}
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: NAMESPACE}
spec: {selector: {app: runner}, ports: [{name: http, port: 80, targetPort: 8000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: runner, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: runner}}
  template:
    metadata: {labels: {app: runner}}
    spec:
      serviceAccountName: runner
      terminationGracePeriodSeconds: 2
      containers:
      - name: runner
        image: llm:1
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /health, port: 8000}}
";

/// The objects of a namespace, with its name in them.
pub async fn apply(lab: &Lab, namespace: &str, objects: &str) -> anyhow::Result<()> {
    lab.apply(&objects.replace("NAMESPACE", namespace)).await
}

/// A namespace whose Pods are in the mesh.
pub async fn namespace(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    apply(lab, namespace, MEMBERS).await
}

/// A model behind the Service `runner` of this namespace.
pub async fn runner(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    apply(lab, namespace, RUNNER).await?;
    lab.kubectl(&["-n", namespace, "rollout", "status", "deployment/runner", WAIT]).await?.success()?;
    Ok(())
}

/// Starts a Pod that asks.
pub async fn caller<'a>(lab: &'a Lab, namespace: &str, name: &str) -> anyhow::Result<Caller<'a>> {
    apply(lab, namespace, &CALLER.replace("CALLER", name)).await?;
    Caller::ready(lab, namespace, name).await
}

/// Waits until no connection to the runner is without the filter any more. A policy that is a Service's first changes the
/// listeners of its sidecars, and connections from before serve one more request as they did.
pub async fn drained(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    let pod = lab.pod(namespace, "app=runner").await?;
    poll::within(PATIENCE, "connections from before are gone", || async {
        let draining = counted(lab, namespace, &pod, "listener_manager.total_filter_chains_draining").await?;
        anyhow::ensure!(draining == 0, "{draining} are drained");
        Ok(())
    })
    .await
}

/// What the sidecar of a Pod counts under this name, as Istio's agent tells it.
pub async fn counted(lab: &Lab, namespace: &str, pod: &str, name: &str) -> anyhow::Result<u64> {
    let request = ["pilot-agent", "request", "GET", "stats?format=json"];
    let stats =
        lab.kubectl(&[&["-n", namespace, "exec", pod, "-c", "istio-proxy", "--"], &request[..]].concat()).await?;
    let stats: Value = serde_json::from_str(&stats.success()?.out)?;
    let all = stats.get("stats").and_then(Value::as_array).context("no statistics")?;
    let found = all.iter().find(|stat| stat.get("name") == Some(&json!(name)));
    found.and_then(|stat| stat.get("value")?.as_u64()).with_context(|| format!("the sidecar does not count {name}"))
}
