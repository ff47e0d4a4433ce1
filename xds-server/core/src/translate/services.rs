//! Services and EndpointSlices to endpoints, one entry for each port of each Service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::Endpoint;

use crate::ir;
use crate::mesh::Mesh;
use crate::objects::{BackendSlice, Key, Object, Pod, Service};

use crate::status::Finding;

use super::backend_tls;
use super::view::View;

/// Label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn cluster_name(namespace: &str, name: &str, port: u16) -> String {
    format!("service/{namespace}/{name}/{port}")
}

/// The Service whose port has this cluster.
pub fn service_of_cluster(cluster: &str) -> Option<Key> {
    let (namespace, rest) = cluster.strip_prefix("service/")?.split_once('/')?;
    let (name, _) = rest.split_once('/')?;
    Some(Key::new(namespace, name))
}

/// Endpoint pickers speak gRPC, and most make a certificate for themselves.
const PICKER: &str = "/picker";

pub fn of_picker(cluster: &str) -> String {
    format!("{cluster}{PICKER}")
}

/// Calls are sent by HTTP/2 to a port that does not say what it speaks. That is another cluster, because the same port
/// may be spoken to by HTTP/1 for an HTTPRoute.
const H2C: &str = "/h2c";

pub fn of_calls(cluster: &str) -> String {
    format!("{cluster}{H2C}")
}

/// What the cluster of this name is of, as that cluster has it.
pub fn named(services: &BTreeMap<String, Arc<ir::Service>>, cluster: &str) -> Option<Arc<ir::Service>> {
    let (service, tls) = if let Some(port) = cluster.strip_suffix(H2C) {
        let service = services.get(port)?;
        (service, service.tls.clone())
    } else if let Some(port) = cluster.strip_suffix(PICKER) {
        let service = services.get(port)?;
        let is_plain = service.h2c || service.peers.is_some();
        let own = || (!is_plain).then(|| Arc::new(ir::ServiceTls::Unverified));
        (service, service.tls.clone().or_else(own))
    } else {
        return services.get(cluster).map(Arc::clone);
    };
    let service = ir::Service::clone(service);
    Some(Arc::new(ir::Service { cluster: cluster.to_owned(), h2c: true, tls, ..service }))
}

/// What routes must know of a port of a Service, or of an InferencePool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub has_endpoints: bool,
    /// Whether each of them is a member of the mesh.
    pub all_in_mesh: bool,
    pub h2c: bool,
    pub websocket: bool,
    pub picker: Option<Arc<ir::Picker>>,
    pub peers: Option<Arc<ir::Peers>>,
}

impl Port {
    pub fn of(service: &ir::Service) -> Self {
        Self {
            has_endpoints: !service.endpoints.is_empty(),
            all_in_mesh: service.endpoints.iter().all(|endpoint| endpoint.is_in_mesh),
            h2c: service.h2c,
            websocket: service.websocket,
            picker: service.choice.picker().map(Arc::clone),
            peers: service.peers.clone(),
        }
    }
}

/// The Service that an EndpointSlice is of.
pub fn service_of(slice: &Object<BackendSlice>) -> Option<Key> {
    Some(Key::new(slice.meta.namespace(), slice.meta.labels.get(SERVICE_NAME)?.as_str()))
}

/// The ports of a Service. If two have the same number, the last one counts.
pub fn service(view: View<'_>, service: &Object<Service>, findings: &mut Vec<Finding>) -> Vec<Arc<ir::Service>> {
    let key = service.meta.key();
    let slices = view.slices(&key);
    findings.extend(slices.iter().flat_map(|slice| slice.refused.findings().cloned()));
    let mut ports: Vec<Arc<ir::Service>> = Vec::new();
    for port in service.spec.spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else {
            continue;
        };
        let endpoints = endpoints(view, &slices, port.name.as_deref().unwrap_or_default());
        let server_name = |mesh: &Mesh| Mesh::server_name(&mesh.host(&key.namespace, &key.name), number);
        let made = ir::Service {
            origin: service.meta.origin.section(format!("port {number}")),
            cluster: cluster_name(service.meta.namespace(), service.meta.name(), number),
            tls: backend_tls::of_port(view, &key, port.name.as_deref()),
            h2c: port.app_protocol.as_deref() == Some("kubernetes.io/h2c"),
            websocket: port.app_protocol.as_deref() == Some("kubernetes.io/ws"),
            peers: members(view.mesh(), server_name, &endpoints),
            choice: ir::Choice::ByTurns,
            endpoints: endpoints.into_iter().map(|found| found.endpoint).collect(),
        };
        ports.retain(|port| port.cluster != made.cluster);
        ports.push(Arc::new(made));
    }
    ports
}

/// The addresses that take requests, each once. A port of an EndpointSlice belongs to the Service's port of the same
/// name.
///
/// Those that are ready take them. If none is, those do that still answer while they end, as with kube-proxy
/// (KEP-1669): a Service whose replicas are all replaced at once is not without any.
fn endpoints(view: View<'_>, slices: &[&Object<BackendSlice>], port_name: &str) -> Vec<Found> {
    let all = |takes: fn(&Endpoint) -> bool| -> Vec<Found> {
        let of_slices = slices.iter().flat_map(|slice| of_slice(view, slice, port_name, takes));
        let mut endpoints: Vec<Found> = of_slices.collect();
        endpoints.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        endpoints.dedup_by(|next, found| {
            let is_same = (next.endpoint.ip, next.endpoint.port) == (found.endpoint.ip, found.endpoint.port);
            // Two slices may have it, and one of them does not say which Pod it is.
            if is_same && next.endpoint.is_in_mesh {
                std::mem::swap(next, found);
            }
            is_same
        });
        endpoints
    };
    let ready = all(is_ready);
    if ready.is_empty() { all(ends_and_answers) } else { ready }
}

/// An endpoint, and the identities that it may show. Empty: it is outside of the mesh.
pub struct Found {
    pub endpoint: ir::ServiceEndpoint,
    pub identities: Vec<String>,
}

/// Who is in the mesh among these endpoints.
pub fn members(
    mesh: Option<&Mesh>,
    server_name: impl FnOnce(&Mesh) -> String,
    endpoints: &[Found],
) -> Option<Arc<ir::Peers>> {
    let identities: BTreeSet<&String> = endpoints.iter().flat_map(|found| &found.identities).collect();
    let mesh = mesh.filter(|_| !identities.is_empty())?;
    let identities = identities.into_iter().cloned().collect();
    Some(Arc::new(ir::Peers { server_name: server_name(mesh), identities }))
}

fn of_slice<'a>(
    view: View<'a>,
    slice: &'a Object<BackendSlice>,
    port_name: &str,
    takes: fn(&Endpoint) -> bool,
) -> impl Iterator<Item = Found> + use<'a> {
    let port = slice.spec.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == port_name);
    let port = port.and_then(|port| u16::try_from(port.port?).ok());
    slice.spec.endpoints.iter().filter(move |endpoint| takes(endpoint)).flat_map(move |endpoint| {
        let zone: Option<Arc<str>> = endpoint.zone.as_deref().map(Into::into);
        let identities = view.mesh().map(|mesh| identities(view, mesh, slice, endpoint)).unwrap_or_default();
        let addresses = endpoint.addresses.iter();
        addresses.filter_map(move |address| {
            let (ip, is_in_mesh) = (address.parse().ok()?, !identities.is_empty());
            let endpoint = ir::ServiceEndpoint { ip, port: port?, zone: zone.clone(), is_in_mesh };
            Some(Found { endpoint, identities: identities.clone() })
        })
    })
}

/// Those of all Pods behind a Service, ready or not. Empty: none is in the mesh.
pub fn identities_of(view: View<'_>, service: &Key) -> BTreeSet<String> {
    let Some(mesh) = view.mesh() else { return BTreeSet::new() };
    let slices = view.slices(service);
    let endpoints = slices.iter().flat_map(|slice| slice.spec.endpoints.iter().map(move |endpoint| (slice, endpoint)));
    endpoints.flat_map(|(slice, endpoint)| identities(view, mesh, slice, endpoint)).collect()
}

/// Those of the Pod that the endpoint is.
fn identities(view: View<'_>, mesh: &Mesh, slice: &Object<BackendSlice>, endpoint: &Endpoint) -> Vec<String> {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target.and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(slice.meta.namespace());
        view.object::<Pod>(namespace, target.name.as_deref()?)
    });
    pod.map(|pod| mesh.identities(&pod.spec, &pod.meta)).unwrap_or_default()
}

/// Absent means ready (EndpointConditions.ready).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// Where it does not say whether it serves, it does if it is ready (EndpointConditions.serving).
fn ends_and_answers(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let serves = conditions.and_then(|conditions| conditions.serving).unwrap_or_else(|| is_ready(endpoint));
    serves && conditions.and_then(|conditions| conditions.terminating).unwrap_or(false)
}
