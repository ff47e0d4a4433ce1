//! CORS: Envoy's own filter. A route that says something of CORS turns it on for its requests. So a route that gets CORS
//! changes no listener.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use crate::ir::{self, OriginMatch};

use super::path::{escape_regex, exact, regex};
use super::route_table::Form;
use super::scope::turned_on;
use super::wire::any;

pub const FILTER: &str = "envoy.filters.http.cors";

pub fn filter(form: Form) -> HttpFilter {
    turned_on(form, FILTER, &Cors {})
}

/// Of methods and headers Envoy answers `*` with what the request asks for.
pub fn policy(cors: &ir::Cors) -> Any {
    any(&CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(origin).collect(),
        allow_methods: cors.methods.join(", "),
        allow_headers: cors.headers.join(", "),
        expose_headers: cors.exposed_headers.join(", "),
        max_age: cors.seconds.to_string(),
        allow_credentials: Some(BoolValue { value: cors.credentials }),
        // Otherwise a backend could allow what the rule does not.
        forward_not_matching_preflights: Some(BoolValue { value: false }),
        ..Default::default()
    })
}

fn origin(origin: &OriginMatch) -> StringMatcher {
    let pattern =
        |text: &str| StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex(text))), ..Default::default() };
    match origin {
        OriginMatch::Any => pattern(".*"),
        OriginMatch::Exact(origin) => exact(origin),
        OriginMatch::Around(before, after) => pattern(&format!("{}.*{}", escape_regex(before), escape_regex(after))),
    }
}
