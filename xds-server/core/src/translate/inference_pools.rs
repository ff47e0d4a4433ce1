//! InferencePools: the ready Pods that each selects as endpoints, and who chooses among them. To routes a pool is what the
//! port of a Service is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::{self, Choice, OnPickerFailure};
use crate::mesh::Mesh;
use crate::objects::{AppProtocol, InferencePool, Object, PickerRef, Pod, Service, Shown};
use crate::status::{Finding, Reason, Severity};

use super::refs::{INFERENCE_POOL, Reference, SERVICE};
use super::services::{Found, cluster_name, members, of_picker};
use super::view::View;

const PICKER: &str = "spec.endpointPickerRef";

pub fn cluster_of(namespace: &str, name: &str) -> String {
    format!("inferencepool/{namespace}/{name}")
}

/// None: its picker can never be asked, and without one it takes no requests.
pub fn pool(view: View<'_>, object: &Object<InferencePool>, findings: &mut Vec<Finding>) -> Option<ir::Service> {
    let Object { meta, spec, .. } = object;
    let choice = match &spec.picker {
        None => Choice::LeastBusy,
        Some(picker) => match self::picker(view, object, picker) {
            Ok(Some(picker)) => Choice::Picked(Arc::new(picker)),
            Ok(None) => Choice::LeastBusy,
            Err(finding) => {
                findings.push(finding);
                match picker.on_failure {
                    OnPickerFailure::FailOpen => Choice::LeastBusy,
                    OnPickerFailure::FailClose => return None,
                }
            }
        },
    };
    let endpoints = endpoints(view, object);
    let port = spec.ports.first().copied().unwrap_or_default();
    // It has no name in DNS. A Service of its name would have this one.
    let server_name = |mesh: &Mesh| Mesh::server_name(&mesh.host(meta.namespace(), meta.name()), port);
    Some(ir::Service {
        origin: meta.origin.clone(),
        cluster: cluster_of(meta.namespace(), meta.name()),
        h2c: spec.protocol == AppProtocol::Http2,
        websocket: false,
        tls: None,
        peers: members(view.mesh(), server_name, &endpoints),
        choice,
        endpoints: endpoints.into_iter().map(|found| found.endpoint).collect(),
    })
}

/// Each port of each Pod that is ready.
fn endpoints(view: View<'_>, object: &Object<InferencePool>) -> Vec<Found> {
    let InferencePool { labels, ports, .. } = &object.spec;
    let pods = view.of_namespace::<Pod>(object.meta.namespace());
    let taking = pods.filter(|pod| pod.spec.is_ready && has_all(&pod.meta.labels, labels));
    let mut endpoints: Vec<Found> = taking.flat_map(|pod| of_pod(view, pod, ports)).collect();
    endpoints.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    // Pods in the network of their node share its address.
    endpoints.dedup_by_key(|found| (found.endpoint.ip, found.endpoint.port));
    endpoints
}

fn of_pod<'a>(view: View<'_>, pod: &Object<Pod>, ports: &'a [u16]) -> impl Iterator<Item = Found> + use<'a> {
    let identities = view.mesh().map(|mesh| mesh.identities(&pod.spec, &pod.meta)).unwrap_or_default();
    pod.spec.ip.into_iter().flat_map(|ip| ports.iter().map(move |port| (ip, *port))).map(move |(ip, port)| Found {
        endpoint: ir::ServiceEndpoint { ip, port, zone: None, is_in_mesh: !identities.is_empty() },
        identities: identities.clone(),
    })
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The picker is in the pool's namespace, so nobody has to grant anything. None: it is not there just now, and requests are
/// let through without it. Envoy itself lets a request through only if it has no body, because the body is on its way to the
/// picker by the time that the call fails.
fn picker(view: View<'_>, object: &Object<InferencePool>, picker: &PickerRef) -> Result<Option<ir::Picker>, Finding> {
    let (meta, namespace) = (&object.meta, object.meta.namespace());
    let reason = Reason::InvalidExtensionRef;
    if (picker.group.as_str(), picker.kind.as_str()) != SERVICE {
        let message = format!("{} of group {} is never asked", Shown(&picker.kind), Shown(&picker.group));
        return Err(meta.finding(Severity::Error, reason, PICKER, message, "kind: Service"));
    }
    let name = &picker.name;
    let reference =
        Reference { from: meta, from_kind: INFERENCE_POOL, to_kind: SERVICE, namespace, name, field: PICKER };
    let Some(service) = view.object::<Service>(namespace, name) else {
        return Err(reference.not_found::<Service>(reason, view));
    };
    // Its name may lead anywhere (CVE-2021-25740).
    if service.spec.spec.type_.as_deref() == Some("ExternalName") {
        let message = format!("{} is of type ExternalName", reference.target());
        return Err(reference.finding(reason, &message, "a Service with endpoints"));
    }
    let number = picker.port.unwrap_or_default();
    let cluster = cluster_name(namespace, name, number);
    let Some(port) = view.port(&cluster) else {
        return Err(reference.finding(reason, &format!("{} has no port {number}", reference.target()), ""));
    };
    if !port.has_endpoints && picker.on_failure == OnPickerFailure::FailOpen {
        return Ok(None);
    }
    let authority = format!("{name}.{namespace}.svc:{number}");
    Ok(Some(ir::Picker { service: of_picker(&cluster), authority, on_failure: picker.on_failure }))
}
