//! The NetworkPolicies of the chart and of each Gateway, which the lab enforces. The other tests have used the product in all
//! its ways by now: what they needed was admitted, or they would have failed. Here it is seen that nothing was refused
//! besides, that each rule is for something, and that others are kept out.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::lab::install::{CONTROL_PLANE, NAMESPACE};
use tollgate_tests::lab::policies::Refused;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, PATIENCE, WAIT};
use tollgate_tests::poll;

use crate::chain::{Chain, chain, chat};

e2e! {
    policies_admit_what_is_used_and_nothing_else,
}

/// The lab's node, with the API server and DNS.
const NODE: &str = "10.98.0.1";

/// Where somebody is who has no business with us: a Pod like a proxy in all but its labels.
const STRANGER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: strangers, labels: {app: stranger}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: caller, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: monitoring}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: caller, image: busybox, command: [sleep, infinity]}]
---
# A runner as such, which no proxy leads to.
apiVersion: v1
kind: Pod
metadata: {name: runner, namespace: policed, labels: {app: other, tollgate.dev/runner: smol}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: runner
    image: registry.k8s.io/gateway-api/echo-basic:v1.6.3
    env:
    - {name: POD_NAME, value: runner}
    - {name: NAMESPACE, value: policed}
    - {name: HTTP_PORT, value: '8080'}
    readinessProbe: {httpGet: {path: /, port: 8080}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// Rules that nothing uses here, and why they are there.
const UNUSED: [(&str, &str); 4] = [
    ("policed/llm-tollgate/egress/1/0/1", "DNS by TCP: answers that are too long for UDP"),
    ("policed/llm-tollgate/egress/1/0/2", "the DNS of OpenShift"),
    ("policed/llm-tollgate/egress/1/0/3", "the same by TCP"),
    ("tollgate-system/tollgate-runners/ingress/0/0/0", "no runner is in the release's namespace"),
];

async fn policies_admit_what_is_used_and_nothing_else(lab: Arc<Lab>) -> anyhow::Result<()> {
    let still = still_refused(&lab).await?;
    anyhow::ensure!(still.is_empty(), "something that was used is refused: {still:?}");

    let Chain { url, research } = chain(&lab, "policed", "").await?;
    // A control plane that starts asks the one that leads until then.
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/tollgate"]).await?.success()?;
    lab.upgrade(&["networkPolicies.runners.namespaces={policed}"]).await?;
    for namespace in ["strangers", "monitoring"] {
        lab.namespace(namespace).await?;
    }
    lab.apply(STRANGER).await?;
    for (namespace, pod) in [("strangers", "stranger"), ("monitoring", "prometheus"), ("policed", "runner")] {
        let pod = format!("pod/{pod}");
        lab.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", WAIT, &pod]).await?.success()?;
    }
    let answer = chat(&lab, &url, &research).await?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");

    let ip = async |namespace: &str, label: &str| {
        lab.field(&["-n", namespace, "pods", "-l", label], "{.items[0].status.podIP}").await
    };
    let plane = ip(NAMESPACE, CONTROL_PLANE).await?;
    let proxy = ip("policed", "app.kubernetes.io/name=tollgate-proxy").await?;
    let labelled = ip("policed", "tollgate.dev/runner=smol").await?;
    let gateway = ip("policed", "app=runner").await?;
    // A stranger reaches the listeners of a Gateway and what says whether a Pod is ready, and nothing else of us.
    for (from, to, port, admitted) in [
        (("strangers", "stranger"), &*proxy, 80, true),
        (("strangers", "stranger"), &proxy, 15021, true),
        (("strangers", "stranger"), &plane, 8081, true),
        (("strangers", "stranger"), &plane, 18000, false),
        (("strangers", "stranger"), &plane, 18001, false),
        (("strangers", "stranger"), &plane, 8080, false),
        (("strangers", "stranger"), &labelled, 8080, false),
        // A runner without the label takes everybody, as before.
        (("strangers", "stranger"), &gateway, 8000, true),
        (("monitoring", "prometheus"), &plane, 8080, true),
        (("monitoring", "prometheus"), &plane, 18000, false),
    ] {
        let found = is_admitted(&lab, from, to, port).await?;
        anyhow::ensure!(found == admitted, "{from:?} -> {to}:{port}: {found}");
    }
    // A proxy that is somebody else's now goes nowhere but where its routes lead.
    let proxy_pod = lab.pod("policed", "app.kubernetes.io/name=tollgate-proxy").await?;
    for (to, port, admitted) in [
        (&*gateway, 8000, true),
        (&labelled, 8080, false),
        (&plane, 18000, true),
        (&plane, 18001, true),
        (&plane, 8080, false),
    ] {
        let found = is_admitted(&lab, ("policed", &proxy_pod), to, port).await?;
        anyhow::ensure!(found == admitted, "a proxy -> {to}:{port}: {found}");
    }
    // A route more, and it may go there; without it, no more.
    lab.apply(ROUTE).await?;
    reaches(&lab, &proxy_pod, &labelled, true).await?;
    lab.run_helm("test", &[WAIT]).await?;
    each_rule_is_for_something(&lab).await?;
    lab.kubectl(&["-n", "policed", "delete", "httproute", "other"]).await?.success()?;
    reaches(&lab, &proxy_pod, &labelled, false).await?;
    lab.kubectl(&["delete", "namespace", "policed", "strangers", "--wait=false"]).await?.success()?;
    lab.upgrade(&[]).await
}

const ROUTE: &str = "
apiVersion: v1
kind: Service
metadata: {name: other, namespace: policed}
spec: {selector: {tollgate.dev/runner: smol}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other, namespace: policed}
spec:
  parentRefs: [{name: llm}]
  hostnames: [other.example]
  rules: [{backendRefs: [{name: other, port: 80}]}]
";

async fn reaches(lab: &Lab, pod: &str, to: &str, admitted: bool) -> anyhow::Result<()> {
    poll::within(PATIENCE, "the policy follows the routes", || async {
        let found = connects(lab, ("policed", pod), to, 8080).await?;
        anyhow::ensure!(found == admitted, "{found}");
        Ok(())
    })
    .await
}

/// What was refused of the Pods that there are, and is refused yet. A network notices a new Pod or route a moment later.
async fn still_refused(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let (known, mut still) = (pods(lab).await?, Vec::new());
    let refused = lab.refused().await?;
    for one in &refused {
        let from = known.get(&one.from).and_then(|pod| pod.split_once('/'));
        // Addresses of Pods that are gone are of no use.
        let (Some(from), true) = (from, one.to == NODE || known.contains_key(&one.to)) else { continue };
        let port = u16::try_from(one.port)?;
        // Whatever is refused is noted at once.
        let is_still =
            one.protocol != "tcp" || (!connects(lab, from, &one.to, port).await? && lab.refused().await?.contains(one));
        if is_still {
            let to = known.get(&one.to).unwrap_or(&one.to);
            still.push(format!("{}/{} -> {to} {}:{port}", from.0, from.1, one.protocol));
        }
    }
    println!("    {} connections were refused at some time, {} are yet", refused.len(), still.len());
    Ok(still)
}

/// Of the release, and of the one Gateway here, whose routes are all asked.
async fn each_rule_is_for_something(lab: &Lab) -> anyhow::Result<()> {
    let (rules, used) = poll::until("each rule is used", || async {
        let is_here = |rule: &str| [NAMESPACE, "policed"].iter().any(|place| rule.starts_with(&format!("{place}/")));
        let rules: BTreeMap<String, u64> =
            lab.admitted().await?.into_iter().filter(|(rule, _)| is_here(rule)).collect();
        let is_idle =
            |(rule, packets): &(&String, &u64)| **packets == 0 && UNUSED.iter().all(|(unused, _)| rule != unused);
        let idle: Vec<&String> = rules.iter().filter(is_idle).map(|(rule, _)| rule).collect();
        let used = rules.values().filter(|packets| **packets > 0).count();
        anyhow::ensure!(used > 8 && idle.is_empty(), "nothing uses {idle:?}; there is {rules:?}");
        Ok((rules.len(), used))
    })
    .await?;
    println!("    {rules} rules, {used} of them used");
    Ok(())
}

/// Whether the network lets a Pod open a connection. What it refuses it notes; a connection that is neither there nor refused
/// takes its time.
async fn is_admitted(lab: &Lab, (namespace, pod): (&str, &str), to: &str, port: u16) -> anyhow::Result<bool> {
    let from = lab.field(&["-n", namespace, "pod", pod], "{.status.podIP}").await?;
    let refused = Refused { from, to: to.to_owned(), protocol: "tcp".to_owned(), port: port.into() };
    poll::until("a connection is there, or refused", || async {
        let is_there = connects(lab, (namespace, pod), to, port).await?;
        anyhow::ensure!(is_there || lab.refused().await?.contains(&refused), "it is neither");
        Ok(is_there)
    })
    .await
}

/// Whether a Pod can open a connection.
async fn connects(lab: &Lab, (namespace, pod): (&str, &str), to: &str, port: u16) -> anyhow::Result<bool> {
    let address = format!("telnet://{to}:{port}");
    let exec = ["-n", namespace, "exec", pod, "--", "curl", "-sv", "--connect-timeout", "2", "-m", "3", &address];
    let told = lab.kubectl(&exec).await?.err;
    anyhow::ensure!(told.contains("Trying"), "curl did not try: {told}");
    Ok(told.contains("Connected to"))
}

/// Namespace and name of each Pod, by its address.
async fn pods(lab: &Lab) -> anyhow::Result<BTreeMap<String, String>> {
    let list = lab.kubectl(&["get", "pods", "-A", "-o", "json"]).await?.success()?.out;
    let list: Value = serde_json::from_str(&list)?;
    let items = list.get("items").and_then(Value::as_array).context("no Pods")?;
    let text = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = items.iter().map(|pod| {
        (text(pod, "/status/podIP"), format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name")))
    });
    Ok(named.filter(|(ip, _)| !ip.is_empty()).collect())
}
