//! Services and EndpointSlices to endpoints, one entry for each port of each Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ir::Service;
use crate::objects::Objects;

/// By cluster name: `service/<namespace>/<name>/<port>`.
pub type Services = BTreeMap<String, Service>;

/// Label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn cluster_name(namespace: &str, name: &str, port: u16) -> String {
    format!("service/{namespace}/{name}/{port}")
}

pub fn services(objects: &Objects) -> Services {
    let mut services = Services::new();
    for service in objects.services.iter() {
        let (namespace, name) = (service.meta.namespace(), service.meta.name());
        for port in service.spec.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let cluster = cluster_name(namespace, name, number);
            let endpoints = endpoints(objects, namespace, name, port.name.as_deref().unwrap_or_default());
            let h2c = port.app_protocol.as_deref() == Some("kubernetes.io/h2c");
            let origin = service.meta.origin.section(format!("port {number}"));
            services.insert(cluster.clone(), Service { origin, cluster, h2c, endpoints });
        }
    }
    services
}

/// The ready addresses. A port of an EndpointSlice belongs to the Service's port of the same name.
fn endpoints(objects: &Objects, namespace: &str, name: &str, port_name: &str) -> Vec<(IpAddr, u16)> {
    let mut endpoints: Vec<(IpAddr, u16)> = objects
        .endpoint_slices
        .iter()
        .filter(|slice| slice.meta.namespace() == namespace)
        .filter(|slice| slice.meta.labels.get(SERVICE_NAME).is_some_and(|service| service == name))
        .flat_map(|slice| {
            let port = slice
                .spec
                .ports
                .iter()
                .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
                .and_then(|port| u16::try_from(port.port?).ok());
            slice
                .spec
                .endpoints
                .iter()
                // Absent means ready (EndpointConditions.ready).
                .filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
                .flat_map(|endpoint| &endpoint.addresses)
                .filter_map(move |address| Some((address.parse().ok()?, port?)))
        })
        .collect();
    endpoints.sort();
    endpoints.dedup();
    endpoints
}
