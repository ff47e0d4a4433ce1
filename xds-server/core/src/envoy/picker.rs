//! Endpoint pickers of InferencePools: Envoy's ext_proc filter asks one for each request to its pool, and the pool's
//! cluster goes where it says (GIE's proposal 004, Endpoint Picker Protocol).
//!
//! ```text
//! request -> filter -> picker: headers, body -> metadata envoy.lb x-gateway-destination-endpoint -> override_host -> Pod
//! answer  <- filter <- picker: headers, body <- metadata envoy.lb x-gateway-destination-endpoint-served <------------/
//! ```
//! A picker names endpoints in a header as well. A client can send such a header, so only the metadata counts.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy};
use envoy_types::pb::envoy::config::core::v3::{GrpcService, TypedExtensionConfig, grpc_service};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3 as ext_proc;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::override_host::v3::{
    OverrideHost, override_host::OverrideHostSource,
};
use envoy_types::pb::envoy::r#type::metadata::v3::{MetadataKey, metadata_key};
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use ext_proc::processing_mode::{BodySendMode, HeaderSendMode};

use crate::ir::{self, Choice, OnPickerFailure, Picker};

use super::route_table::Form;
use super::scope::turned_on;
use super::wire::{any, duration, extension};

pub const FILTER: &str = "envoy.filters.http.ext_proc";

/// The namespace of all metadata that a picker sets or is told.
const NAMESPACE: &str = "envoy.lb";
const PICKED: &str = "x-gateway-destination-endpoint";
const SERVED: &str = "x-gateway-destination-endpoint-served";

/// A picker that holds requests back until an endpoint is free says so by not answering. One that hangs does the same, so
/// there is an end to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The filter of all routes. It is always there, so that the first route to a picker changes no listener, and asks nobody
/// where a route does not say whom.
pub fn filter(form: Form) -> HttpFilter {
    let skip = HeaderSendMode::Skip.into();
    let namespaces = || {
        let untyped = vec![NAMESPACE.to_owned()];
        Some(ext_proc::metadata_options::MetadataNamespaces { untyped, ..Default::default() })
    };
    let processor = ext_proc::ExternalProcessor {
        // It must name one, and routes name theirs.
        grpc_service: Some(service("", "")),
        processing_mode: Some(ext_proc::ProcessingMode {
            request_header_mode: skip,
            response_header_mode: skip,
            ..Default::default()
        }),
        message_timeout: duration(PATIENCE),
        metadata_options: Some(ext_proc::MetadataOptions {
            forwarding_namespaces: namespaces(),
            receiving_namespaces: namespaces(),
            ..Default::default()
        }),
        // It picks an endpoint. Which route a request takes is decided.
        route_cache_action: ext_proc::external_processor::RouteCacheAction::Retain.into(),
        status_on_error: Some(HttpStatus { code: StatusCode::ServiceUnavailable.into() }),
        ..Default::default()
    };
    turned_on(form, FILTER, &processor)
}

/// What a route says of its picker.
pub fn asks(gateway: &ir::Gateway, picker: &Picker) -> (String, Any) {
    let (body, send) = (BodySendMode::FullDuplexStreamed.into(), HeaderSendMode::Send.into());
    let overrides = ext_proc::ExtProcOverrides {
        processing_mode: Some(ext_proc::ProcessingMode {
            request_header_mode: send,
            response_header_mode: send,
            // Pickers read the prompt and the usage, and see the end of a body that is streamed by its trailers.
            request_body_mode: body,
            response_body_mode: body,
            request_trailer_mode: send,
            response_trailer_mode: send,
        }),
        grpc_service: Some(service(&gateway.own_cluster(&picker.service), &picker.authority)),
        failure_mode_allow: Some(BoolValue { value: picker.on_failure == OnPickerFailure::FailOpen }),
        ..Default::default()
    };
    let of_route =
        ext_proc::ExtProcPerRoute { r#override: Some(ext_proc::ext_proc_per_route::Override::Overrides(overrides)) };
    (FILTER.to_owned(), any(&of_route))
}

fn service(cluster: &str, authority: &str) -> GrpcService {
    // Envoy takes no empty name.
    let cluster_name = if cluster.is_empty() { "nobody" } else { cluster }.to_owned();
    let envoy = grpc_service::EnvoyGrpc { cluster_name, authority: authority.to_owned(), ..Default::default() };
    GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)), ..Default::default() }
}

/// How a cluster chooses among its endpoints. None: as Envoy does by itself.
pub fn policy(choice: &Choice) -> Option<LoadBalancingPolicy> {
    let least_busy = extension("envoy.load_balancing_policies.least_request", &LeastRequest::default());
    match choice {
        Choice::ByTurns => None,
        Choice::LeastBusy => Some(of(least_busy)),
        Choice::Picked(_) => {
            let picked = OverrideHostSource { metadata: Some(key(PICKED)), ..Default::default() };
            let policy = OverrideHost {
                override_host_sources: vec![picked],
                selected_host_key: Some(key(SERVED)),
                fallback_policy: Some(of(least_busy)),
            };
            Some(of(extension("envoy.load_balancing_policies.override_host", &policy)))
        }
    }
}

fn of(policy: TypedExtensionConfig) -> LoadBalancingPolicy {
    LoadBalancingPolicy { policies: vec![Policy { typed_extension_config: Some(policy) }] }
}

fn key(name: &str) -> MetadataKey {
    let segment = metadata_key::path_segment::Segment::Key(name.to_owned());
    MetadataKey { key: NAMESPACE.to_owned(), path: vec![metadata_key::PathSegment { segment: Some(segment) }] }
}
