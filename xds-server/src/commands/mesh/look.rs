//! What of a cluster `tollgate mesh check` looks at besides Gateways: control planes, the EnvoyFilters of workloads, and
//! which namespaces are in ambient mode.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tollgate_core::fleet::MANAGED_BY;
use tollgate_core::istio::{FoundControlPlane, FoundFilter, FoundPod, Version, is_ambient, is_name};
use tollgate_core::mesh::{AGENT_ALONE, INJECTED};
use tollgate_core::objects::Key;

const AGENT: &str = "istio-proxy";
/// The container of our proxies, and that of our control plane.
const PROXY: &str = "proxy";
const TOLLGATE: &str = "tollgate";
const ISTIOD: &str = "discovery";
/// The label that has ztunnel take connections: of a namespace, or of a Pod.
const MODE: &str = "istio.io/dataplane-mode";
const REVISION: &str = "istio.io/rev";
const APP_VERSION: &str = "app.kubernetes.io/version";

/// The modes that namespaces ask for.
#[derive(Debug, Default)]
pub struct Modes(BTreeMap<String, String>);

pub async fn modes(client: &Client) -> anyhow::Result<Modes> {
    let all: Api<Namespace> = Api::all(client.clone());
    let labelled = all.list(&ListParams::default().labels(MODE)).await?;
    Ok(Modes(labelled.iter().filter_map(|found| Some((found.name_any(), found.labels().get(MODE)?.clone()))).collect()))
}

pub async fn istiods(client: &Client) -> anyhow::Result<Vec<FoundControlPlane>> {
    control_planes(client, "app=istiod", ISTIOD).await
}

pub async fn own_control_planes(client: &Client) -> anyhow::Result<Vec<FoundControlPlane>> {
    control_planes(client, "app.kubernetes.io/name=tollgate", TOLLGATE).await
}

async fn control_planes(client: &Client, labels: &str, container: &str) -> anyhow::Result<Vec<FoundControlPlane>> {
    let all: Api<Deployment> = Api::all(client.clone());
    let found = all.list(&ListParams::default().labels(labels)).await?;
    let control_plane = |found: &Deployment| {
        let pod = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
        // An image that is pinned has no tag. The chart's version is in a label then.
        let labelled = || Version::of_tag(found.labels().get(APP_VERSION)?);
        FoundControlPlane {
            name: format!("{}/{}", found.namespace().unwrap_or_default(), found.name_any()),
            revision: found.labels().get(REVISION).cloned(),
            version: version_of(containers, container).or_else(labelled),
        }
    };
    Ok(found.iter().map(control_plane).collect())
}

/// The EnvoyFilters that are called as ours are, and the Pods that each selects.
pub async fn filters(client: &Client, modes: &Modes) -> anyhow::Result<Vec<FoundFilter>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1alpha3", "EnvoyFilter"));
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut found = Vec::new();
    for filter in all.list(&ListParams::default()).await?.iter().filter(|filter| is_name(&filter.name_any())) {
        let key = Key::new(filter.namespace().unwrap_or_default(), filter.name_any());
        let selector = filter.data.pointer("/spec/workloadSelector/labels").and_then(Value::as_object);
        let selector: Vec<String> = selector
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
            .collect();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
        let pods = pods.list(&ListParams::default().labels(&selector.join(","))).await?;
        let pods = pods.iter().filter(|pod| !is_over(pod)).map(|found| pod(found, modes)).collect();
        let is_ours = filter.labels().get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1);
        found.push(FoundFilter { key, is_ours, pods });
    }
    Ok(found)
}

/// Whether a Pod has ended, as one of a Job or one that its node threw out.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub fn pod(pod: &Pod, modes: &Modes) -> FoundPod {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    // Kubernetes' own kind of sidecars are among the first.
    let first = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let has_agent = containers.iter().chain(first).any(|container| container.name == AGENT);
    let namespace = modes.0.get(&pod.namespace().unwrap_or_default()).map(String::as_str);
    FoundPod {
        name: pod.name_any(),
        asks: pod.labels().get(INJECTED.0).is_some_and(|value| value == INJECTED.1),
        templates: pod.annotations().get(AGENT_ALONE.0).cloned(),
        has_agent,
        is_ambient: is_ambient(namespace, pod.labels().get(MODE).map(String::as_str), has_agent),
        revision: pod.annotations().get(REVISION).cloned(),
        agent: version_of(containers, AGENT).or_else(|| version_of(first, AGENT)),
        proxy: version_of(containers, PROXY),
    }
}

fn version_of(containers: &[Container], name: &str) -> Option<Version> {
    let container = containers.iter().find(|container| container.name == name)?;
    Version::of_image(container.image.as_deref()?)
}

// === impl Modes ===

impl Modes {
    pub fn ambient(&self) -> BTreeSet<String> {
        let ambient = self.0.iter().filter(|(_, mode)| is_ambient(Some(mode), None, false));
        ambient.map(|(namespace, _)| namespace.clone()).collect()
    }
}
