//! Services and EndpointSlices to endpoints, one entry for each port of each Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ir::Service;
use crate::objects::{BackendSlice, Object, Objects};

/// By cluster name: `service/<namespace>/<name>/<port>`.
pub type Services = BTreeMap<String, Service>;

/// Label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn cluster_name(namespace: &str, name: &str, port: u16) -> String {
    format!("service/{namespace}/{name}/{port}")
}

pub fn services(objects: &Objects) -> Services {
    let mut slices: BTreeMap<(&str, &str), Vec<&Object<BackendSlice>>> = BTreeMap::new();
    for slice in objects.endpoint_slices.iter() {
        if let Some(service) = slice.meta.labels.get(SERVICE_NAME) {
            slices.entry((slice.meta.namespace(), service)).or_default().push(slice);
        }
    }
    let mut services = Services::new();
    for service in objects.services.iter() {
        let (namespace, name) = (service.meta.namespace(), service.meta.name());
        let slices = slices.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for port in service.spec.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let cluster = cluster_name(namespace, name, number);
            let endpoints = endpoints(slices, port.name.as_deref().unwrap_or_default());
            let h2c = port.app_protocol.as_deref() == Some("kubernetes.io/h2c");
            let origin = service.meta.origin.section(format!("port {number}"));
            services.insert(cluster.clone(), Service { origin, cluster, h2c, endpoints });
        }
    }
    services
}

/// The ready addresses. A port of an EndpointSlice belongs to the Service's port of the same name.
fn endpoints(slices: &[&Object<BackendSlice>], port_name: &str) -> Vec<(IpAddr, u16)> {
    let mut endpoints: Vec<(IpAddr, u16)> = slices
        .iter()
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
