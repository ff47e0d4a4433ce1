//! ModelBackends with what they refer to: Services, InferencePools, credentials, certificate authorities.

use std::sync::Arc;

use crate::ir;
use crate::mesh::Mesh;
use crate::objects::{Endpoint, InferencePool, Key, ModelBackend, Object, Service, Tls};
use crate::placement::Feature;
use crate::status::{Finding, Reason, Severity};

use super::refs::{self, INFERENCE_POOL, MODEL_BACKEND, Reference, SERVICE};
use super::service_refs::{self, Target};
use super::services::cluster_name;
use super::view::View;
use super::workloads;

/// A backend whose credential or certificate authority cannot be had is refused. Without them requests would reach it
/// in the wrong name, or reach somebody else in its place.
pub fn backend(
    view: View<'_>,
    object: &Object<ModelBackend>,
    findings: &mut Vec<Finding>,
) -> Result<ir::Backend, Finding> {
    let Object { meta, spec, .. } = object;
    let (endpoint, host) = endpoint(view, object, findings)?;
    let tls = match &spec.tls {
        Tls::Default => match members(view, &endpoint) {
            None => ir::Tls::None,
            peers => ir::Tls::Istio { peers, to: ir::MeshTo::Members },
        },
        Tls::None => ir::Tls::None,
        Tls::Istio { sans } => match view.lack(Feature::IstioCertificates, meta, "spec.tls.mode") {
            Some(finding) => return Err(finding),
            None => {
                let peers = peers(view, (&endpoint, &host), sans);
                if peers.is_none() && view.mesh().is_some() {
                    let message = "no Pod behind it is in the mesh, so nobody is reached";
                    let hint = "inject the Pods, or name who may be there by sans";
                    findings.push(meta.finding(Severity::Warning, Reason::NoEndpoints, "spec.tls.mode", message, hint));
                }
                ir::Tls::Istio { peers, to: ir::MeshTo::All }
            }
        },
        Tls::Simple { sni, ca } => {
            let ca = match ca {
                None => ir::Authority::System,
                Some(secret) => {
                    let field = "spec.tls.caRef";
                    let (origin, pem) = refs::secret_value(view, meta, MODEL_BACKEND, secret, field)?;
                    if !pem.expose().contains("-----BEGIN CERTIFICATE-----") {
                        let message = "the authority is not a certificate in PEM";
                        return Err(meta.finding(Severity::Error, Reason::InvalidSecret, field, message, ""));
                    }
                    let name = format!("{}/{}/{}", origin.namespace, origin.name, secret.key);
                    ir::Authority::Certificate { origin, name, pem }
                }
            };
            ir::Tls::Simple { sni: sni.clone().unwrap_or_else(|| host.clone()), ca }
        }
    };
    let credential = match &spec.credential {
        None => None,
        Some(credential) => {
            let field = "spec.credential.secretRef";
            let (origin, secret) = refs::secret_value(view, meta, MODEL_BACKEND, &credential.secret, field)?;
            refs::header_value(&secret)
                .map_err(|error| meta.finding(Severity::Error, Reason::InvalidSecret, field, error, ""))?;
            Some(ir::Credential { origin, secret })
        }
    };
    let hands_over = hands_over(view, object, &endpoint, &tls);
    // The mesh puts its TLS around plain HTTP.
    let default_port = if matches!(tls, ir::Tls::Simple { .. }) { 443 } else { 80 };
    let port = spec.endpoint.port().filter(|port| *port != default_port);
    Ok(ir::Backend {
        origin: meta.origin.clone(),
        cluster: format!("{}{}/{}", ir::BACKEND_PREFIX, meta.namespace(), meta.name()),
        schema: spec.schema,
        endpoint,
        tls,
        path_prefix: spec.path_prefix.clone(),
        authority: port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
        credential,
        timeouts: spec.timeouts,
        per_attempt: false,
        hands_over,
    })
}

/// The Service that it is, if the filter is in front of all that it could be sent to. An application never gets what a
/// sidecar is told, and neither does whoever listens on the way.
fn hands_over(view: View<'_>, object: &Object<ModelBackend>, endpoint: &ir::Endpoint, tls: &ir::Tls) -> Option<Key> {
    let Endpoint::Service { namespace, name, .. } = &object.spec.endpoint else { return None };
    let ir::Endpoint::Service { cluster } = endpoint else { return None };
    let ir::Tls::Istio { peers: Some(_), to } = tls else { return None };
    let all_are_members = match to {
        ir::MeshTo::All => true,
        ir::MeshTo::Members => view.port(cluster).is_some_and(|port| port.all_in_mesh),
    };
    let service = Key::new(namespace.as_deref().unwrap_or(object.meta.namespace()), name.as_str());
    Some(service).filter(|service| all_are_members && workloads::has_filter(view, service))
}

/// Those of a Service or InferencePool that are in the mesh.
fn members(view: View<'_>, endpoint: &ir::Endpoint) -> Option<Arc<ir::Peers>> {
    match endpoint {
        ir::Endpoint::Service { cluster } | ir::Endpoint::InferencePool { cluster, .. } => view.port(cluster)?.peers,
        ir::Endpoint::Address { .. } | ir::Endpoint::Dns { .. } => None,
    }
}

/// Who may be there by the mesh's certificates: whoever is named, or those that the mesh says.
fn peers(view: View<'_>, (endpoint, host): (&ir::Endpoint, &str), sans: &[String]) -> Option<Arc<ir::Peers>> {
    let members = members(view, endpoint);
    if sans.is_empty() {
        return members;
    }
    let server_name = match endpoint {
        ir::Endpoint::Address { port, .. } | ir::Endpoint::Dns { port, .. } => Mesh::server_name(host, *port),
        // A server name is a matter of form there: a sidecar goes by the protocol (ALPN).
        ir::Endpoint::Service { .. } | ir::Endpoint::InferencePool { .. } => {
            members.map_or_else(|| host.to_owned(), |members| members.server_name.clone())
        }
    };
    let mut identities = sans.to_vec();
    identities.sort();
    identities.dedup();
    Some(Arc::new(ir::Peers { server_name, identities }))
}

/// Where the backend is, and the host that requests to it name.
fn endpoint(
    view: View<'_>,
    object: &Object<ModelBackend>,
    findings: &mut Vec<Finding>,
) -> Result<(ir::Endpoint, String), Finding> {
    let from = &object.meta;
    match &object.spec.endpoint {
        Endpoint::Address { ip, port } => {
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            Ok((ir::Endpoint::Address { ip: *ip, port: *port }, host))
        }
        Endpoint::Hostname { hostname, port } => {
            Ok((ir::Endpoint::Dns { hostname: hostname.clone(), port: *port }, hostname.clone()))
        }
        Endpoint::Service { namespace, name, port } => {
            let namespace = namespace.as_deref().unwrap_or(from.namespace());
            let field = "spec.endpoint.service";
            let reference = Reference { from, from_kind: MODEL_BACKEND, to_kind: SERVICE, namespace, name, field };
            if !reference.is_permitted(view) {
                return Err(reference.not_permitted());
            }
            if view.object::<Service>(namespace, name).is_none() {
                return Err(reference.not_found::<Service>(Reason::BackendNotFound, view));
            }
            let cluster = cluster_name(namespace, name, *port);
            if view.port(&cluster).is_none() {
                let message = format!("{} has no port {port}", reference.target());
                return Err(reference.finding(Reason::BackendNotFound, &message, ""));
            }
            Ok((ir::Endpoint::Service { cluster }, format!("{name}.{namespace}.svc.cluster.local")))
        }
        Endpoint::InferencePool { namespace, name } => {
            let namespace = namespace.as_deref().unwrap_or(from.namespace());
            let field = "spec.endpoint.inferencePool";
            let reference =
                Reference { from, from_kind: MODEL_BACKEND, to_kind: INFERENCE_POOL, namespace, name, field };
            let Target { cluster, port, .. } = service_refs::pool(view, &reference)?;
            // A pool of models may lead to several backends, and a route asks one picker before it is known to which.
            if view.object::<InferencePool>(namespace, name).is_some_and(|pool| pool.spec.picker.is_some()) {
                let message = format!("the endpoint picker of {} is not asked", reference.target());
                let hint = "the Pod with the fewest requests is taken";
                findings.push(from.finding(Severity::Warning, Reason::NotActedOn, field, message, hint));
            }
            // Its Pods have no name in common.
            Ok((ir::Endpoint::InferencePool { cluster, h2c: port.h2c }, format!("{name}.{namespace}")))
        }
    }
}
