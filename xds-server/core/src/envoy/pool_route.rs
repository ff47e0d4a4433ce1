//! The route of a pool. The filter names the cluster after it has read the body, and again for each further attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3::FilterStateInput;
use envoy_types::pb::envoy::extensions::router::cluster_specifiers::matcher::v3::{
    ClusterAction, MatcherClusterSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::core::v3 as xds;
use envoy_types::pb::xds::r#type::matcher::v3::matcher;
use prost::{Message as _, Name as _};

use crate::ir;

use super::MAX_BODY_BYTES;
use super::wire::{any, duration, number};

/// The filter state that holds the cluster's name. Envoy puts `wasm.` before every name that a wasm filter sets.
const TARGET: &str = "wasm.target";

/// Path and authority at the backend. Where one rewrite does for all attempts, the filter leaves them in filter state,
/// because a changed header would make Envoy look for the route anew, by the backend's path. Where each attempt is
/// rewritten by itself, they are not set, and an empty result changes nothing.
const PATH: &str = "%FILTER_STATE(wasm.path:PLAIN)%";
const AUTHORITY: &str = "%FILTER_STATE(wasm.authority:PLAIN)%";

/// When another attempt is made, even at the same backend: if the backend never had the request, or answered it with an
/// error. A failed attempt of this kind is free, so nobody need look at it. An attempt that ended without an answer, by
/// a reset or by our timeout, may have worked. So the filter adds `reset` (`x-envoy-retry-on`) only where each attempt
/// is looked at and counted.
const RETRY_ON: &str = "connect-failure,refused-stream,retriable-status-codes";
const RETRIABLE: [u32; 6] = [429, 500, 502, 503, 504, 529];

/// The filter reads whole bodies. It sees that a body is too large before Envoy does, and answers in the API's own
/// shape.
pub const BUFFER_BYTES: u32 = MAX_BODY_BYTES + 1024 * 1024;

/// Headers in which the proxy tells about the client. They may concern runners of our own at most, and never a
/// provider.
pub const HEADERS_TO_REMOVE: [&str; 2] = ["x-envoy-external-address", "x-forwarded-for"];

/// None: the pool has no backend, so there is nobody to route to.
pub fn action(pool: &ir::Pool, gateway: &ir::Gateway, matched: &ir::Route) -> Option<route::RouteAction> {
    let mut backends: Vec<&ir::Backend> = gateway
        .catalog
        .backends
        .values()
        .map(AsRef::as_ref)
        .filter(|backend| {
            pool.models.iter().flat_map(|model| &model.targets).any(|target| target.backend == backend.cluster)
        })
        .collect();
    backends.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    let first_token = backends.iter().map(|backend| backend.timeouts.first_token).max()?;
    let idle = backends.iter().map(|backend| backend.timeouts.idle).max()?;
    let connect = backends.iter().map(|backend| backend.timeouts.connect).max()?;
    let retries = pool.models.iter().map(|model| model.retries).max().unwrap_or_default();
    let attempt = one_attempt(matched.attempt_timeout.unwrap_or(first_token), first_token.max(idle));
    Some(route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::InlineClusterSpecifierPlugin(
            route::ClusterSpecifierPlugin {
                extension: Some(core::TypedExtensionConfig {
                    name: "envoy.router.cluster_specifier_plugin.matcher".to_owned(),
                    typed_config: Some(by_target(&backends)),
                }),
                is_optional: false,
            },
        )),
        path_rewrite: PATH.to_owned(),
        host_rewrite_specifier: Some(route::route_action::HostRewriteSpecifier::HostRewrite(AUTHORITY.to_owned())),
        // Without a timeout in the rule, answers may take as long as tokens come. The attempt's timeouts are the limit.
        timeout: duration(matched.request_timeout.unwrap_or(Duration::ZERO)),
        // The client's side is silent while attempts fail one after the other. So this is longer than all of them, and
        // never ends a request that another backend could still answer.
        idle_timeout: duration((connect + first_token) * (retries + 1) + idle),
        retry_policy: Some(if retries == 0 { attempt } else { with_retries(attempt, retries) }),
        ..Default::default()
    })
}

/// Only the bounds of the one attempt. What a retry would need costs Envoy 3 us for each request, so it is not there where
/// no model of the pool has one.
fn one_attempt(first_token: Duration, idle: Duration) -> route::RetryPolicy {
    route::RetryPolicy {
        // Ends an attempt whose answer has not begun. An answer that has begun is left alone.
        per_try_timeout: duration(first_token),
        // Ends an attempt that falls silent within its answer.
        per_try_idle_timeout: duration(idle),
        ..Default::default()
    }
}

/// Where a model has fewer retries than the pool's others, the filter says so (`x-envoy-max-retries`).
fn with_retries(attempt: route::RetryPolicy, retries: u32) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        retriable_status_codes: RETRIABLE.to_vec(),
        num_retries: number(retries),
        // A client waits for the next attempt. With several targets it goes elsewhere, so the pause is short.
        retry_back_off: Some(route::retry_policy::RetryBackOff {
            base_interval: duration(Duration::from_millis(5)),
            max_interval: duration(Duration::from_millis(50)),
        }),
        refresh_cluster_on_retry: true,
        ..attempt
    }
}

/// Finds the cluster by one look-up, however many backends there are.
fn by_target(backends: &[&ir::Backend]) -> Any {
    let on_match = |backend: &ir::Backend| matcher::OnMatch {
        on_match: Some(matcher::on_match::OnMatch::Action(xds::TypedExtensionConfig {
            name: "cluster".to_owned(),
            typed_config: Some(any(&ClusterAction { cluster: backend.cluster.clone() })),
        })),
        ..Default::default()
    };
    let map = backends.iter().map(|backend| (backend.cluster.clone(), on_match(backend))).collect();
    let input = FilterStateInput { key: TARGET.to_owned(), ..Default::default() };
    let input = xds::TypedExtensionConfig { name: "target".to_owned(), typed_config: Some(any(&input)) };
    let tree = MatcherTree { input: Some(input), exact_match_map: Some(MatchMap { map }) };
    let specifier = ClusterMatcher { cluster_matcher: Some(Matcher { matcher_tree: Some(tree) }) };
    Any { type_url: MatcherClusterSpecifier::type_url(), value: specifier.encode_to_vec() }
}

// These messages have the fields that we use of `MatcherClusterSpecifier` and `xds.type.matcher.v3.Matcher`, with a map
// in order. envoy-types keeps maps in hash maps. A resource that is encoded in another order each time would have
// another version each time, and would be sent again for nothing.

#[derive(Clone, PartialEq, prost::Message)]
struct ClusterMatcher {
    #[prost(message, optional, tag = "1")]
    cluster_matcher: Option<Matcher>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Matcher {
    #[prost(message, optional, tag = "2")]
    matcher_tree: Option<MatcherTree>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatcherTree {
    #[prost(message, optional, tag = "1")]
    input: Option<xds::TypedExtensionConfig>,
    #[prost(message, optional, tag = "2")]
    exact_match_map: Option<MatchMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatchMap {
    #[prost(btree_map = "string, message", tag = "1")]
    map: BTreeMap<String, matcher::OnMatch>,
}
