//! Routes of the IR to Envoy's.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::{Any, UInt64Value};

use crate::ir::{self, Action, Redirect, Rewrite, Route, WeightedService};

use super::path::{self, Change, change, header_options, route_match};
use super::wire::{any, duration, number};
use super::{class, cors, picker, pool_route, session, wasm};

/// Each one of a map with two entries is as likely as not to have the order that is wanted.
const MAPS: usize = 64;

/// Where the requests of some routes come in.
#[derive(Debug, Clone, Copy)]
pub struct EntryPoint<'a> {
    pub gateway: &'a ir::Gateway,
    pub port: u16,
    pub tls: bool,
}

/// The whole of a hostname is with the filter or without it. Envoy looks for a filter's own settings when a stream
/// begins, by the route that it finds then. If it finds another route later, that one is of the same virtual host.
pub fn virtual_host(entry: EntryPoint<'_>, name: String, host: &ir::VirtualHost) -> route::VirtualHost {
    let routes = host.routes.iter().flat_map(|found| route(entry, found)).collect();
    let mut made = path::virtual_host(name, &host.domain, routes);
    if wasm::is_needed(&entry.gateway.catalog) && !has_pool(host) {
        made.typed_per_filter_config = [(wasm::request_name(&entry.gateway.catalog.scope), off())].into();
    }
    made
}

/// What is not for this connection. The client takes another one, or does as if there was none.
pub fn misdirected(entry: EntryPoint<'_>, name: String, hostnames: Vec<String>) -> route::VirtualHost {
    let everything = route::route_match::PathSpecifier::Prefix(String::new());
    let everything = route::RouteMatch { path_specifier: Some(everything), ..Default::default() };
    let refused = failing(route::Route { r#match: Some(everything), ..Default::default() }, 421);
    let mut made = route::VirtualHost { name, domains: hostnames, routes: vec![refused], ..Default::default() };
    if wasm::is_needed(&entry.gateway.catalog) {
        made.typed_per_filter_config = [(wasm::request_name(&entry.gateway.catalog.scope), off())].into();
    }
    made
}

/// Whether some route leads to a pool. If so, all of the virtual host's requests meet the filter: beside a pool's
/// routes it keeps the clients' keys from the plain ones.
fn has_pool(host: &ir::VirtualHost) -> bool {
    host.routes.iter().any(|route| matches!(route.action, Action::Pool { .. }))
}

/// Envoy makes no such filter for a request.
fn off() -> Any {
    any(&route::FilterConfig { disabled: true, ..Default::default() })
}

fn route(entry: EntryPoint<'_>, found: &Route) -> Vec<route::Route> {
    let made = route::Route {
        name: class::route_name(found),
        r#match: Some(route_match(&found.matches)),
        request_headers_to_add: header_options(&found.request_headers),
        request_headers_to_remove: found.request_headers.remove.clone(),
        response_headers_to_add: header_options(&found.response_headers),
        response_headers_to_remove: found.response_headers.remove.clone(),
        typed_per_filter_config: of_filters(found),
        ..Default::default()
    };
    match &found.action {
        Action::Fail { status } => vec![failing(made, *status)],
        Action::Redirect(redirect) => {
            let action = route::route::Action::Redirect(self::redirect(entry, found, redirect));
            vec![route::Route { action: Some(action), ..made }]
        }
        Action::Pool { pool, .. } => {
            let action =
                entry.gateway.catalog.pools.get(pool).and_then(|pool| pool_route::action(pool, entry.gateway, found));
            let Some(action) = action else {
                return vec![failing(made, 503)];
            };
            let mut made = route::Route { action: Some(route::route::Action::Route(action)), ..made };
            made.request_body_buffer_limit = Some(UInt64Value { value: pool_route::BUFFER_BYTES.into() });
            made.request_headers_to_remove.extend(pool_route::HEADERS_TO_REMOVE.map(str::to_owned));
            vec![made]
        }
        Action::Services { services, invalid } => {
            let action = route::route::Action::Route(to_services(entry.gateway, found, services));
            let mut usable = route::Route { action: Some(action), ..made.clone() };
            // Of several, each share says whom it asks.
            if let [WeightedService { picker: Some(picker), .. }] = services.as_slice() {
                usable.typed_per_filter_config.extend([picker::asks(entry.gateway, picker)]);
            }
            let unusable = ir::nobody_there(found.is_of_calls());
            let valid: u32 = services.iter().map(|service| service.weight).sum();
            match share(*invalid, valid) {
                None => vec![usable],
                Some(share) => {
                    let mut unusable = failing(made, unusable);
                    if let Some(found) = &mut unusable.r#match {
                        found.runtime_fraction = Some(share);
                    }
                    vec![unusable, usable]
                }
            }
        }
    }
}

/// What the filters of a listener do for this route alone.
fn of_filters(found: &Route) -> HashMap<String, Any> {
    let cors = found.cors.iter().map(|given| (cors::FILTER.to_owned(), cors::policy(given)));
    let session = found.session.iter().map(|given| (session::FILTER.to_owned(), session::of_route(given)));
    in_order(cors.chain(session).collect())
}

/// What is sent of a map is in the map's own order, which is another one each time, and the same resource must have the
/// same bytes. So it is made again until it has the order that is given.
fn in_order(entries: Vec<(String, Any)>) -> HashMap<String, Any> {
    let map = || entries.iter().cloned().collect::<HashMap<_, _>>();
    let is_in_order = |map: &HashMap<String, Any>| map.keys().eq(entries.iter().map(|(name, _)| name));
    std::iter::repeat_with(map).take(MAPS).find(is_in_order).unwrap_or_else(map)
}

fn failing(made: route::Route, status: u16) -> route::Route {
    let response = route::DirectResponseAction { status: status.into(), ..Default::default() };
    route::Route { action: Some(route::route::Action::DirectResponse(response)), ..made }
}

/// The share of requests that would have gone to references that cannot be used.
fn share(invalid: u32, valid: u32) -> Option<core::RuntimeFractionalPercent> {
    let total = u64::from(invalid) + u64::from(valid);
    let numerator = (u64::from(invalid) * 1_000_000).checked_div(total)?;
    (numerator > 0).then(|| of_a_million(u32::try_from(numerator).unwrap_or(1_000_000)))
}

fn of_a_million(numerator: u32) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(FractionalPercent { numerator, denominator: DenominatorType::Million.into() }),
        runtime_key: String::new(),
    }
}

/// The copy names the same host as the request.
fn mirror(gateway: &ir::Gateway, mirror: &ir::Mirror) -> route::route_action::RequestMirrorPolicy {
    route::route_action::RequestMirrorPolicy {
        cluster: gateway.own_cluster(&mirror.service),
        runtime_fraction: Some(of_a_million(mirror.share)),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

/// There is another attempt if the connection fails, if the backend does not answer in time, and after a status that the
/// rule names.
fn retry_policy(retry: &ir::Retry, attempt: Option<Duration>) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset,retriable-status-codes".to_owned(),
        retriable_status_codes: retry.codes.iter().copied().map(u32::from).collect(),
        num_retries: number(retry.attempts),
        per_try_timeout: attempt.and_then(duration),
        retry_back_off: retry.backoff.map(back_off),
        ..Default::default()
    }
}

/// There is another attempt if nobody was reached. So the request was worked on once at most.
fn unless_connected() -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: "connect-failure,refused-stream".to_owned(),
        num_retries: number(2),
        ..Default::default()
    }
}

/// Envoy waits for a random time below the interval, which doubles with each attempt.
fn back_off(base: Duration) -> route::retry_policy::RetryBackOff {
    let base = base.max(Duration::from_millis(1));
    route::retry_policy::RetryBackOff { base_interval: duration(base), max_interval: duration(base * 10) }
}

fn to_services(gateway: &ir::Gateway, found: &Route, services: &[WeightedService]) -> route::RouteAction {
    use route::route_action::ClusterSpecifier;
    let plain = |service: &WeightedService| service.request_headers.is_empty() && service.response_headers.is_empty();
    let specifier = match services {
        [only] if plain(only) => ClusterSpecifier::Cluster(gateway.own_cluster(&only.service)),
        _ => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: services.iter().map(|service| weighted(gateway, service)).collect(),
            ..Default::default()
        }),
    };
    let mut action = route::RouteAction {
        cluster_specifier: Some(specifier),
        timeout: duration(found.request_timeout.unwrap_or_default()),
        ..Default::default()
    };
    let attempt = found.attempt_timeout.filter(|timeout| !timeout.is_zero());
    match (&found.retry, attempt) {
        (Some(retry), attempt) => action.retry_policy = Some(retry_policy(retry, attempt)),
        (None, Some(timeout)) => {
            // The request has only one attempt.
            let request = found.request_timeout.filter(|request| !request.is_zero());
            action.timeout = duration(request.map_or(timeout, |request| request.min(timeout)));
        }
        (None, None) => {}
    }
    // A picker may name several endpoints, for one after the other.
    if services.iter().any(|service| service.picker.is_some()) {
        action.retry_policy.get_or_insert_with(unless_connected);
    }
    action.request_mirror_policies = found.mirrors.iter().map(|copy| mirror(gateway, copy)).collect();
    if services.iter().any(|service| service.websocket) {
        let websocket =
            route::route_action::UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() };
        action.upgrade_configs.push(websocket);
    }
    if let Some(changed) = &found.rewrite {
        rewrite(&mut action, found, changed);
    }
    action
}

fn weighted(gateway: &ir::Gateway, service: &WeightedService) -> route::weighted_cluster::ClusterWeight {
    route::weighted_cluster::ClusterWeight {
        name: gateway.own_cluster(&service.service),
        weight: number(service.weight),
        request_headers_to_add: header_options(&service.request_headers),
        request_headers_to_remove: service.request_headers.remove.clone(),
        response_headers_to_add: header_options(&service.response_headers),
        response_headers_to_remove: service.response_headers.remove.clone(),
        typed_per_filter_config: service.picker.iter().map(|picker| picker::asks(gateway, picker)).collect(),
        ..Default::default()
    }
}

fn rewrite(action: &mut route::RouteAction, found: &Route, rewrite: &Rewrite) {
    if let Some(hostname) = &rewrite.hostname {
        action.host_rewrite_specifier =
            Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(hostname.clone()));
    }
    match rewrite.path.as_ref().map(|path| change(&found.matches.path, path)) {
        Some(Change::Prefix(prefix)) => action.prefix_rewrite = prefix,
        Some(Change::Pattern(pattern)) => action.regex_rewrite = Some(pattern),
        None => {}
    }
}

/// The port follows HTTPRequestRedirectFilter.port. If the filter gives none, it is the scheme's own if a scheme is
/// given, else the listener's. A port that the scheme has anyway is not named.
fn redirect(entry: EntryPoint<'_>, found: &Route, redirect: &Redirect) -> route::RedirectAction {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let scheme = redirect.scheme.as_deref().unwrap_or(if entry.tls { "https" } else { "http" });
    let well_known = if scheme == "https" { 443 } else { 80 };
    let port = redirect.port.unwrap_or(if redirect.scheme.is_some() { well_known } else { entry.port });
    route::RedirectAction {
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: if port == well_known { 0 } else { port.into() },
        path_rewrite_specifier: redirect.path.as_ref().map(|path| match (path, change(&found.matches.path, path)) {
            (ir::PathRewrite::Full(full), _) => PathRewriteSpecifier::PathRedirect(full.clone()),
            (_, Change::Prefix(prefix)) => PathRewriteSpecifier::PrefixRewrite(prefix),
            (_, Change::Pattern(pattern)) => PathRewriteSpecifier::RegexRewrite(pattern),
        }),
        response_code: match redirect.status {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        }
        .into(),
        ..Default::default()
    }
}
