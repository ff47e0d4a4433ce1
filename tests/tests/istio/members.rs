//! Members of the mesh: Pods that ask, a runner that is asked, and what the sidecar of one counts. Istio's webhook gives them
//! their sidecars.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::curl::{Answer, CURL};
use tollgate_tests::lab::install::NAMESPACE;
use tollgate_tests::poll;

/// An image is started, a certificate made, a model read.
pub const PATIENCE: Duration = Duration::from_secs(120);

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

/// A Pod of the mesh that asks others.
pub struct Caller<'a> {
    lab: &'a Lab,
    namespace: String,
    name: String,
}

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
    lab.kubectl(&["-n", namespace, "rollout", "status", "deployment/runner", "--timeout=180s"]).await?.success()?;
    Ok(())
}

/// Waits until no connection to the runner is without the filter any more. A policy that is a Service's first changes the
/// listeners of its sidecars, and connections from before serve one more request as they did.
pub async fn drained(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    let pod = pod(lab, namespace, "app=runner").await?;
    poll::within(PATIENCE, "connections from before are gone", || async {
        let draining = counted(lab, namespace, &pod, "listener_manager.total_filter_chains_draining").await?;
        anyhow::ensure!(draining == 0, "{draining} are drained");
        Ok(())
    })
    .await
}

/// The name of a Pod with this label.
pub async fn pod(lab: &Lab, namespace: &str, label: &str) -> anyhow::Result<String> {
    lab.field(&["-n", namespace, "pods", "-l", label], "{.items[0].metadata.name}").await
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

/// A question to a model.
pub fn question(model: &str) -> String {
    json!({"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "What is a lighthouse?"}]})
        .to_string()
}

/// What the control plane's admin API has under this name.
pub async fn admin(lab: &Lab, name: &str) -> anyhow::Result<Value> {
    let url = format!("http://127.0.0.1:19000/api/{name}");
    let exec = ["-n", NAMESPACE, "exec", "deploy/tollgate", "-c", "tollgate", "--", "curl", "-sf", &url];
    Ok(serde_json::from_str(&lab.kubectl(&exec).await?.success()?.out)?)
}

/// What is in the books of this consumer, once it is of so many requests.
pub async fn rows(lab: &Lab, consumer: &str, requests: u64) -> anyhow::Result<Vec<Value>> {
    poll::until("what was used is in the books", || async {
        let usage = admin(lab, "usage").await?;
        let rows = usage.get("rows").and_then(Value::as_array).cloned().unwrap_or_default();
        let own: Vec<Value> = rows.into_iter().filter(|row| row.get("consumer") == Some(&json!(consumer))).collect();
        let found: u64 = own.iter().filter_map(|row| row.get("requests")?.as_u64()).sum();
        anyhow::ensure!(found == requests, "{found} requests, not {requests}: {own:?}");
        Ok(own)
    })
    .await
}

// === impl Caller ===

impl<'a> Caller<'a> {
    /// Starts it, and waits until it may ask. Its account has its name.
    pub async fn start(lab: &'a Lab, namespace: &str, name: &str) -> anyhow::Result<Self> {
        apply(lab, namespace, &CALLER.replace("CALLER", name)).await?;
        let pod = format!("pod/{name}");
        lab.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", "--timeout=120s", &pod]).await?.success()?;
        Ok(Self { lab, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Asks by curl.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let exec = ["-n", &self.namespace, "exec", &self.name, "-c", "caller", "--"];
        Answer::read(self.lab.kubectl(&[&exec[..], &CURL, arguments].concat()).await?)
    }

    /// Asks a model there.
    pub async fn chat(&self, host: &str) -> anyhow::Result<Answer> {
        self.chat_with(host, &[]).await
    }

    /// The same, with more arguments of curl.
    pub async fn chat_with(&self, host: &str, more: &[&str]) -> anyhow::Result<Answer> {
        let (url, body) = (format!("http://{host}/v1/chat/completions"), question("smol"));
        let request = [url.as_str(), "-H", "content-type: application/json", "-d", body.as_str()];
        self.ask(&[&request[..], more].concat()).await
    }

    /// Asks until it is answered with this status.
    pub async fn answered(&self, host: &str, status: u16, what: &str) -> anyhow::Result<Answer> {
        self.answered_with(host, &[], status, what).await
    }

    /// The same, with more arguments of curl.
    pub async fn answered_with(&self, host: &str, more: &[&str], status: u16, what: &str) -> anyhow::Result<Answer> {
        poll::within(PATIENCE, what, || async { self.chat_with(host, more).await?.expect(status) }).await
    }

    /// Asks until the answer is by the filter: it names this limit. A connection from before the first policy has no filter.
    pub async fn limited(&self, host: &str, tokens: u64) -> anyhow::Result<()> {
        let expected = format!("x-ratelimit-limit-tokens: {tokens}\r\n");
        poll::within(PATIENCE, "the policy is in force", || async {
            let answer = self.chat(host).await?.expect(200)?;
            anyhow::ensure!(answer.head.contains(&expected), "{answer:?}");
            Ok(())
        })
        .await
    }

    /// As certificates of the mesh name it.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.name)
    }
}
