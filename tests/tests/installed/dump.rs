//! All that an Envoy goes by, also in a form in which that of one Envoy can be compared with that of another.

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::envoy_admin::EnvoyAdmin;
use tollgate_tests::lab::{Lab, WAIT};

use crate::faults::envoy_of;

/// Whoever asks for it is answered only if the Envoy was started so.
const PATH: &str = "/config_dump";
/// What a control plane sends. What else a dump has is of the one Envoy: its bootstrap and its certificates.
const SENT: [&str; 6] = ["Listeners", "Clusters", "Routes", "ScopedRoutes", "Endpoints", "Ecds"];
/// When and how it came, which is not what it says.
const OF_ITS_WAY: [&str; 5] = ["last_updated", "version_info", "version", "client_status", "error_state"];
/// Of the bootstrap.
const STATIC: &str = "static_";

/// All that the Envoy of a proxy's Pod goes by, as it says it.
pub fn of(pod: &str) -> anyhow::Result<String> {
    EnvoyAdmin::in_pod(envoy_of(pod)?)?.get(&format!("{PATH}?include_eds"))
}

/// What it has taken.
pub fn taken(pod: &str) -> anyhow::Result<Value> {
    let dump: Value = serde_json::from_str(&of(pod)?)?;
    let configs = dump.get("configs").and_then(Value::as_array).context("no dump")?;
    let is_sent = |config: &&Value| {
        let kind = config.get("@type").and_then(Value::as_str).unwrap_or_default();
        SENT.iter().any(|sent| kind.ends_with(&format!(".{sent}ConfigDump")))
    };
    Ok(Value::Array(configs.iter().filter(is_sent).map(comparable).collect()))
}

/// Makes a Pod like those of the Gateway, but for that its Envoy tells what it goes by, and that nobody sends it requests.
pub async fn watched(lab: &Lab, namespace: &str, deployment: &str, name: &str) -> anyhow::Result<()> {
    let deployment = ["-n", namespace, "get", "deployment", deployment, "-o", "json"];
    let deployment: Value = serde_json::from_str(&lab.kubectl(&deployment).await?.success()?.out)?;
    let mut spec = deployment.pointer("/spec/template/spec").context("no Pods")?.clone();
    let arguments = spec.pointer_mut("/containers/0/args").and_then(Value::as_array_mut).context("no arguments")?;
    arguments.push(format!("--admin-path={PATH}").into());
    // By this label the control plane takes it for a proxy. No Service selects by this label alone.
    let labels = json!({"app.kubernetes.io/name": "tollgate-proxy"});
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()).await?;
    let pod = format!("pod/{name}");
    lab.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", WAIT, &pod]).await?.success()?;
    Ok(())
}

/// Ends such a Pod. Each Envoy takes of what the kernel lets one user watch files by (inotify(7), `max_user_instances`).
pub async fn unwatched(lab: &Lab, namespace: &str, name: &str) -> anyhow::Result<()> {
    lab.kubectl(&["-n", namespace, "delete", "pod", name, "--wait=false"]).await?.success().map(drop)
}

fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !OF_ITS_WAY.contains(&name.as_str()) && !name.starts_with(STATIC))
            .map(|(name, value)| (name.clone(), if is_table(name) { sorted(value) } else { comparable(value) }))
            .collect(),
        Value::Array(values) => values.iter().map(comparable).collect(),
        // The number of a sending stands in a filter's name.
        Value::String(text) => text.split_once("#sent=").map_or_else(|| value.clone(), |(name, _)| name.into()),
        _ => value.clone(),
    }
}

/// What Envoy keeps without an order.
fn is_table(name: &str) -> bool {
    name.starts_with("dynamic_") || ["scoped_route_configs", "ecds_filters"].contains(&name)
}

fn sorted(value: &Value) -> Value {
    let mut entries: Vec<Value> = value.as_array().into_iter().flatten().map(comparable).collect();
    entries.sort_by_key(Value::to_string);
    Value::Array(entries)
}
