//! How a request finds its scope.
//!
//! Envoy compares a scope's key with one header of the request, as a whole and once. On arrival the header is
//! `<table>|<the Host header>`, so a request that writes an exact hostname as we do has its routes at once. Every other
//! request has no route yet when its filters start. For it, a small filter stands twice before all others. Each time it
//! runs only while there is no route, and makes one step:
//!
//! ```text
//! <table>|<the Host header>  ->  <table>|<the same in lower case, without its port>  ->  <table>: the wildcards
//! ```
//! Which filters a request has is decided by its route when it arrives. So three things must hold:
//!
//! - A request changes its scope only from no route at all, so that a route that needs no filter never takes a filter
//!   away from one that does. Hence ours is off wherever there is a route, and a host's scope has a route for
//!   everything ([`otherwise`]).
//! - No filter is off unless a route turns it off. One that routes turn on would not run behind a wildcard.
//! - Whoever changes the key asks for the route again. The wasm filter reads the route's name, and passes what has none.
//!
//! Envoy takes two keys for one if their 64-bit hashes are the same, and a client writes half of the key. So each
//! virtual host of a scope refuses a request with another key ([`unless_key`]).

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration as scoped;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::{Lua, LuaPerRoute, lua_per_route};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::{
    FragmentBuilder, fragment_builder,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::{
    ConfigSpecifier, ScopeKeyBuilder,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, ScopedRds, ScopedRoutes,
};
use envoy_types::pb::google::protobuf::BoolValue;

use crate::snapshot::HOST_MARK;

use super::cluster::filter;
use super::path::{exact_header, route_configuration};
use super::route_table::Form;
use super::wire::{ads, any, inline};

/// The header with the key. A client's own is removed before, as everything that begins with `x-tollgate-`. Our filter
/// leaves this one, because Envoy looks for the route again after a change of headers. Scopes remove it.
pub const HEADER: &str = "x-tollgate-scope";

/// The name of the filter, in both places. Scopes turn it off by this name.
const FILTER: &str = "tollgate.scope";

/// Ports are found as Envoy finds them with `ignore_port_in_host_matching`: what follows the last colon, unless that is
/// within an IPv6 address.
const STEP: &str = r#"function envoy_on_request(request)
  local headers = request:headers()
  local key = headers:get("x-tollgate-scope")
  local table = string.match(key, "^[^|]*")
  if key == table then return end
  local host = string.gsub(string.lower(headers:get(":authority")), ":[^:%]]*$", "")
  local by_host = table .. "|" .. host
  headers:replace("x-tollgate-scope", key ~= by_host and by_host or table)
  request:clearRouteCache()
  request:metadata() -- asks for the route again
end
"#;

/// The name of the scope of a hostname, which is its key as well. So no two scopes have one key.
pub fn of_host(table: &str, host: &str) -> String {
    format!("{table}{HOST_MARK}{host}")
}

/// The name and key of the scope of all wildcards. No client can write it, because the mark is missing.
pub fn of_wildcards(table: &str) -> String {
    table.to_owned()
}

/// The filters that find the scope of a request without one. They come first.
pub fn filters() -> [HttpFilter; 2] {
    let lua = Lua {
        default_source_code: Some(inline(STEP)),
        // Nothing takes the route away again that the last line asked for.
        clear_route_cache: Some(BoolValue { value: false }),
        ..Default::default()
    };
    [filter(FILTER, &lua), filter(FILTER, &lua)]
}

/// A filter that does nothing unless a route says what. Where a request has its route from the start, it is off until a
/// route turns it on, which costs less. With scopes it is on.
pub fn turned_on<M: prost::Message + prost::Name>(form: Form, name: &str, message: &M) -> HttpFilter {
    HttpFilter { disabled: form == Form::OneTable, ..filter(name, message) }
}

/// Writes the key of a request on arrival.
pub fn write_key(table: &str) -> mutation::HeaderMutation {
    let header = core::HeaderValue {
        key: HEADER.to_owned(),
        value: format!("{}{HOST_MARK}%REQ(:authority)%", table.replace('%', "%%")),
        ..Default::default()
    };
    let option = core::HeaderValueOption {
        header: Some(header),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    };
    mutation::HeaderMutation { action: Some(mutation::header_mutation::Action::Append(option)) }
}

/// Where a connection manager has its routes from. Every scoped table of an Envoy has the same source.
pub fn routes() -> ScopedRoutes {
    let extractor = fragment_builder::HeaderValueExtractor {
        name: HEADER.to_owned(),
        // Without a separator the first element is all of it.
        extract_type: Some(fragment_builder::header_value_extractor::ExtractType::Index(0)),
        ..Default::default()
    };
    let fragment = FragmentBuilder { r#type: Some(fragment_builder::Type::HeaderValueExtractor(extractor)) };
    ScopedRoutes {
        name: "tollgate".to_owned(),
        scope_key_builder: Some(ScopeKeyBuilder { fragments: vec![fragment] }),
        rds_config_source: Some(ads()),
        config_specifier: Some(ConfigSpecifier::ScopedRds(ScopedRds {
            scoped_rds_config_source: Some(ads()),
            ..Default::default()
        })),
    }
}

/// A scope with these virtual hosts.
pub fn configuration(name: &str, hosts: Vec<route::VirtualHost>) -> route::ScopedRouteConfiguration {
    let off = any(&LuaPerRoute { r#override: Some(lua_per_route::Override::Disabled(true)), ..Default::default() });
    let table = route::RouteConfiguration {
        request_headers_to_remove: vec![HEADER.to_owned()],
        // One entry only: the map has no order, and the same resource must have the same bytes.
        typed_per_filter_config: [(FILTER.to_owned(), off)].into(),
        ..route_configuration(name.to_owned(), hosts)
    };
    let fragment = scoped::key::Fragment { r#type: Some(scoped::key::fragment::Type::StringKey(name.to_owned())) };
    route::ScopedRouteConfiguration {
        name: name.to_owned(),
        key: Some(scoped::Key { fragments: vec![fragment] }),
        route_configuration: Some(table),
        ..Default::default()
    }
}

/// The first route of a virtual host: for a request whose key is another one with the same hash.
pub fn unless_key(key: &str) -> route::Route {
    let other = route::HeaderMatcher { invert_match: true, ..exact_header(HEADER, key) };
    not_found(vec![other])
}

/// The last route of a host's scope: what no other one matches is not found here, and is looked for nowhere else.
pub fn otherwise() -> route::Route {
    not_found(Vec::new())
}

fn not_found(headers: Vec<route::HeaderMatcher>) -> route::Route {
    let any_path = route::route_match::PathSpecifier::Prefix(String::new());
    let found = route::RouteMatch { path_specifier: Some(any_path), headers, ..Default::default() };
    let answer = route::DirectResponseAction { status: 404, ..Default::default() };
    route::Route {
        r#match: Some(found),
        action: Some(route::route::Action::DirectResponse(answer)),
        ..Default::default()
    }
}
