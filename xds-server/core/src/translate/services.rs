//! Services and EndpointSlices to endpoints, one entry for each port of each Service.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ir;
use crate::objects::{BackendSlice, Key, Object, Service};

use crate::status::Finding;

use super::view::View;

/// Label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn cluster_name(namespace: &str, name: &str, port: u16) -> String {
    format!("service/{namespace}/{name}/{port}")
}

/// The Service that an EndpointSlice is of.
pub fn service_of(slice: &Object<BackendSlice>) -> Option<Key> {
    Some(Key::new(slice.meta.namespace(), slice.meta.labels.get(SERVICE_NAME)?.as_str()))
}

/// The ports of a Service. If two have the same number, the last one counts.
pub fn service(view: View<'_>, service: &Object<Service>, findings: &mut Vec<Finding>) -> Vec<Arc<ir::Service>> {
    let slices = view.slices(&service.meta.key());
    findings.extend(slices.iter().flat_map(|slice| slice.refused.findings().cloned()));
    let mut ports: Vec<Arc<ir::Service>> = Vec::new();
    for port in service.spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else {
            continue;
        };
        let made = ir::Service {
            origin: service.meta.origin.section(format!("port {number}")),
            cluster: cluster_name(service.meta.namespace(), service.meta.name(), number),
            h2c: port.app_protocol.as_deref() == Some("kubernetes.io/h2c"),
            endpoints: endpoints(&slices, port.name.as_deref().unwrap_or_default()),
        };
        ports.retain(|port| port.cluster != made.cluster);
        ports.push(Arc::new(made));
    }
    ports
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
