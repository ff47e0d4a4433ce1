//! ProxyParameters: what the proxies of a Gateway are like, where it is not what the control plane was told.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::check::Check;

/// A Gateway names it by `infrastructure.parametersRef`, a GatewayClass by `parametersRef`. What is absent is as told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyParameters {
    pub image: Option<String>,
    pub replicas: Option<ProxyReplicas>,
    pub service: Option<ProxyService>,
    pub resources: Option<ProxyResources>,
    pub node_selector: BTreeMap<String, String>,
}

/// How many Pods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyReplicas {
    Fixed(u32),
    /// A HorizontalPodAutoscaler decides, by the use of CPU in percent of what is requested.
    Between {
        least: u32,
        most: u32,
        cpu_percent: u32,
    },
}

/// How a Gateway is reached (Service.spec.type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ProxyService {
    LoadBalancer,
    NodePort,
    ClusterIP,
}

/// Of a Pod (ResourceRequirements), as quantities of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProxyResources {
    /// What a node keeps for a Pod, for example `cpu: 500m`.
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    /// What a Pod may use at most, for example `memory: 1Gi`. Envoy gets half of the memory as its heap.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

/// What the proxies of a Gateway are like. A Gateway names it by `infrastructure.parametersRef`, a GatewayClass by
/// `parametersRef`. What is absent is as the control plane was told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!(has(self.replicas) && has(self.autoscaling))", "message": "either replicas or autoscaling"}])))]
pub struct ProxyParametersWire {
    /// The image of the proxies.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 512)))]
    image: Option<String>,
    /// The number of Pods.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    replicas: Option<i64>,
    /// A HorizontalPodAutoscaler decides how many Pods there are.
    autoscaling: Option<AutoscalingWire>,
    /// The Service by which the Gateway is reached.
    service: Option<ServiceWire>,
    /// CPU and memory of a Pod.
    resources: Option<ProxyResources>,
    /// Labels of the nodes that Pods may run on.
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
}

/// Between which numbers of Pods, and by what.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "self.minReplicas <= self.maxReplicas", "message": "minReplicas is the smaller one"}])))]
struct AutoscalingWire {
    /// The least number of Pods.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    min_replicas: i64,
    /// The largest number of Pods.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    max_replicas: i64,
    /// The use of CPU that there are more Pods at, in percent of what a Pod requests.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    #[serde(default = "cpu_percent", rename = "targetCPUUtilizationPercentage")]
    target_cpu_utilization_percentage: i64,
}

/// The Service of a Gateway.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ServiceWire {
    /// LoadBalancer, NodePort or ClusterIP.
    #[serde(rename = "type")]
    kind: ProxyService,
}

fn cpu_percent() -> i64 {
    80
}

pub fn proxy_parameters(wire: ProxyParametersWire, check: &mut Check<'_>) -> Option<ProxyParameters> {
    if wire.image.as_ref().is_some_and(|image| image.is_empty() || image.len() > 512) {
        check.error("spec.image", "not an image", "for example registry.example/tollgate-proxy:0.1.0");
    }
    if wire.replicas.is_some() && wire.autoscaling.is_some() {
        check.error("spec.replicas", "either replicas or autoscaling", "");
    }
    let fixed = wire.replicas.map(|replicas| ProxyReplicas::Fixed(check.number("spec.replicas", replicas, 1, 1000)));
    let scaled = wire.autoscaling.map(|scaling| {
        let field = |name: &str| format!("spec.autoscaling.{name}");
        let least = check.number(field("minReplicas"), scaling.min_replicas, 1, 1000);
        let most = check.number(field("maxReplicas"), scaling.max_replicas, 1, 1000);
        let percent = scaling.target_cpu_utilization_percentage;
        let cpu_percent = check.number(field("targetCPUUtilizationPercentage"), percent, 1, 100);
        if least > most {
            check.error(field("minReplicas"), "minReplicas is the smaller one", "");
        }
        ProxyReplicas::Between { least, most, cpu_percent }
    });
    Some(ProxyParameters {
        image: wire.image,
        replicas: fixed.or(scaled),
        service: wire.service.map(|service| service.kind),
        resources: wire.resources,
        node_selector: wire.node_selector,
    })
}

// === impl ProxyParameters ===

impl ProxyParameters {
    /// What is absent here is as there.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            image: self.image.clone().or_else(|| other.image.clone()),
            replicas: self.replicas.or(other.replicas),
            service: self.service.or(other.service),
            resources: self.resources.clone().or_else(|| other.resources.clone()),
            node_selector: if self.node_selector.is_empty() { &other.node_selector } else { &self.node_selector }
                .clone(),
        }
    }
}
