//! What is installed into an Istio mesh, and what is looked at there, on a real API server with Istio's own definitions and
//! their rules. No istiod acts on any of it.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::cli::{self, Output};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

use crate::source::account;
use crate::statuses::{Serving, get};

e2e! {
    a_mesh_takes_its_policies_and_is_checked,
    envoy_filters_are_kept,
}

const TRY: [&str; 5] = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
const NAMESPACES: [&str; 2] = ["istio-runners", "istio-callers"];
const POLICIES: &str = "mesh policies --gateway istio-callers/meshed --runners istio-runners --callers istio-callers";

/// A Gateway for members of the mesh and what it leads to. No Pod of it runs.
const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tollgate}
spec: {controllerName: tollgate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: meshed, namespace: istio-callers}
spec:
  gatewayClassName: tollgate
  listeners:
  - {name: mesh, port: 8443, protocol: HTTPS, tls: {options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: istio-callers}
spec: {parentRefs: [{name: meshed}], rules: [{backendRefs: [{name: runner, namespace: istio-runners, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: callers, namespace: istio-runners}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: istio-callers}]
  to: [{group: '', kind: Service}]
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: istio-runners}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: runner-1, namespace: istio-runners, labels: {kubernetes.io/service-name: runner}}
addressType: IPv4
endpoints: [{addresses: [10.98.0.200], targetRef: {kind: Pod, name: runner-1, namespace: istio-runners}}]
ports: [{port: 8080}]
";

/// A Service whose callers are to be held to a policy, and an istiod of which only its version is there.
const COUNTED: &str = "
apiVersion: v1
kind: Service
metadata: {name: counted, namespace: istio-runners}
spec: {selector: {app: counted}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: counted, namespace: istio-runners}
spec: {targetRefs: [{kind: Service, name: counted}], limits: [{name: day, tokens: 1000, window: 1d}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-callers, labels: {app: istiod, istio.io/rev: default}}
spec:
  replicas: 0
  selector: {matchLabels: {app: istiod}}
  template:
    metadata: {labels: {app: istiod}}
    spec: {containers: [{name: discovery, image: 'docker.io/istio/pilot:1.31.1'}]}
";

/// As the leader makes it, as far as it matters here.
const FILTER: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata:
  name: tollgate-inbound-counted
  namespace: istio-runners
  labels: {app.kubernetes.io/managed-by: tollgate}
spec: {workloadSelector: {labels: {app: counted}}, priority: 10}
";

/// What Istio's installation has, and calls nobody.
const INJECTOR: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {url: 'https://127.0.0.1:1/inject'}
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
";

/// A Pod that is never scheduled.
fn pod(namespace: &str, name: &str, metadata: &str, container: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, {metadata}}}
spec:
  schedulingGates: [{{name: test.example/never}}]
  containers: [{{name: {container}, image: none}}]
"
    )
}

async fn a_mesh_takes_its_policies_and_is_checked(lab: Arc<Lab>) -> anyhow::Result<()> {
    let tools = Tools::find()?;
    let kubeconfig = lab.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
    let check =
        |output: &str| cli::tollgate(&tools, &["mesh", "check", "--kubeconfig", kubeconfig, "--output", output]);
    for namespace in NAMESPACES {
        lab.namespace(namespace).await?;
    }
    let policies = |format: &str| {
        let arguments: Vec<&str> = POLICIES.split(' ').chain(["-o", format]).collect();
        Ok::<_, anyhow::Error>(cli::tollgate(&tools, &arguments)?.success()?.out)
    };
    for format in ["yaml", "json"] {
        let printed = policies(format)?;
        let taken = lab.kubectl_with(&TRY, &printed).await?.success()?.out;
        anyhow::ensure!(taken.lines().count() == 5, "{format}: {taken}");
        // Whoever takes everything shows nothing.
        for (right, wrong, told) in [
            ("principals", "principal", "unknown field"),
            ("STRICT", "STRONG", "Unsupported value"),
            ("egress", "egres", "unknown field"),
            ("accessLogging", "accessLog", "unknown field"),
        ] {
            anyhow::ensure!(printed.contains(right), "{printed}");
            let refused = lab.kubectl_with(&TRY, &printed.replace(right, wrong)).await?;
            anyhow::ensure!(refused.code != Some(0) && refused.err.contains(told), "{wrong}: {refused:?}");
        }
    }

    lab.apply(MESH).await?;
    lab.apply(&pod(NAMESPACES[0], "runner-1", "labels: {security.istio.io/tlsMode: istio}", "runner")).await?;
    let of_gateway = "gateway.networking.k8s.io/gateway-name: meshed";
    lab.apply(&pod(NAMESPACES[1], "meshed-1", &format!("labels: {{{of_gateway}}}"), "proxy")).await?;
    let wrong = check("text")?;
    for line in [
        "error: cluster: no MutatingWebhookConfiguration injects",
        "error: Gateway istio-callers/meshed: Pod meshed-1 does not ask for Istio's agent",
        "warning: namespace istio-runners: its Pods take plain text",
    ] {
        anyhow::ensure!(wrong.code == Some(1) && wrong.out.contains(line), "{line}: {wrong:?}");
    }

    lab.apply(INJECTOR).await?;
    lab.kubectl(&["-n", NAMESPACES[1], "delete", "pod", "meshed-1", "--now"]).await?.success()?;
    let injected = format!(
        "labels: {{{of_gateway}, sidecar.istio.io/inject: 'true'}}, annotations: {{inject.istio.io/templates: grpc-agent}}"
    );
    lab.apply(&pod(NAMESPACES[1], "meshed-2", &injected, "istio-proxy")).await?;
    lab.apply(&policies("yaml")?).await?;
    let well = check("json")?;
    // Other tests have Gateways of their own in this cluster.
    let is_ours =
        |remark: &String| remark.contains("cluster") || NAMESPACES.iter().any(|namespace| remark.contains(namespace));
    let ours: Vec<String> = remarks(&well)?.into_iter().filter(is_ours).collect();
    anyhow::ensure!(ours.is_empty(), "{ours:?}");
    filters_and_versions_are_checked(&lab, &check).await?;
    lab.kubectl(&["delete", "mutatingwebhookconfiguration", "istio-sidecar-injector"]).await?.success()?;
    Ok(())
}

/// Whether the filter is where a policy asks for it, in a cluster in which all else is well.
async fn filters_and_versions_are_checked(
    lab: &Lab,
    check: &impl Fn(&str) -> anyhow::Result<Output>,
) -> anyhow::Result<()> {
    let namespace = NAMESPACES[0];
    // In a cluster of one test, this would be all that is said.
    let says = |line: Option<&str>| {
        let printed = check("text")?;
        let about = [&format!("{namespace}/"), &format!("{}/", NAMESPACES[1])];
        let ours: Vec<&str> =
            printed.out.lines().filter(|line| about.iter().any(|about| line.contains(about.as_str()))).collect();
        match (line, ours.as_slice()) {
            (None, []) => Ok(()),
            (Some(line), [one]) if one.starts_with(line) => Ok(()),
            _ => Err(anyhow::anyhow!("{line:?}: {ours:?} in {printed:?}")),
        }
    };
    let counted = |name: &str, annotations: &str, container: &str, image: &str| {
        let metadata = format!("labels: {{app: counted}}, annotations: {{{annotations}}}");
        pod(namespace, name, &metadata, container).replace("image: none", &format!("image: '{image}'"))
    };
    let gone = async |name: &str| lab.kubectl(&["-n", namespace, "delete", "pod", name, "--now"]).await?.success();
    lab.apply(COUNTED).await?;
    let none = "error: Service istio-runners/counted: a TokenPolicy names it, and there is no EnvoyFilter";
    says(Some(none))?;
    lab.apply(&FILTER.replace("managed-by: tollgate", "managed-by: somebody")).await?;
    says(Some("error: Service istio-runners/counted: a TokenPolicy names it, and the EnvoyFilter"))?;
    lab.apply(FILTER).await?;
    let of_filter = "EnvoyFilter istio-runners/tollgate-inbound-counted:";
    says(Some(&format!("warning: {of_filter} it selects no Pod")))?;

    lab.apply(&counted("counted-1", "", "app", "none")).await?;
    says(Some(&format!("error: {of_filter} 1 of 1 Pods have no sidecar")))?;
    lab.kubectl(&["label", "namespace", namespace, "istio.io/dataplane-mode=ambient"]).await?.success()?;
    says(Some(&format!("error: {of_filter} 1 of 1 Pods are in ambient mode")))?;
    lab.kubectl(&["label", "namespace", namespace, "istio.io/dataplane-mode-"]).await?.success()?;
    gone("counted-1").await?;

    let of_revision = "istio.io/rev: default";
    for (name, annotations, version, told) in [
        ("counted-2", of_revision, "1.28.0", Some("Pod counted-2 has Istio's agent 1.28.0, which is more than two")),
        ("counted-3", "istio.io/rev: gone", "1.31.0", Some("Pod counted-3 has an agent of Istio's revision gone")),
        ("counted-4", of_revision, "1.29.0-distroless", None),
    ] {
        let image = format!("docker.io/istio/proxyv2:{version}");
        lab.apply(&counted(name, annotations, "istio-proxy", &image)).await?;
        says(told.map(|told| format!("warning: {of_filter} {told}")).as_deref())?;
        gone(name).await?;
    }
    Ok(())
}

fn remarks(output: &Output) -> anyhow::Result<Vec<String>> {
    let printed: Value = serde_json::from_str(&output.out).with_context(|| format!("{output:?}"))?;
    let remarks = printed.get("remarks").and_then(Value::as_array).context("no remarks")?;
    Ok(remarks.iter().map(ToString::to_string).collect())
}

const SERVICES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-kept}
---
apiVersion: v1
kind: Service
metadata: {name: runner, namespace: istio-kept}
spec: {selector: {app: runner}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: taken, namespace: istio-kept}
spec: {selector: {app: taken}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: untaken, namespace: istio-kept}
spec: {selector: {app: untaken}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

const MODELS: &str = "
apiVersion: v1
kind: Service
metadata: {name: llm, namespace: istio-kept}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner, namespace: istio-kept}
spec: {schema: OpenAI, endpoint: {service: {name: runner, port: 80}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat, namespace: istio-kept}
spec: {parentRefs: [{name: llm}], models: [{name: small, targets: [{backendRef: {name: runner}}]}]}
";

/// What stands in the cluster before us: one of the name that ours for `taken` has, and one with our label.
const OTHERS: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: tollgate-inbound-taken, namespace: istio-kept}
spec: {workloadSelector: {labels: {app: theirs}}, priority: 7}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: by-hand, namespace: istio-kept, labels: {app.kubernetes.io/managed-by: tollgate}}
spec: {workloadSelector: {labels: {app: theirs}}, priority: 7}
";

/// The role as it is installed.
const ROLE: &str = include_str!("../../../manifests/rbac/sidecars.yaml");
const READS: &str = "{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}";
const EXTENSION: &str = "/spec/configPatches/0";
const PLACE: &str = "/spec/configPatches/1";

fn policy_of(service: &str) -> String {
    format!(
        "
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: {service}, namespace: istio-kept}}
spec: {{targetRefs: [{{kind: Service, name: {service}}}], limits: [{{name: day, tokens: 1000, window: 1d}}]}}
"
    )
}

/// An EnvoyFilter of the test's namespace, once this holds of it.
async fn kept(lab: &Lab, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let holds = &holds;
    poll::until(what, || async move {
        let found = get(lab, &["-n", "istio-kept", "envoyfilter", name]).await?;
        anyhow::ensure!(holds(&found), "{found}");
        Ok(found)
    })
    .await
}

async fn is_gone(lab: &Lab, name: &str) -> anyhow::Result<()> {
    poll::until("the EnvoyFilter is gone", || async {
        let found = lab.kubectl(&["-n", "istio-kept", "get", "envoyfilter", name]).await?;
        anyhow::ensure!(found.err.contains("NotFound"), "{found:?}");
        Ok(())
    })
    .await
}

/// By an account that has the role of the chart, and writes nothing else.
async fn envoy_filters_are_kept(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.apply(SERVICES).await?;
    lab.apply(OTHERS).await?;
    let (_, rules) = ROLE.split_once("rules:\n- ").context("the role has a rule")?;
    let rules = rules.trim().split("\n- ").map(|rule| format!("{{{}}}", rule.replace("\n ", ",")));
    let rules: Vec<String> = std::iter::once(READS.to_owned()).chain(rules).collect();
    let account = account(&lab, "istio-kept", &rules.join(", ")).await?;
    let arguments = "--leader-election false --no-write-status --namespace istio-kept --envoy-filters \
                     --mesh-certificates /var/lib/istio/data --sidecars 127.0.0.1:0 --sidecar-code 127.0.0.1:0";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut serving = Serving::start_as(&account, "istio-kept", &arguments)?;

    lab.apply(&policy_of("runner")).await?;
    let of_runner = "tollgate-inbound-runner";
    let first = kept(&lab, of_runner, "there is an EnvoyFilter", |_| true).await?;
    let uid = lab.field(&["-n", "istio-kept", "service", "runner"], "{.metadata.uid}").await?;
    let name = first.pointer("/spec/configPatches/0/patch/value/name").cloned().context("the filter has no name")?;
    let code = "/spec/configPatches/0/patch/value/typed_config/config/vm_config";
    for (pointer, expected) in [
        ("/metadata/ownerReferences", json!([{"apiVersion": "v1", "kind": "Service", "name": "runner", "uid": uid}])),
        ("/metadata/labels", json!({"app.kubernetes.io/managed-by": "tollgate"})),
        ("/spec/workloadSelector", json!({"labels": {"app": "runner"}})),
        ("/spec/priority", json!(10)),
        ("/spec/configPatches/0/applyTo", json!("EXTENSION_CONFIG")),
        (&format!("{code}/nack_on_code_cache_miss"), json!(true)),
        ("/spec/configPatches/1/applyTo", json!("HTTP_FILTER")),
        ("/spec/configPatches/1/match/listener/portNumber", json!(8080)),
        ("/spec/configPatches/1/patch/value/name", name),
        ("/spec/configPatches/2", Value::Null),
    ] {
        let found = first.pointer(pointer).cloned().unwrap_or_default();
        anyhow::ensure!(found == expected, "{pointer}: {found} in {first}");
    }

    // Another policy is another configuration in the same place. How much is left, only the ledger is told.
    lab.apply(&policy_of("runner").replace("name: day", "name: another")).await?;
    let is_other = |found: &Value| found.pointer(EXTENSION) != first.pointer(EXTENSION);
    let second = kept(&lab, of_runner, "the configuration is another", is_other).await?;
    anyhow::ensure!(first.pointer(PLACE) == second.pointer(PLACE), "{second}");

    // Whatever others do to it.
    let as_it_was = |found: &Value| found.get("spec") == second.get("spec");
    for edit in [
        r#"[{"op": "replace", "path": "/spec/priority", "value": 3}, {"op": "remove", "path": "/spec/configPatches/1"}]"#,
        r#"[{"op": "add", "path": "/spec/workloadSelector/labels/more", "value": "x"}]"#,
    ] {
        let patch = ["-n", "istio-kept", "patch", "envoyfilter", of_runner, "--type", "json", "-p", edit];
        lab.kubectl(&patch).await?.success()?;
        kept(&lab, of_runner, "it is put right", as_it_was).await?;
    }
    lab.kubectl(&["-n", "istio-kept", "label", "envoyfilter", of_runner, "app.kubernetes.io/managed-by-"])
        .await?
        .success()?;
    let has_label = |found: &Value| found.pointer("/metadata/labels") == first.pointer("/metadata/labels");
    kept(&lab, of_runner, "it has its label", has_label).await?;
    lab.kubectl(&["-n", "istio-kept", "delete", "envoyfilter", of_runner]).await?.success()?;
    kept(&lab, of_runner, "it is back", as_it_was).await?;

    // The name of another one's is not taken, and is used once it is free.
    let their = "tollgate-inbound-taken";
    lab.apply(&policy_of("taken")).await?;
    // By then it was tried.
    lab.apply(&policy_of("untaken")).await?;
    kept(&lab, "tollgate-inbound-untaken", "a later one is there", |_| true).await?;
    let theirs = |found: &Value| found.pointer("/spec/priority") == Some(&json!(7));
    kept(&lab, their, "theirs stands", theirs).await?;
    lab.kubectl(&["-n", "istio-kept", "delete", "envoyfilter", their]).await?.success()?;
    kept(&lab, their, "ours comes", |found| found.pointer("/spec/priority") == Some(&json!(10))).await?;

    // Of a pool whose parent is a Service there are two objects, where the callers are and beside the Service.
    lab.apply(MODELS).await?;
    let of_callers = "tollgate-outbound-istio-kept.llm";
    let filter = kept(&lab, of_callers, "there is an EnvoyFilter for callers", |_| true).await?;
    for (pointer, expected) in [
        ("/spec/workloadSelector", Value::Null),
        ("/spec/configPatches/1/patch/value/disabled", json!(true)),
        ("/spec/configPatches/2/match/routeConfiguration/vhost/name", json!("llm.istio-kept.svc.cluster.local:80")),
    ] {
        let found = filter.pointer(pointer).cloned().unwrap_or_default();
        anyhow::ensure!(found == expected, "{pointer}: {found} in {filter}");
    }
    let route = ["-n", "istio-kept", "httproute", of_callers];
    let found = get(&lab, &route).await?;
    anyhow::ensure!(found.pointer("/spec/parentRefs/0/name") == Some(&json!("llm")), "{found}");
    let edit = r#"[{"op": "replace", "path": "/spec/rules/0/backendRefs/0/port", "value": 81}]"#;
    lab.kubectl(&["-n", "istio-kept", "patch", "httproute", of_callers, "--type", "json", "-p", edit])
        .await?
        .success()?;
    poll::until("the route is put right", || async {
        let now = get(&lab, &route).await?;
        anyhow::ensure!(now.get("spec") == found.get("spec"), "{now}");
        Ok(())
    })
    .await?;
    lab.kubectl(&["-n", "istio-kept", "delete", "modelpool", "chat"]).await?.success()?;
    is_gone(&lab, of_callers).await?;
    poll::until("the route is gone", || async {
        let found = lab.kubectl(&["-n", "istio-kept", "get", "httproute", of_callers]).await?;
        anyhow::ensure!(found.err.contains("NotFound"), "{found:?}");
        Ok(())
    })
    .await?;

    // They go with their policy, or with their Service. What is not of this kind stays.
    lab.kubectl(&["-n", "istio-kept", "delete", "tokenpolicy", "runner"]).await?.success()?;
    is_gone(&lab, of_runner).await?;
    lab.kubectl(&["-n", "istio-kept", "delete", "service", "taken"]).await?.success()?;
    is_gone(&lab, their).await?;
    kept(&lab, "by-hand", "another one stays", theirs).await?;
    serving.process.kill()
}
