//! References of routes to Services: of a rule's backends, of its mirrors, and of tunnels.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesFiltersRequestMirrorBackendRef as MirrorRef,
};

use crate::objects::{GATEWAY_GROUP, Service, Shown, TOLLGATE_GROUP};
use crate::status::{Finding, Reason, Severity};

use super::given::{GivenRoute, RouteKind};
use super::refs::{Reference, SERVICE};
use super::services::{Port, cluster_name, of_calls};
use super::view::View;

#[derive(Debug, Clone, Copy)]
pub struct ServiceRef<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    port: Option<i32>,
    /// Only a rule's own backend may be a ModelPool.
    may_be_pool: bool,
}

/// A Service that a route may use.
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
        if (group, kind) != ("", "Service") {
            let message = format!("a backend cannot be {} of group {}", Shown(kind), Shown(group));
            let hint = self.hint_of_kind(route.kind);
            return Err(route.meta.finding(Severity::Error, Reason::InvalidKind, field, message, hint));
        }
        let namespace = self.namespace.unwrap_or(route.meta.namespace());
        let from_kind = route.kind.group_kind();
        let reference = Reference { from: route.meta, from_kind, to_kind: SERVICE, namespace, name, field };
        let mut target = target(view, &reference, self.port, "it answers 503")?;
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
            (GATEWAY_GROUP, _) => "",
            _ if !may_be_pool => "a Service",
            _ => "a Service, or kind ModelPool of group tollgate.dev",
        }
    }
}
