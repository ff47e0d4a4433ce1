//! What of the Gateway API works here, as `GatewayClass.status.supportedFeatures` names it. A feature is in this list only
//! if it works: the conformance suite takes it at its word.

use serde_json::{Value, json};

/// The names are those of the Gateway API's `pkg/features`.
const FEATURES: [&[&str]; 5] = [
    // Core.
    &["Gateway", "HTTPRoute", "ReferenceGrant"],
    // Gateways: ports are opened as they are given.
    &["GatewayPort8080"],
    // Which requests a rule is for, and at which parent (`translate/matches.rs`, `translate/attach.rs`).
    &["HTTPRouteMethodMatching", "HTTPRouteParentRefPort", "HTTPRouteQueryParamMatching"],
    // Filters (`translate/filters.rs`). Mirrors, CORS and extensions are refused.
    &[
        "HTTPRouteBackendRequestHeaderModification",
        "HTTPRouteHostRewrite",
        "HTTPRoutePathRedirect",
        "HTTPRoutePathRewrite",
        "HTTPRoutePortRedirect",
        "HTTPRouteResponseHeaderModification",
        "HTTPRouteSchemeRedirect",
    ],
    // Timeouts (`translate/rules.rs`).
    &["HTTPRouteBackendTimeout", "HTTPRouteRequestTimeout"],
];

/// In ascending order, as the field wants it.
pub(super) fn all() -> Value {
    let mut names: Vec<&str> = FEATURES.into_iter().flatten().copied().collect();
    names.sort_unstable();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}
