//! A rule of a route as it is kept. The API's type has room in each rule for what few rules have, and in each filter for
//! every type of filter: 1,170 bytes for a redirect, which was the largest part of a route.

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRules, HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesFilters, HttpRouteRulesFiltersCors as Cors,
    HttpRouteRulesFiltersRequestHeaderModifier as RequestHeaders, HttpRouteRulesFiltersRequestMirror as Mirror,
    HttpRouteRulesFiltersRequestRedirect as Redirect, HttpRouteRulesFiltersResponseHeaderModifier as ResponseHeaders,
    HttpRouteRulesFiltersType as Type, HttpRouteRulesFiltersUrlRewrite as Rewrite, HttpRouteRulesMatches as Match,
    HttpRouteRulesRetry as Retry, HttpRouteRulesSessionPersistence as Session, HttpRouteRulesTimeouts as Timeouts,
};

/// HTTPRouteRule.
#[derive(Debug, Clone)]
pub struct RouteRule {
    pub name: Option<Box<str>>,
    /// Without any, the rule is for every request.
    pub matches: Box<[Match]>,
    pub filters: Box<[RouteFilter]>,
    pub backend_refs: Box<[BackendRef]>,
    pub timeouts: Option<Box<Timeouts>>,
    pub retry: Option<Box<Retry>>,
    pub session_persistence: Option<Box<Session>>,
}

/// HTTPRouteFilter, a union that its type tells apart.
#[derive(Debug, Clone)]
pub enum RouteFilter {
    RequestHeaderModifier(Box<RequestHeaders>),
    ResponseHeaderModifier(Box<ResponseHeaders>),
    RequestMirror(Box<Mirror>),
    RequestRedirect(Box<Redirect>),
    UrlRewrite(Box<Rewrite>),
    Cors(Box<Cors>),
    ExtensionRef,
    ExternalAuth,
}

// === impl RouteRule ===

impl From<HttpRouteRules> for RouteRule {
    fn from(given: HttpRouteRules) -> Self {
        let HttpRouteRules { backend_refs, filters, matches, name, retry, session_persistence, timeouts } = given;
        Self {
            name: name.map(Into::into),
            matches: matches.unwrap_or_default().into(),
            filters: filters.into_iter().flatten().filter_map(RouteFilter::of).collect(),
            backend_refs: backend_refs.unwrap_or_default().into(),
            timeouts: timeouts.map(Box::new),
            retry: retry.map(Box::new),
            session_persistence: session_persistence.map(Box::new),
        }
    }
}

// === impl RouteFilter ===

impl RouteFilter {
    /// None: what its type says it has is not there. The filters of such a rule are refused.
    fn of(given: HttpRouteRulesFilters) -> Option<Self> {
        Some(match given.r#type {
            Type::RequestHeaderModifier => Self::RequestHeaderModifier(Box::new(given.request_header_modifier?)),
            Type::ResponseHeaderModifier => Self::ResponseHeaderModifier(Box::new(given.response_header_modifier?)),
            Type::RequestMirror => Self::RequestMirror(Box::new(given.request_mirror?)),
            Type::RequestRedirect => Self::RequestRedirect(Box::new(given.request_redirect?)),
            Type::UrlRewrite => Self::UrlRewrite(Box::new(given.url_rewrite?)),
            Type::Cors => Self::Cors(Box::new(given.cors?)),
            Type::ExtensionRef => Self::ExtensionRef,
            Type::ExternalAuth => Self::ExternalAuth,
        })
    }

    pub fn has_type_of(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
