//! ModelBackends with what they refer to: Services, credentials, certificate authorities.

use crate::ir;
use crate::objects::{Endpoint, ModelBackend, Object, Service, Tls};
use crate::placement::Feature;
use crate::status::{Finding, Reason, Severity};

use super::refs::{self, MODEL_BACKEND, Reference, SERVICE};
use super::services::cluster_name;
use super::view::View;

/// A backend whose credential or certificate authority cannot be had is refused. Without them requests would reach it
/// in the wrong name, or reach somebody else in its place.
pub fn backend(view: View<'_>, object: &Object<ModelBackend>) -> Result<ir::Backend, Finding> {
    let Object { meta, spec, .. } = object;
    let (endpoint, host) = endpoint(view, object)?;
    let tls = match &spec.tls {
        Tls::None => ir::Tls::None,
        Tls::Istio { sans } => match view.lack(Feature::IstioCertificates, meta, "spec.tls.mode") {
            Some(finding) => return Err(finding),
            None => ir::Tls::Istio { sans: sans.clone() },
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
    let port = spec.endpoint.port();
    // The mesh puts its TLS around plain HTTP.
    let is_default_port = port == if matches!(tls, ir::Tls::Simple { .. }) { 443 } else { 80 };
    Ok(ir::Backend {
        origin: meta.origin.clone(),
        cluster: format!("{}{}/{}", ir::BACKEND_PREFIX, meta.namespace(), meta.name()),
        schema: spec.schema,
        endpoint,
        tls,
        path_prefix: spec.path_prefix.clone(),
        authority: if is_default_port { host } else { format!("{host}:{port}") },
        credential,
        timeouts: spec.timeouts,
        per_attempt: false,
    })
}

/// Where the backend is, and the host that requests to it name.
fn endpoint(view: View<'_>, object: &Object<ModelBackend>) -> Result<(ir::Endpoint, String), Finding> {
    match &object.spec.endpoint {
        Endpoint::Address { ip, port } => {
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            Ok((ir::Endpoint::Address { ip: *ip, port: *port }, host))
        }
        Endpoint::Hostname { hostname, port } => {
            Ok((ir::Endpoint::Dns { hostname: hostname.clone(), port: *port }, hostname.clone()))
        }
        Endpoint::Service { namespace, name, port } => {
            let namespace = namespace.as_deref().unwrap_or(object.meta.namespace());
            let field = "spec.endpoint.service";
            let reference =
                Reference { from: &object.meta, from_kind: MODEL_BACKEND, to_kind: SERVICE, namespace, name, field };
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
    }
}
