//! HTTPRoutes and GRPCRoutes as one thing. What both have is in the types of HTTPRoute.

use crate::ir::nobody_there;
use crate::objects::{GrpcRoute, HttpRoute, Key, Kind as _, Meta, Object, Objects, RefusedParts};
use crate::status::StatusKind;

use super::attach;
use super::refs::{GRPC_ROUTE, GroupKind, HTTP_ROUTE};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    Http,
    Grpc,
}

/// Which route. Two of different kinds may have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteId {
    pub key: Key,
    pub kind: RouteKind,
}

/// A route as it was given.
#[derive(Debug, Clone, Copy)]
pub struct GivenRoute<'a> {
    pub kind: RouteKind,
    pub meta: &'a Meta,
    pub spec: &'a HttpRoute,
    pub refused: &'a RefusedParts,
    /// Of a GRPCRoute, its services and methods.
    pub calls: Option<&'a GrpcRoute>,
}

// === impl RouteKind ===

impl RouteKind {
    pub const ALL: [Self; 2] = [Self::Http, Self::Grpc];

    pub fn name(self) -> &'static str {
        match self {
            Self::Http => HttpRoute::NAME,
            Self::Grpc => GrpcRoute::NAME,
        }
    }

    pub fn group_kind(self) -> GroupKind {
        match self {
            Self::Http => HTTP_ROUTE,
            Self::Grpc => GRPC_ROUTE,
        }
    }

    pub fn status_kind(self) -> StatusKind {
        match self {
            Self::Http => StatusKind::HttpRoute,
            Self::Grpc => StatusKind::GrpcRoute,
        }
    }

    pub fn nobody_there(self) -> u16 {
        nobody_there(self == Self::Grpc)
    }
}

// === impl GivenRoute ===

impl<'a> GivenRoute<'a> {
    /// None: there is no such route.
    pub fn of(objects: &'a Objects, id: &RouteId) -> Option<Self> {
        let Key { namespace, name } = &id.key;
        match id.kind {
            RouteKind::Http => objects.http_routes.get(namespace, name).map(Self::from),
            RouteKind::Grpc => objects.grpc_routes.get(namespace, name).map(Self::from),
        }
    }
}

impl<'a> From<GivenRoute<'a>> for attach::Route<'a> {
    fn from(route: GivenRoute<'a>) -> Self {
        let hostnames = route.spec.hostnames.as_deref().unwrap_or_default();
        Self { kind: route.kind.status_kind(), namespace: route.meta.namespace(), hostnames }
    }
}

impl<'a> From<&'a Object<HttpRoute>> for GivenRoute<'a> {
    fn from(object: &'a Object<HttpRoute>) -> Self {
        let Object { meta, spec, refused } = object;
        Self { kind: RouteKind::Http, meta, spec, refused, calls: None }
    }
}

impl<'a> From<&'a Object<GrpcRoute>> for GivenRoute<'a> {
    fn from(object: &'a Object<GrpcRoute>) -> Self {
        let Object { meta, spec, refused } = object;
        Self { kind: RouteKind::Grpc, meta, spec: &spec.common, refused, calls: Some(spec) }
    }
}
