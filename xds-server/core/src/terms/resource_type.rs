//! The kinds of resources that a proxy gets.

/// The kinds of resources, in the order in which additions are sent (make before break). Removals go in reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Secret,
    Cluster,
    Endpoint,
    /// Filter configurations by ECDS.
    ExtensionConfig,
    /// The routes of one hostname. Listeners name no scopes, they look among those that are there, so these go first.
    ScopedRoute,
    Listener,
    Route,
    /// `tollgate.v1.ApiKey`, asked for by the filter.
    ApiKey,
}

// === impl ResourceType ===

impl ResourceType {
    pub const ALL: [Self; 8] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoint,
        Self::ExtensionConfig,
        Self::ScopedRoute,
        Self::Listener,
        Self::Route,
        Self::ApiKey,
    ];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::ApiKey => tollgate_proto::v1::API_KEY_TYPE,
        }
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Cluster => "Cluster",
            Self::Endpoint => "ClusterLoadAssignment",
            Self::ExtensionConfig => "TypedExtensionConfig",
            Self::ScopedRoute => "ScopedRouteConfiguration",
            Self::Listener => "Listener",
            Self::Route => "RouteConfiguration",
            Self::ApiKey => "ApiKey",
        }
    }

    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}
