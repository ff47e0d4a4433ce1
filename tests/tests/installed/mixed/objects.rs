//! What is installed, and the objects: a Gateway with two proxies, a pool, budgets of one and of several consumers.

use std::fmt::Write as _;

use serde_json::json;
use sha2::{Digest, Sha256};
use tollgate_tests::lab::install::TWO_REPLICAS;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;
use tollgate_tests::soak::backend::{Backend, Port};
use tollgate_tests::soak::{Consumer, FIRST_TOKEN, Model};

use super::{GATEWAY, NODE, PLACE};
use crate::replicas::{proxies, replicas};
use crate::shop;

/// More than a run can use.
pub const PLENTY: u64 = 10_000_000_000;
/// What `spends` has.
pub const LITTLE: u64 = 20_000;

/// `spends` has a route with a policy of its own. The others have a budget each, and one together.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mixed, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ProxyParameters
metadata: {name: several, namespace: mixed}
spec: {replicas: 2}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: mixed}
spec:
  gatewayClassName: tollgate
  infrastructure: {parametersRef: {group: tollgate.dev, kind: ProxyParameters, name: several}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: mixed}
spec:
  parentRefs: [{name: llm}]
  rules: [{matches: [{path: {value: /v1}}], backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: spends, namespace: mixed}
spec:
  parentRefs: [{name: llm}]
  rules:
  - matches: [{path: {value: /v1}, headers: [{name: x-soak-consumer, value: spends}]}]
    backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: chat, namespace: mixed}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}]
  limits:
  - {name: own, tokens: PLENTY, window: day, scope: [Consumer]}
  - {name: shared, tokens: PLENTY, window: day}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: spends, namespace: mixed}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: spends}]
  limits: [{name: little, tokens: LITTLE, window: day, scope: [Consumer]}]
---
apiVersion: v1
kind: Secret
metadata: {name: provider, namespace: mixed}
stringData: {apiKey: soak-credential-0}
";

/// Which backend a model's first attempt goes to.
pub fn first(model: Model) -> Port {
    match model {
        Model::Steady | Model::Slow => Port::Steady,
        Model::Sleeps | Model::Busy | Model::Broken | Model::Resets | Model::Down => Port::Flaky,
    }
}

/// Installs and makes all of it, and waits until each consumer is answered. Returns where, and the names of the proxies.
pub async fn make(lab: &Lab, backend: &Backend) -> anyhow::Result<(String, Vec<String>)> {
    lab.install_books().await?;
    lab.upgrade(&TWO_REPLICAS).await?;
    poll::until("there are two control planes", || replicas(lab)).await?;
    lab.apply(&objects(backend)?).await?;
    let address = shop::address(lab, PLACE, GATEWAY).await?;
    let rollout = ["-n", PLACE, "rollout", "status", "deployment/llm-tollgate", WAIT];
    lab.kubectl(&rollout).await?.success()?;
    let url = format!("http://{address}");
    for consumer in Consumer::ALL {
        poll::within(PATIENCE, "a consumer is let in", || lists_models(lab, &url, consumer.key())).await?;
    }
    let names = proxies(lab, PLACE, GATEWAY).await?.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    anyhow::ensure!(names.len() == 2, "{names:?}");
    Ok((url, names))
}

/// Whether this key is let in. It costs nothing.
pub async fn lists_models(lab: &Lab, url: &str, key: &str) -> anyhow::Result<()> {
    let authorization = format!("authorization: Bearer {key}");
    shop::ask(lab, &[&format!("{url}/v1/models"), "-H", &authorization]).await?.expect(200).map(drop)
}

fn objects(backend: &Backend) -> anyhow::Result<String> {
    let budgets = [("PLENTY", PLENTY), ("LITTLE", LITTLE)];
    let mut all =
        budgets.iter().fold(OBJECTS.to_owned(), |text, (name, tokens)| text.replace(name, &tokens.to_string()));
    for port in Port::ALL {
        let spec = json!({
            "schema": "OpenAI", "tls": {"mode": "None"}, "credential": {"secretRef": {"name": "provider"}},
            "endpoint": {"hostname": NODE.to_string(), "port": backend.port(port)},
            "timeouts": {"connect": "2s", "firstToken": format!("{}s", FIRST_TOKEN.as_secs()), "idle": "10s"},
        });
        write!(all, "---\n{}\n", object("ModelBackend", port.name(), &spec))?;
    }
    let models: Vec<_> = Model::ALL
        .into_iter()
        .map(|model| {
            let targets = Port::ALL.into_iter().filter(|port| *port != Port::Flaky || first(model) == Port::Flaky);
            let target =
                |(priority, port): (usize, Port)| json!({"backendRef": {"name": port.name()}, "priority": priority});
            json!({"name": model.name(), "targets": targets.enumerate().map(target).collect::<Vec<_>>()})
        })
        .collect();
    write!(all, "---\n{}\n", object("ModelPool", "chat", &json!({"models": models})))?;
    for consumer in Consumer::ALL {
        let hash = hex::encode(Sha256::digest(consumer.key()));
        write!(all, "---\n{}\n", object("Consumer", consumer.name(), &json!({"keys": [{"sha256": hash}]})))?;
    }
    Ok(all)
}

fn object(kind: &str, name: &str, spec: &serde_json::Value) -> String {
    json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": PLACE}, "spec": spec,
    })
    .to_string()
}
