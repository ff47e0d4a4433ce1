//! JWTs at a Gateway: Envoy's own filter verifies them, and ours reads what it found. Nobody is refused here, because a key may
//! stand where a JWT does. Whoever has neither is refused by our filter.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwksAsyncFetch, JwtAuthentication, JwtHeader, JwtProvider, JwtRequirement, RemoteJwks, RequirementRule,
    jwt_provider::JwksSourceSpecifier, jwt_provider::NormalizePayload, jwt_requirement::RequiresType,
    requirement_rule::RequirementType,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::Any;
use prost::{Message as _, Name as _};

use crate::ir;

use super::wire::{duration, inline};

const FILTER: &str = "envoy.filters.http.jwt_authn";

const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A key that an issuer has taken away counts for so long. Envoy could remember which JWTs it has verified, but it would do so
/// until they end, whatever becomes of the key.
const KEYS_ARE_KEPT: Duration = Duration::from_secs(5 * 60);

/// None: nobody's JWTs are verified.
pub fn filter(issuers: &[ir::JwtIssuer]) -> Option<HttpFilter> {
    if issuers.is_empty() {
        return None;
    }
    let anywhere = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() };
    let whatever = JwtRequirement { requires_type: Some(RequiresType::AllowMissingOrFailed(Default::default())) };
    let rule = RequirementRule { r#match: Some(anywhere), requirement_type: Some(RequirementType::Requires(whatever)) };
    let mut value =
        JwtAuthentication { rules: vec![rule], bypass_cors_preflight: true, ..Default::default() }.encode_to_vec();
    // A map of several entries is encoded in any order, and another order is another listener. Messages one after the other
    // are one message.
    for issuer in issuers {
        let providers = [(issuer.issuer.clone(), provider(issuer))].into();
        value.extend(JwtAuthentication { providers, ..Default::default() }.encode_to_vec());
    }
    let message = Any { type_url: JwtAuthentication::type_url(), value };
    Some(HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(message)),
        ..Default::default()
    })
}

fn provider(issuer: &ir::JwtIssuer) -> JwtProvider {
    let keys = match &issuer.keys {
        ir::JwtKeys::Inline { jwks } => JwksSourceSpecifier::LocalJwks(inline(jwks)),
        keys @ ir::JwtKeys::Remote { uri, .. } => JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(core::HttpUri {
                uri: uri.clone(),
                timeout: duration(FETCH_TIMEOUT),
                http_upstream_type: cluster_name(keys).map(core::http_uri::HttpUpstreamType::Cluster),
            }),
            cache_duration: duration(KEYS_ARE_KEPT),
            // An issuer that does not answer keeps no listener from opening.
            async_fetch: Some(JwksAsyncFetch { fast_listener: true, ..Default::default() }),
            ..Default::default()
        }),
    };
    JwtProvider {
        issuer: issuer.issuer.clone(),
        audiences: issuer.audiences.clone(),
        // Without this a JWT is taken from the query too.
        from_headers: vec![JwtHeader { name: "Authorization".to_owned(), value_prefix: "Bearer ".to_owned() }],
        // A route that leads to no model passes it on, and our filter takes it away from the others.
        forward: true,
        // Under it our filter finds the payload, as it finds those of Istio.
        payload_in_metadata: issuer.issuer.clone(),
        // Lists, as Istio has them.
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: ["permission", "scope"].map(str::to_owned).into(),
        }),
        jwks_source_specifier: Some(keys),
        ..Default::default()
    }
}

/// The cluster by which keys are fetched. It is the same for all who fetch them there. None: nobody fetches them.
pub fn cluster_name(keys: &ir::JwtKeys) -> Option<String> {
    match keys {
        ir::JwtKeys::Inline { .. } => None,
        ir::JwtKeys::Remote { host, port, tls, .. } => {
            Some(format!("jwks/{}/{host}:{port}", if *tls { "https" } else { "http" }))
        }
    }
}
