//! What the tests start from: a Gateway with a backend, and ways to ask it.

use std::process::{Child, Stdio};

use anyhow::Context;
use serde_json::Value;
pub use tollgate_tests::lab::curl::Answer;
use tollgate_tests::lab::curl::CURL;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

/// A Gateway in a namespace of its own, with two Pods that tell what they were sent behind a route for all paths.
const WEB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shop, namespace: NAMESPACE}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: PORT, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: NAMESPACE}
spec:
  parentRefs: [{name: shop}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: registry.k8s.io/gateway-api/echo-basic:v1.6.3
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: HTTP_PORT, value: '8080'}
        readinessProbe: {httpGet: {path: /, port: 8080}}
        # It answers until nobody sends it anything, as every server behind a Service must.
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// Clients that ask all the time.
pub struct Load(Option<Child>);

/// What they were answered.
#[derive(Debug)]
pub struct Answered {
    pub requests: u64,
    /// What was not answered as it should be.
    pub wrong: Vec<Value>,
}

/// Makes the objects and waits until they are served. Returns the Gateway's address.
pub async fn web(lab: &Lab, namespace: &str, more: &str) -> anyhow::Result<String> {
    web_at(lab, namespace, 80, more).await
}

/// The same with another port.
pub async fn web_at(lab: &Lab, namespace: &str, port: u16, more: &str) -> anyhow::Result<String> {
    let objects =
        format!("{WEB}---{more}").replace("NAMESPACE", namespace).replace("port: PORT", &format!("port: {port}"));
    lab.apply(&objects).await?;
    // Both Pods are there, so that there is another one when one of them goes.
    lab.kubectl(&["-n", namespace, "rollout", "status", "deployment/web", WAIT]).await?.success()?;
    let address = address(lab, namespace, "shop").await?;
    poll::within(PATIENCE, "the backend answers", || async {
        let answer = get(lab, &format!("http://{address}:{port}/")).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    Ok(address)
}

/// Waits until a Gateway is programmed. Returns its address.
pub async fn address(lab: &Lab, namespace: &str, gateway: &str) -> anyhow::Result<String> {
    programmed(lab, namespace, gateway).await?;
    poll::within(PATIENCE, "the Gateway has an address", || async {
        lab.field(&["-n", namespace, "gateway", gateway], "{.status.addresses[0].value}").await
    })
    .await
}

pub async fn programmed(lab: &Lab, namespace: &str, gateway: &str) -> anyhow::Result<()> {
    let name = format!("gateway/{gateway}");
    let wait = ["-n", namespace, "wait", "--for=condition=Programmed", WAIT, &name];
    lab.kubectl(&wait).await?.success()?;
    Ok(())
}

pub async fn get(lab: &Lab, url: &str) -> anyhow::Result<Answer> {
    ask(lab, &[url]).await
}

/// Asks by curl, in the cluster.
pub async fn ask(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Answer> {
    Answer::read(lab.exec(&[&CURL[..], arguments].concat()).await?)
}

// === impl Load ===

impl Load {
    /// `status` is what each request is to be answered with.
    pub fn start(lab: &Lab, url: &str, status: u16, more: &[&str]) -> anyhow::Result<Self> {
        let tools = Tools::find()?;
        let script = tools.scripts.join("load.py");
        let (python, script) = (tools.python.to_str().context("UTF-8")?, script.to_str().context("UTF-8")?);
        let status = format!("--status={status}");
        let arguments = [&[python, script, url, "--seconds=3600", &status], more].concat();
        let child = lab.inside(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self(Some(child)))
    }

    pub fn stop(mut self) -> anyhow::Result<Answered> {
        let mut child = self.0.take().context("it was stopped")?;
        // That is the sign to end. A signal would reach only what entered the lab.
        drop(child.stdin.take());
        let output = child.wait_with_output()?;
        let found: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("it said {}", String::from_utf8_lossy(&output.stdout)))?;
        let requests = found.get("requests").and_then(Value::as_u64).context("no number of requests")?;
        let wrong = found.get("wrong").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Answered { requests, wrong })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
        }
    }
}

// === impl Answered ===

impl Answered {
    pub fn all_right(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.requests > 100, "only {} requests", self.requests);
        let first: Vec<_> = self.wrong.iter().take(5).collect();
        anyhow::ensure!(self.wrong.is_empty(), "{} of {} are wrong: {first:?}", self.wrong.len(), self.requests);
        Ok(())
    }
}
