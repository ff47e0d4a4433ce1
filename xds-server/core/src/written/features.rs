//! What of the Gateway API works here, as `GatewayClass.status.supportedFeatures` names it. A feature is in this list only
//! if it works: the conformance suite takes it at its word.

use serde_json::{Value, json};

/// The names are those of the Gateway API's `pkg/features`.
///
/// HTTPRouteRetry and its kin work too (`translate/rules.rs`). They are not named, because the standard channel's CRD drops
/// the field, and nothing says which channel a cluster has.
const FEATURES: [&[&str]; 11] = [
    // Core.
    &["GRPCRoute", "Gateway", "HTTPRoute", "ReferenceGrant"],
    // Connections that are passed on as a whole (`translate/tunnels.rs`).
    &["TLSRoute", "TLSRouteModeMixed", "TLSRouteModeTerminate"],
    // Listeners that others bring (`translate/listeners.rs`).
    &["ListenerSet"],
    // TLS to Services (`translate/backend_tls.rs`).
    &["BackendTLSPolicy", "BackendTLSPolicySANValidation"],
    // What backends are shown (`translate/client_certificate.rs`).
    &["GatewayBackendClientCertificate"],
    // Certificates of clients (`translate/clients.rs`).
    &["GatewayFrontendClientCertificateValidation", "GatewayFrontendClientCertificateValidationInsecureFallback"],
    // A request belongs to the listener of the most specific hostname (`translate/hosts.rs`), also if it comes over another's
    // connection (`envoy/route_table.rs`).
    &["GatewayAddressEmpty", "GatewayHTTPListenerIsolation", "GatewayHTTPSListenerDetectMisdirectedRequests"],
    // Which requests a rule is for, and at which parent (`translate/matches.rs`, `translate/attach.rs`). A rule's name is
    // for others to refer to.
    &[
        "GRPCRouteNamedRouteRule",
        "HTTPRouteDestinationPortMatching",
        "HTTPRouteMethodMatching",
        "HTTPRouteNamedRouteRule",
        "HTTPRouteParentRefPort",
        "HTTPRouteQueryParamMatching",
    ],
    // Filters (`translate/filters.rs`, `translate/rules.rs`). Extensions and external authorization are refused.
    &[
        "HTTPRoute303RedirectStatusCode",
        "HTTPRoute307RedirectStatusCode",
        "HTTPRoute308RedirectStatusCode",
        "HTTPRouteBackendRequestHeaderModification",
        "HTTPRouteCORS",
        "HTTPRouteHostRewrite",
        "HTTPRoutePathRedirect",
        "HTTPRoutePathRewrite",
        "HTTPRoutePortRedirect",
        "HTTPRouteRequestMirror",
        "HTTPRouteRequestMultipleMirrors",
        "HTTPRouteRequestPercentageMirror",
        "HTTPRouteResponseHeaderModification",
        "HTTPRouteSchemeRedirect",
    ],
    // What the port of a Service speaks (`translate/services.rs`).
    &["HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket"],
    // Timeouts (`translate/rules.rs`).
    &["HTTPRouteBackendTimeout", "HTTPRouteRequestTimeout"],
];

/// Of Gateways with proxies of their own: ports are opened as they are given, and each has a Service of its own (`fleet/`).
const OF_OWN_PROXIES: [&str; 3] = ["GatewayInfrastructure", "GatewayPort8080", "GatewayStaticAddresses"];

/// In ascending order, as the field wants it.
pub(super) fn all(has_own_proxies: bool) -> Value {
    let own = OF_OWN_PROXIES.into_iter().filter(|_| has_own_proxies);
    let mut names: Vec<&str> = FEATURES.into_iter().flatten().copied().chain(own).collect();
    names.sort_unstable();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}
