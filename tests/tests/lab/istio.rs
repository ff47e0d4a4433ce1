//! What is installed into an Istio mesh, and what is looked at there, on a real API server with Istio's own definitions and
//! their rules. No istiod acts on any of it.

use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;
use tollgate_tests::cli::{self, Output};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::tools::Tools;

e2e! {
    a_mesh_takes_its_policies_and_is_checked,
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
        lab.kubectl(&["create", "namespace", namespace]).await?.success()?;
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
    let ours = remarks(&well)?.into_iter().filter(|remark| remark.contains("istio-") || remark.contains("cluster"));
    let ours: Vec<String> = ours.collect();
    anyhow::ensure!(ours.is_empty(), "{ours:?}");
    lab.kubectl(&["delete", "mutatingwebhookconfiguration", "istio-sidecar-injector"]).await?.success()?;
    Ok(())
}

fn remarks(output: &Output) -> anyhow::Result<Vec<String>> {
    let printed: Value = serde_json::from_str(&output.out).with_context(|| format!("{output:?}"))?;
    let remarks = printed.get("remarks").and_then(Value::as_array).context("no remarks")?;
    Ok(remarks.iter().map(ToString::to_string).collect())
}
