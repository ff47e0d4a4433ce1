//! Listeners: one for each port, with one filter chain for plain HTTP or one for each hostname of TLS.

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, http_connection_manager as hcm,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use envoy_types::pb::google::protobuf::BoolValue;

use crate::ir;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::Origin;

use super::cluster::filter;
use super::path::route_configuration;
use super::route::{self, EntryPoint};
use super::wire::{address, ads, any, duration, extension, number, prefix_of, yes};
use super::{Ports, Surroundings, edge, tls, wasm};

/// The `server` header of every answer.
const SERVER_NAME: &str = "tollgate";

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway, surroundings: &Surroundings) {
    for open in &gateway.listeners {
        let name = name(gateway, open);
        let mut chains = Vec::new();
        for table in of_listener(gateway, open) {
            chains.push(chain_of(gateway, &table));
            snapshot.insert(ResourceType::Route, &table.name, routes(gateway, &table));
        }
        let inspects = chains.iter().any(|chain| chain.transport_socket.is_some());
        let inspector = listener::ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
            ..Default::default()
        };
        let message = listener::Listener {
            name: name.clone(),
            address: Some(address(&surroundings.bind, open.port)),
            filter_chains: chains,
            listener_filters: inspects.then_some(inspector).into_iter().collect(),
            per_connection_buffer_limit_bytes: number(edge::BUFFER_BYTES),
            enable_reuse_port: (surroundings.ports == Ports::Exclusive).then_some(BoolValue { value: false }),
            ..Default::default()
        };
        let origins = open.sites.iter().map(|site| site.origin.clone()).collect();
        snapshot.insert(ResourceType::Listener, name, Resource::new(&message, origins));
    }
}

/// The route table of a filter chain.
#[derive(Debug)]
pub struct Table<'a> {
    /// The filter chain has the same name.
    pub name: String,
    pub port: u16,
    pub sites: Vec<&'a ir::Site>,
}

/// Every route table of a Gateway.
pub fn tables(gateway: &ir::Gateway) -> impl Iterator<Item = Table<'_>> {
    gateway.listeners.iter().flat_map(|open| of_listener(gateway, open))
}

/// On a plain port the Host header tells the sites apart. With TLS, each has its own filter chain.
fn of_listener<'a>(gateway: &ir::Gateway, open: &'a ir::Listener) -> Vec<Table<'a>> {
    let (name, port) = (name(gateway, open), open.port);
    let (tls, plain): (Vec<_>, Vec<_>) = open.sites.iter().partition(|site| site.certificate.is_some());
    let tls = tls.into_iter().map(|site| Table { name: format!("{name}/{}", site.name), port, sites: vec![site] });
    let mut tables: Vec<Table<'_>> = tls.collect();
    if !plain.is_empty() {
        tables.insert(0, Table { name, port, sites: plain });
    }
    tables
}

fn name(gateway: &ir::Gateway, open: &ir::Listener) -> String {
    format!("{}/{}", gateway.scope(), open.port)
}

/// The filter chain that has this route table.
fn chain_of(gateway: &ir::Gateway, table: &Table<'_>) -> listener::FilterChain {
    match table.sites.as_slice() {
        [site] if site.certificate.is_some() => {
            let server_names = if site.hostname == "*" { Vec::new() } else { vec![site.hostname.clone()] };
            let found = listener::FilterChainMatch { server_names, ..Default::default() };
            chain(gateway, &table.name, Some(found), site.certificate.as_ref())
        }
        _ => chain(gateway, &table.name, None, None),
    }
}

/// The route configuration of a table.
pub fn routes(gateway: &ir::Gateway, table: &Table<'_>) -> Resource {
    let mut hosts = Vec::new();
    let mut origins: Vec<Origin> = Vec::new();
    for site in &table.sites {
        origins.push(site.origin.clone());
        let entry = EntryPoint { gateway, port: table.port, tls: site.certificate.is_some() };
        for host in site.virtual_hosts.values() {
            origins.extend(host.routes.iter().map(|route| route.origin.clone()));
            let name = format!("{}/{}", site.name, host.domain);
            hosts.push(route::virtual_host(entry, name, host));
        }
    }
    dedup(&mut origins);
    Resource::new(&route_configuration(table.name.clone(), hosts), origins)
}

fn dedup(origins: &mut Vec<Origin>) {
    let mut seen = std::collections::BTreeSet::new();
    origins.retain(|origin| seen.insert(origin.clone()));
}

fn chain(
    gateway: &ir::Gateway,
    routes: &str,
    found: Option<listener::FilterChainMatch>,
    certificate: Option<&ir::Certificate>,
) -> listener::FilterChain {
    listener::FilterChain {
        name: routes.to_owned(),
        filter_chain_match: found,
        transport_socket: certificate.map(tls::downstream),
        filters: network_filters(gateway, routes),
        ..Default::default()
    }
}

fn network_filters(gateway: &ir::Gateway, routes: &str) -> Vec<listener::Filter> {
    let native = |name: &str, config| listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    };
    let mut filters = vec![native("envoy.filters.network.connection_limit", any(&edge::connection_limit(routes)))];
    if wasm::is_needed(gateway) {
        let until_then = any(&edge::connection_limit(&format!("{routes}/without_code")));
        filters.push(wasm::discovered_for_connections(wasm::connection_name(gateway), until_then));
    }
    filters.push(native("envoy.filters.network.http_connection_manager", any(&manager(gateway, routes))));
    filters
}

fn manager(gateway: &ir::Gateway, routes: &str) -> HttpConnectionManager {
    let mut http_filters = Vec::new();
    if wasm::is_needed(gateway) {
        http_filters.push(wasm::discovered(wasm::request_name(gateway)));
    }
    // This suppresses the headers that Envoy adds to answers and attempts. The router still reads the headers by which
    // the filter tells it the number of attempts.
    http_filters
        .push(filter("envoy.filters.http.router", &Router { suppress_envoy_headers: true, ..Default::default() }));
    HttpConnectionManager {
        codec_type: hcm::CodecType::Auto.into(),
        stat_prefix: routes.to_owned(),
        route_specifier: Some(hcm::RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.to_owned(),
        })),
        http_filters,
        early_header_mutation_extensions: vec![without_own_headers()],
        // The peer is the client. No peer is trusted to set headers that steer this proxy.
        use_remote_address: yes(),
        internal_address_config: Some(hcm::InternalAddressConfig {
            // Without any range Envoy would take private networks, and from those it accepts its own x-envoy-* headers.
            cidr_ranges: vec![core::CidrRange { address_prefix: "255.255.255.255".to_owned(), prefix_len: number(32) }],
            ..Default::default()
        }),
        normalize_path: yes(),
        merge_slashes: true,
        // A backend's own `server` header tells clients who serves them.
        server_name: SERVER_NAME.to_owned(),
        server_header_transformation: hcm::ServerHeaderTransformation::Overwrite.into(),
        // `GET /v1/models/org%2Fname` has an escaped slash. Where it could hide another path, our filter refuses it.
        path_with_escaped_slashes_action: hcm::PathWithEscapedSlashesAction::KeepUnchanged.into(),
        common_http_protocol_options: Some(edge::http()),
        http2_protocol_options: Some(edge::http2()),
        max_request_headers_kb: number(edge::MAX_REQUEST_HEADERS_KB),
        request_headers_timeout: duration(edge::REQUEST_HEADERS_TIMEOUT),
        request_timeout: duration(edge::REQUEST_TIMEOUT),
        stream_idle_timeout: duration(edge::STREAM_IDLE_TIMEOUT),
        ..Default::default()
    }
}

/// Removes headers with our prefix from a client's request before anything looks at them: they are ours alone.
fn without_own_headers() -> core::TypedExtensionConfig {
    let removal = mutation::header_mutation::RemoveOnMatch { key_matcher: Some(prefix_of("x-tollgate-")) };
    let removal = mutation::HeaderMutation { action: Some(mutation::header_mutation::Action::RemoveOnMatch(removal)) };
    extension("envoy.http.early_header_mutation.header_mutation", &HeaderMutation { mutations: vec![removal] })
}
