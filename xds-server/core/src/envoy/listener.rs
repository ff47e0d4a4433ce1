//! Listeners: one for each port, with one filter chain for plain HTTP or one for each hostname of TLS.

use std::collections::BTreeSet;

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
use super::route_table::{Form, Table};
use super::wire::{address, ads, any, duration, extension, number, prefix_of, yes};
use super::{
    Ports, Signals, Surroundings, access_log, asked, cors, edge, jwt, picker, route_table, scope, session, tls,
    tracing, tunnel, wasm,
};

/// The `server` header of every answer.
const SERVER_NAME: &str = "tollgate";

/// What the names of filter chains begin with that take members of the mesh alone (`proto/policy.proto`). Other names begin
/// with a namespace, which has no colon.
const OF_MEMBERS: &str = "mesh:";

const EARLY_MUTATION: &str = "envoy.http.early_header_mutation.header_mutation";

pub fn add(snapshot: &mut Snapshot, gateway: &ir::Gateway, surroundings: &Surroundings) {
    for open in &gateway.listeners {
        let mut chains = Vec::new();
        for table in Table::of_listener(gateway, open) {
            let form = table.form(surroundings.route_tables);
            table.add(snapshot, gateway, form);
            chains.push(chain(gateway, &table, form, &surroundings.signals));
        }
        for site in &open.sites {
            chains.extend(tunnel::chains(gateway, &route_table::name(gateway, open), site));
        }
        let has_tunnels = open.sites.iter().any(|site| site.tunnels.is_some());
        let inspects = has_tunnels || chains.iter().any(|chain| chain.transport_socket.is_some());
        let inspector = listener::ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
            ..Default::default()
        };
        let name = route_table::name(gateway, open);
        let message = listener::Listener {
            name: name.clone(),
            address: Some(address(&surroundings.bind, open.port)),
            filter_chains: chains,
            listener_filters: inspects.then_some(inspector).into_iter().collect(),
            per_connection_buffer_limit_bytes: number(edge::BUFFER_BYTES),
            enable_reuse_port: (surroundings.ports == Ports::Exclusive).then_some(BoolValue { value: false }),
            ..Default::default()
        };
        let of_sites = open.sites.iter().map(|site| site.origin.clone());
        let of_issuers = gateway.jwt_issuers.iter().map(|issuer| issuer.origin.clone());
        let origins = of_sites.chain(open.sites.iter().flat_map(tunnel::origins)).chain(of_issuers);
        let origins: BTreeSet<Origin> = origins.collect();
        let origins = origins.into_iter().collect::<Box<[_]>>();
        snapshot.insert(ResourceType::Listener, name, Resource::new(&message, origins));
    }
}

/// The filter chain that has this route table.
fn chain(gateway: &ir::Gateway, table: &Table<'_>, form: Form, signals: &Signals) -> listener::FilterChain {
    let tls = table.tls();
    let is_for_members = tls.is_some_and(ir::Site::is_for_members);
    let found = tls.map(|site| listener::FilterChainMatch {
        // Members of a mesh ask for a name that their proxies make.
        server_names: if is_for_members { Vec::new() } else { tls::server_names(&site.hostname) },
        ..Default::default()
    });
    listener::FilterChain {
        // The name and the proof of who is a member are in one resource. So the filter never takes the certificate of
        // somebody else for that of a member, whatever changes first.
        name: if is_for_members { format!("{OF_MEMBERS}{}", table.name) } else { table.name.clone() },
        filter_chain_match: found,
        transport_socket: tls.and_then(|site| tls::downstream(site, &["h2", "http/1.1"])),
        filters: network_filters(gateway, (&table.name, form), signals),
        ..Default::default()
    }
}

fn network_filters(gateway: &ir::Gateway, (table, form): (&str, Form), signals: &Signals) -> Vec<listener::Filter> {
    let mut filters = bounds(gateway, table);
    let manager = manager(gateway, (table, form), signals);
    filters.push(network_filter("envoy.filters.network.http_connection_manager", &manager));
    filters
}

/// The filters that bound the connections of a filter chain.
pub fn bounds(gateway: &ir::Gateway, chain: &str) -> Vec<listener::Filter> {
    let mut filters = vec![network_filter("envoy.filters.network.connection_limit", &edge::connection_limit(chain))];
    if wasm::is_needed(&gateway.catalog) {
        let until_then = any(&edge::connection_limit(&format!("{chain}/without_code")));
        filters.push(wasm::discovered_for_connections(wasm::connection_name(&gateway.catalog.scope), until_then));
    }
    filters
}

pub fn network_filter<M: prost::Message + prost::Name>(name: &str, message: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(message))),
    }
}

fn manager(gateway: &ir::Gateway, (table, form): (&str, Form), signals: &Signals) -> HttpConnectionManager {
    let mut mutations = vec![without_own_headers()];
    let mut http_filters: Vec<_> = signals.are_on().then(asked::keep).into_iter().collect();
    let specifier = match form {
        Form::OneTable => {
            hcm::RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: table.to_owned() })
        }
        Form::Scoped => {
            mutations.push(scope::write_key(table));
            http_filters.extend(scope::filters());
            hcm::RouteSpecifier::ScopedRoutes(scope::routes())
        }
    };
    // A browser asks beforehand without a key, so this comes before our own filter.
    http_filters.push(cors::filter(form));
    if wasm::is_needed(&gateway.catalog) {
        http_filters.extend(jwt::filter(&gateway.jwt_issuers));
        http_filters.push(wasm::discovered(wasm::request_name(&gateway.catalog.scope)));
    }
    http_filters.push(session::filter(form));
    // After our own filter, so that no picker sees a client's key where ours takes it out.
    http_filters.push(picker::filter(form));
    // This suppresses the headers that Envoy adds to answers and attempts. The router still reads the headers by which
    // the filter tells it the number of attempts.
    http_filters
        .push(filter("envoy.filters.http.router", &Router { suppress_envoy_headers: true, ..Default::default() }));
    HttpConnectionManager {
        codec_type: hcm::CodecType::Auto.into(),
        stat_prefix: table.to_owned(),
        route_specifier: Some(specifier),
        http_filters,
        early_header_mutation_extensions: vec![extension(EARLY_MUTATION, &HeaderMutation { mutations })],
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
        access_log: signals.access_log.as_deref().map(access_log::in_file).into_iter().collect(),
        tracing: signals.tracing.as_ref().map(|tracing| tracing::of(gateway, tracing)),
        ..Default::default()
    }
}

/// Removes headers with our prefix from a client's request before anything looks at them: they are ours alone.
fn without_own_headers() -> mutation::HeaderMutation {
    let removal = mutation::header_mutation::RemoveOnMatch { key_matcher: Some(prefix_of("x-tollgate-")) };
    mutation::HeaderMutation { action: Some(mutation::header_mutation::Action::RemoveOnMatch(removal)) }
}
