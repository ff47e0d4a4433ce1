//! References to Services and InferencePools: of a rule's backends, of its mirrors, of tunnels, and of ModelBackends.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesFiltersRequestMirrorBackendRef as MirrorRef,
};

use crate::objects::{GATEWAY_GROUP, INFERENCE_GROUP, InferencePool, Service, Shown, TOLLGATE_GROUP};
use crate::status::{Finding, Reason, Severity};

use super::given::{GivenRoute, RouteKind};
use super::inference_pools::cluster_of;
use super::refs::{INFERENCE_POOL, Reference, SERVICE};
use super::services::{Port, cluster_name, of_calls};
use super::view::View;

#[derive(Debug, Clone, Copy)]
pub struct ServiceRef<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    port: Option<i32>,
    /// Only a rule's own backend may be a ModelPool or an InferencePool.
    may_be_pool: bool,
}

/// A Service or InferencePool that a route may use.
#[derive(Debug)]
pub struct Target {
    pub cluster: String,
    pub port: Port,
    /// It is there and cannot answer.
    pub warning: Option<Finding>,
}

/// The port that a reference leads to, if it may be used and is there. `unanswered` is what happens without endpoints.
pub fn target(
    view: View<'_>,
    reference: &Reference<'_>,
    port: Option<i32>,
    unanswered: &str,
) -> Result<Target, Finding> {
    if !reference.is_permitted(view) {
        return Err(reference.not_permitted());
    }
    if view.object::<Service>(reference.namespace, reference.name).is_none() {
        return Err(reference.not_found::<Service>(Reason::BackendNotFound, view));
    }
    let Some(number) = port.and_then(|port| u16::try_from(port).ok()) else {
        return Err(reference.finding(Reason::BackendNotFound, "a Service needs a port", "port: 80"));
    };
    let cluster = cluster_name(reference.namespace, reference.name, number);
    let Some(port) = view.port(&cluster) else {
        let message = format!("{} has no port {number}", reference.target());
        return Err(reference.finding(Reason::BackendNotFound, &message, ""));
    };
    let warning = (!port.has_endpoints).then(|| {
        reference.from.finding(
            Severity::Warning,
            Reason::NoEndpoints,
            reference.field,
            format_args!("{} has no endpoints for port {number}: {unanswered}", reference.target()),
            "an EndpointSlice with the label kubernetes.io/service-name",
        )
    });
    Ok(Target { cluster, port, warning })
}

/// The pool that a reference leads to, if it may be used and can be. A pool has its ports by itself, so that of a reference
/// means nothing.
pub fn pool(view: View<'_>, reference: &Reference<'_>) -> Result<Target, Finding> {
    if !reference.is_permitted(view) {
        return Err(reference.not_permitted());
    }
    if view.object::<InferencePool>(reference.namespace, reference.name).is_none() {
        return Err(reference.not_found::<InferencePool>(Reason::BackendNotFound, view));
    }
    let cluster = cluster_of(reference.namespace, reference.name);
    let Some(port) = view.port(&cluster) else {
        let message = format!("the endpoint picker of {} can never be asked", reference.target());
        return Err(reference.finding(Reason::BackendNotFound, &message, "see its status"));
    };
    let warning = (!port.has_endpoints).then(|| {
        let message = format!("{} has no Pod that is ready: it answers 503", reference.target());
        reference.from.finding(Severity::Warning, Reason::NoEndpoints, reference.field, message, "")
    });
    Ok(Target { cluster, port, warning })
}

impl<'a> From<&'a BackendRef> for ServiceRef<'a> {
    fn from(backend: &'a BackendRef) -> Self {
        Self {
            group: backend.group.as_deref().unwrap_or(""),
            kind: backend.kind.as_deref().unwrap_or("Service"),
            namespace: backend.namespace.as_deref(),
            name: &backend.name,
            port: backend.port,
            may_be_pool: true,
        }
    }
}

impl<'a> From<&'a MirrorRef> for ServiceRef<'a> {
    fn from(backend: &'a MirrorRef) -> Self {
        Self {
            group: backend.group.as_deref().unwrap_or(""),
            kind: backend.kind.as_deref().unwrap_or("Service"),
            namespace: backend.namespace.as_deref(),
            name: &backend.name,
            port: backend.port,
            may_be_pool: false,
        }
    }
}

// === impl ServiceRef ===

impl ServiceRef<'_> {
    /// What it leads to, for the route in which it stands in this field.
    pub fn resolve(self, view: View<'_>, route: GivenRoute<'_>, field: &str) -> Result<Target, Finding> {
        let Self { group, kind, name, .. } = self;
        let is_pool = self.may_be_pool && (group, kind) == INFERENCE_POOL;
        if (group, kind) != SERVICE && !is_pool {
            let message = format!("a backend cannot be {} of group {}", Shown(kind), Shown(group));
            let hint = self.hint_of_kind(route.kind);
            return Err(route.meta.finding(Severity::Error, Reason::InvalidKind, field, message, hint));
        }
        let namespace = self.namespace.unwrap_or(route.meta.namespace());
        let from_kind = route.kind.group_kind();
        let to_kind = if is_pool { INFERENCE_POOL } else { SERVICE };
        let reference = Reference { from: route.meta, from_kind, to_kind, namespace, name, field };
        let found =
            if is_pool { pool(view, &reference) } else { target(view, &reference, self.port, "it answers 503") };
        let mut target = found?;
        if route.kind == RouteKind::Grpc && !target.port.h2c {
            target.cluster = of_calls(&target.cluster);
        }
        Ok(target)
    }

    fn hint_of_kind(self, route: RouteKind) -> &'static str {
        let may_be_pool = self.may_be_pool && route == RouteKind::Http;
        match (self.group, self.kind) {
            (_, "ModelPool") if may_be_pool => "group: tollgate.dev",
            (TOLLGATE_GROUP, _) if may_be_pool => "kind: ModelPool",
            (_, "InferencePool") if self.may_be_pool => "group: inference.networking.k8s.io",
            (INFERENCE_GROUP, _) if self.may_be_pool => "kind: InferencePool",
            (GATEWAY_GROUP, _) => "",
            _ if !may_be_pool => "a Service",
            _ => "a Service, or kind ModelPool of group tollgate.dev",
        }
    }
}
