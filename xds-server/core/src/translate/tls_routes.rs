//! TLSRoutes: where each leads, and the listeners that it is attached to.

use std::sync::Arc;

use gateway_api::apis::standard::tlsroutes::TlsRouteRulesBackendRefs as BackendRef;

use crate::ir::{Tunnel, TunnelService};
use crate::objects::{Object, Shown, TlsRoute};
use crate::status::{Finding, Reason, Severity, StatusKind};

use super::attach::{Attachment, Route};
use super::parents::{self, Child, ParentRef};
use super::refs::{Reference, SERVICE, TLS_ROUTE};
use super::service_refs;
use super::view::View;

/// A route of ours, with the listeners that it is attached to.
#[derive(Debug, PartialEq)]
pub struct AttachedTlsRoute {
    /// Unix seconds; of several routes for one hostname, the oldest counts.
    pub created: i64,
    /// See [`parents::Parents::ours`].
    pub parents: Box<[usize]>,
    pub attachments: Box<[Attachment]>,
    pub tunnel: Arc<Tunnel>,
}

/// None: the route does not concern us.
pub fn tls_route(view: View<'_>, object: &Object<TlsRoute>, findings: &mut Vec<Finding>) -> Option<AttachedTlsRoute> {
    let Object { meta, spec, .. } = object;
    let route = Route { kind: StatusKind::TlsRoute, namespace: meta.namespace(), hostnames: &spec.hostnames };
    let references = spec.parent_refs.iter().flatten().map(ParentRef::from);
    let parents = parents::parents(view, Child { meta, kind: TLS_ROUTE, route }, references, findings)?;
    findings.extend(object.refused.findings().cloned());
    Some(AttachedTlsRoute {
        created: meta.created.unwrap_or(i64::MAX),
        parents: parents.ours,
        attachments: parents.attachments,
        tunnel: Arc::new(tunnel(view, object, findings)),
    })
}

fn tunnel(view: View<'_>, object: &Object<TlsRoute>, findings: &mut Vec<Finding>) -> Tunnel {
    let mut tunnel = Tunnel { origin: object.meta.origin.clone(), services: Vec::new(), invalid: 0 };
    let rules = object.spec.rules.iter().enumerate();
    let backends = rules.flat_map(|(rule, spec)| spec.backend_refs.iter().enumerate().map(move |each| (rule, each)));
    for (rule, (index, backend)) in backends {
        let field = format!("spec.rules[{rule}].backendRefs[{index}]");
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
        match service(view, object, backend, &field, findings) {
            Ok(service) => tunnel.services.push(TunnelService { service, weight }),
            Err(finding) => {
                // What is refused as a part was told with the object.
                if object.refused.of(&field).is_none() {
                    findings.push(finding);
                }
                tunnel.invalid += weight;
            }
        }
    }
    tunnel.services.retain(|service| service.weight > 0);
    tunnel
}

/// The cluster name of the Service.
fn service(
    view: View<'_>,
    object: &Object<TlsRoute>,
    backend: &BackendRef,
    field: &str,
    findings: &mut Vec<Finding>,
) -> Result<String, Finding> {
    if let Some(finding) = object.refused.of(field) {
        return Err(finding.clone());
    }
    let (group, kind) = (backend.group.as_deref().unwrap_or(""), backend.kind.as_deref().unwrap_or("Service"));
    if (group, kind) != SERVICE {
        let message = format!("a backend cannot be {} of group {}", Shown(kind), Shown(group));
        return Err(object.meta.finding(Severity::Error, Reason::InvalidKind, field, message, "a Service"));
    }
    let reference = Reference {
        from: &object.meta,
        from_kind: TLS_ROUTE,
        to_kind: SERVICE,
        namespace: backend.namespace.as_deref().unwrap_or(object.meta.namespace()),
        name: &backend.name,
        field,
    };
    let target = service_refs::target(view, &reference, backend.port, "connections are closed")?;
    findings.extend(target.warning);
    Ok(target.cluster)
}
