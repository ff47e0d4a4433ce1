//! One fleet of the chart in place of proxies for each Gateway. It changes the installation, so it comes last.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::cli;
use tollgate_tests::lab::install::{NAMESPACE, VALUES};
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::lab::{Lab, WAIT};
use tollgate_tests::poll;
use tollgate_tests::tools::Tools;

use crate::install::{granted, noted, used};
use crate::shop;

e2e! {
    one_fleet_serves_all_gateways_without_a_right_to_make_any,
}

const SERVICE: &str = "tollgate-proxies";
/// What makes the fleet.
const FLEET: [&str; 2] = ["proxies.provide=one-fleet", "proxies.fleet.ports={9081,9082}"];
/// Where the mesh's kinds are unknown.
const NO_POLICIES: &str = "serviceMesh.policies.enabled=false";
/// No Gateway of another test has one of these.
const PORTS: [u16; 2] = [9081, 9082];

async fn one_fleet_serves_all_gateways_without_a_right_to_make_any(lab: Arc<Lab>) -> anyhow::Result<()> {
    lab.upgrade(&FLEET).await?;
    let noted = noted(&lab)?;

    let addresses =
        [shop::web_at(&lab, "first", PORTS[0], "").await?, shop::web_at(&lab, "second", PORTS[1], "").await?];
    let service = lab.field(&["-n", NAMESPACE, "service", SERVICE], "{.status.loadBalancer.ingress[0].ip}").await?;
    anyhow::ensure!(addresses == [service.clone(), service.clone()], "{addresses:?}, and the Service has {service}");
    for (namespace, port) in ["first", "second"].into_iter().zip(PORTS) {
        let answer = shop::get(&lab, &format!("http://{service}:{port}/")).await?;
        // It tells the name of its Pod, which is in this namespace.
        let told: Value = serde_json::from_str(&answer.body)?;
        let pod = told.get("pod").and_then(Value::as_str).context("no Pod")?;
        lab.kubectl(&["-n", namespace, "get", "pod", pod]).await?.success()?;
    }

    // A port that another Gateway has, and one that the Service has not.
    lab.apply(LATE).await?;
    for (listener, message) in [("taken", "belongs to Gateway first/shop"), ("closed", "does not have the port 9083")] {
        let condition = format!(
            "{{.status.listeners[?(@.name=='{listener}')].conditions[?(@.type=='Accepted')]['reason','message']}}"
        );
        poll::until("the listener says why it is not open", || async {
            let found = lab.field(&["-n", "second", "gateway", "late"], &condition).await?;
            anyhow::ensure!(found.contains("PortUnavailable") && found.contains(message), "{found}");
            Ok(())
        })
        .await?;
    }

    let made = lab.kubectl(&["-n", "first", "get", "deployment,service,configmap", "-o", "name"]).await?.success()?.out;
    anyhow::ensure!(!made.contains("shop-tollgate"), "{made}");
    let makes = ["deployments", "services", "serviceaccounts", "poddisruptionbudgets", "horizontalpodautoscalers"];
    let granted: Vec<_> = granted(&lab).await?.into_iter().filter(|right| makes.contains(&&*right.2)).collect();
    let only_reads = granted.iter().all(|(verb, ..)| ["list", "watch"].contains(&&**verb));
    anyhow::ensure!(only_reads && granted.len() == 2, "{granted:?}");
    let (_, denied) = used(&lab, noted)?;
    anyhow::ensure!(denied.is_empty(), "denied: {denied:?}");
    in_a_mesh(&lab, &[&VALUES[..], &FLEET].concat()).await
}

/// The same fleet in a mesh. Its Pods wait for Istio's agent, which a lab does not have, so this comes after all else.
async fn in_a_mesh(lab: &Lab, values: &[&str]) -> anyhow::Result<()> {
    // Nor are Istio's kinds.
    lab.helm("upgrade", &[], &[values, &["serviceMesh.istio=true", NO_POLICIES]].concat()).await?;
    let template = lab.field(&["-n", NAMESPACE, "deployment", SERVICE], "{.spec.template}").await?;
    let template: Value = serde_json::from_str(&template)?;
    let at = |pointer: &str| template.pointer(pointer).cloned().unwrap_or_default();
    let (labels, annotations) = (at("/metadata/labels"), at("/metadata/annotations"));
    anyhow::ensure!(labels.get("sidecar.istio.io/inject").is_some_and(|value| value == "true"), "{labels}");
    anyhow::ensure!(labels.get("app.kubernetes.io/name").is_some_and(|value| value == "tollgate-proxy"), "{labels}");
    anyhow::ensure!(
        annotations.get("inject.istio.io/templates").is_some_and(|value| value == "grpc-agent"),
        "{annotations}"
    );
    let arguments = at("/spec/containers/0/args");
    let arguments = arguments.as_array().context("no arguments")?;
    let last = arguments.last().and_then(Value::as_str).context("no argument")?;
    anyhow::ensure!(last == "--mesh-certificates=/var/lib/istio/data", "{arguments:?}");
    // Nothing of Istio is here.
    let kubeconfig = lab.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
    let fleet = format!("{NAMESPACE}/{SERVICE}");
    let arguments = ["mesh", "check", "--kubeconfig", kubeconfig, "--fleet", &fleet];
    let checked = cli::tollgate(&Tools::find()?, &arguments)?;
    anyhow::ensure!(checked.code == Some(1) && checked.out.contains("does not know Istio's kinds"), "{checked:?}");
    let waits = ["-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/name=tollgate-proxy", "--tail=-1"];
    poll::until("a proxy says what it waits for", || async {
        let told = lab.kubectl(&waits).await?.success()?.out;
        anyhow::ensure!(told.contains("there is no certificate yet"), "{told}");
        Ok(())
    })
    .await?;
    with_sidecars(lab, values).await?;
    in_linkerds_mesh(lab, values).await
}

/// The same in the other mesh, whose proxy stands beside ours. Nothing of Linkerd is here.
async fn in_linkerds_mesh(lab: &Lab, values: &[&str]) -> anyhow::Result<()> {
    let linkerd = "serviceMesh.linkerd=true";
    let both = [values, &[linkerd, "serviceMesh.istio=true"]].concat();
    // By the schema of the values, and by the templates where nobody looks at that.
    for (options, told) in [
        (&[][..], "at '/serviceMesh/linkerd': value must be false"),
        (&["--skip-schema-validation"], "serviceMesh: istio and linkerd are two meshes"),
    ] {
        let refused = lab.helm("upgrade", options, &both).await.err().context("two meshes are taken")?.to_string();
        anyhow::ensure!(refused.contains(told), "{refused}");
    }
    lab.helm("upgrade", &[], &[values, &[linkerd, NO_POLICIES]].concat()).await?;
    for (name, expected) in [
        ("tollgate", json!({"linkerd.io/inject": "disabled"})),
        (SERVICE, json!({"linkerd.io/inject": "enabled", "config.linkerd.io/skip-outbound-ports": "18000,18001"})),
    ] {
        let annotations = ["-n", NAMESPACE, "deployment", name];
        let annotations = lab.field(&annotations, "{.spec.template.metadata.annotations}").await?;
        anyhow::ensure!(serde_json::from_str::<Value>(&annotations)? == expected, "{name}: {annotations}");
    }
    Ok(())
}

/// The control plane for sidecars, which starts without its certificate, too.
async fn with_sidecars(lab: &Lab, values: &[&str]) -> anyhow::Result<()> {
    let outside = lab.helm("upgrade", &[], &[values, &["serviceMesh.sidecars=true"]].concat()).await;
    let refused = outside.err().context("sidecars without a mesh are taken")?.to_string();
    anyhow::ensure!(refused.contains("serviceMesh.istio must be true"), "{refused}");

    let url = "https://files.example/filter.wasm";
    let url_value = format!("serviceMesh.sidecarCodeUrl={url}");
    // Istio's own definitions take the policies.
    lab.install_istio().await?;
    let runners = "serviceMesh.policies.runners={first}";
    let on = ["serviceMesh.istio=true", "serviceMesh.sidecars=true", "podAnnotations.kept=yes", &url_value, runners];
    lab.helm("upgrade", &[], &[values, &on].concat()).await?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/tollgate", WAIT]).await?.success()?;
    let get = async |kind: &str, name: &str| {
        let found = lab.kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "json"]).await?.success()?.out;
        anyhow::Ok(serde_json::from_str::<Value>(&found)?)
    };
    let deployment = get("deployment", "tollgate").await?;
    let has = |pointer: &str, expected: Value| {
        let found = deployment.pointer(&format!("/spec/template{pointer}")).cloned().unwrap_or_default();
        anyhow::ensure!(found == expected, "{pointer}: {found}");
        Ok(())
    };
    has("/metadata/labels/sidecar.istio.io~1inject", json!("true"))?;
    has("/metadata/labels/security.istio.io~1tlsMode", json!("istio"))?;
    has("/metadata/annotations", json!({"inject.istio.io/templates": "grpc-agent", "kept": "yes"}))?;
    has("/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(true))?;

    // Istio tells HTTP/2 from HTTP/1.1 by the name and appProtocol. The options name what the Service has.
    let service = get("service", "tollgate").await?;
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).context("no ports")?;
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args").map(Value::to_string);
    let arguments = arguments.unwrap_or_default();
    for (name, protocol, option) in [("grpc-sidecars", "grpc", "--sidecars"), ("http-code", "http", "--sidecar-code")] {
        let port = ports.iter().find(|port| port.get("name") == Some(&json!(name))).context(name)?;
        anyhow::ensure!(port.get("appProtocol") == Some(&json!(protocol)), "{port}");
        let number = port.get("port").map(Value::to_string).unwrap_or_default();
        anyhow::ensure!(arguments.contains(&format!("\"{option}=0.0.0.0:{number}\"")), "{arguments}");
    }
    let host = "\"--sidecar-control-plane=tollgate.tollgate-system.svc.cluster.local\"";
    anyhow::ensure!(arguments.contains(host) && arguments.contains("\"--envoy-filters\""), "{arguments}");
    anyhow::ensure!(arguments.contains(&format!("\"--sidecar-code-url={url}\"")), "{arguments}");
    lab.kubectl(&["get", "clusterrolebinding", "tollgate-sidecars"]).await?.success()?;
    for kind in ["peerauthentication", "authorizationpolicy", "destinationrule"] {
        get(kind, "tollgate").await?;
    }
    let callers = ["-n", "first", "authorizationpolicy", "tollgate-gateways"];
    let callers = lab.field(&callers, "{.spec.rules[0].from[0].source.principals}").await?;
    anyhow::ensure!(callers == format!("[\"cluster.local/ns/{NAMESPACE}/sa/{SERVICE}\"]"), "{callers}");
    for (kind, name) in [("peerauthentication", "tollgate-strict"), ("authorizationpolicy", "tollgate-deny")] {
        lab.kubectl(&["-n", "first", "get", kind, name]).await?.success()?;
    }
    Ok(())
}

const LATE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: late, namespace: second}
spec:
  gatewayClassName: tollgate
  listeners:
  - {name: taken, port: 9081, protocol: HTTP, hostname: other.example}
  - {name: closed, port: 9083, protocol: HTTP}
";
