//! Spans of requests: Envoy's own tracer sends them to a collector by OTLP. A request is a span of a server, and each attempt at
//! a backend a span of a client below it. Trace context is W3C's: a client's is continued, and backends are given ours.
//!
//! Headers for the collector are none: they are secret, and whoever reads Envoy's configuration would see them.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{GrpcService, grpc_service};
use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, tracing as provider};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::StaticConfigResourceDetectorConfig;
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use envoy_types::pb::envoy::r#type::v3::Percent;

use crate::ir;

use super::asked::{AUTHORITY, PATH};
use super::signals::{FIELDS, Known, PROVIDER, PROVIDER_FORMAT, Tracing};
use super::wire::{any, duration, extension, yes};

/// The cluster of the collector.
pub const CLUSTER: &str = "tollgate_otlp";

/// Spans are lost that the collector has not taken after this time.
const TIMEOUT: Duration = Duration::from_secs(10);

const STATIC_RESOURCE: &str = "envoy.tracers.opentelemetry.resource_detectors.static_config";

/// Where Envoy looks for what the route is, once it is known.
const OPERATION: &str = "%REQ(:METHOD)% %FILTER_STATE(wasm.tollgate.route:PLAIN)%";
const UPSTREAM_OPERATION: &str = "%REQ(:METHOD)% %UPSTREAM_CLUSTER%";

pub fn of(gateway: &ir::Gateway, tracing: &Tracing) -> hcm::Tracing {
    hcm::Tracing {
        random_sampling: percent(tracing.sampling.percent()),
        // Envoy has a header of its own by which anybody could ask for a span.
        client_sampling: percent(0.0),
        spawn_upstream_span: yes(),
        operation: OPERATION.to_owned(),
        upstream_operation: UPSTREAM_OPERATION.to_owned(),
        custom_tags: tags(),
        provider: Some(provider::Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(provider::http::ConfigType::TypedConfig(any(&exporter(gateway)))),
        }),
        ..Default::default()
    }
}

fn exporter(gateway: &ir::Gateway) -> OpenTelemetryConfig {
    let origin = gateway.catalog.scope.origin();
    let envoy = grpc_service::EnvoyGrpc { cluster_name: CLUSTER.to_owned(), ..Default::default() };
    let namespace = ("service.namespace".to_owned(), origin.namespace.to_string());
    OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
            timeout: duration(TIMEOUT),
            ..Default::default()
        }),
        service_name: origin.name.to_string(),
        // One entry: a map of several is encoded in any order, and another order is another listener.
        resource_detectors: vec![extension(
            STATIC_RESOURCE,
            &StaticConfigResourceDetectorConfig { attributes: [namespace].into() },
        )],
        ..Default::default()
    }
}

fn tags() -> Vec<CustomTag> {
    let tag =
        |name: &str, value: String| CustomTag { tag: name.to_owned(), r#type: Some(custom_tag::Type::Value(value)) };
    // In place of Envoy's own, which has the query.
    let url = tag("http.url", format!("%REQ(:SCHEME)%://{AUTHORITY}{PATH}"));
    let in_time = FIELDS.iter().filter(|field| field.known == Known::InTime);
    let provider = tag(PROVIDER, PROVIDER_FORMAT.to_owned());
    let ours = in_time.map(|field| tag(field.shown_as, field.format()));
    [url].into_iter().chain(ours).chain([provider]).collect()
}

fn percent(value: f64) -> Option<Percent> {
    Some(Percent { value })
}
