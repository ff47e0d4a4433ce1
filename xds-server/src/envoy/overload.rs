//! What Envoy does when it runs short. If memory runs short, it acts step by step, and first does what costs clients
//! least. If connections run short, it refuses new ones at once.
//!
//! The shares below are shares of the heap that Envoy may have. Every step ends when there is enough memory again.

use serde_json::{Value, json};

/// More connections from clients than this are refused, before the file descriptors of the process run out.
const MAX_DOWNSTREAM_CONNECTIONS: u32 = 50_000;

/// How often the heap is looked at. A client on a fast network sends some MiB between two looks. Each one costs 0.1 ms, which is
/// most of what an idle Envoy costs; twice as seldom, large bodies filled the heap between two of them.
const REFRESH: &str = "0.1s";

/// From here on, memory that is free but kept goes back to the kernel.
const SHRINK: f64 = 0.8;
/// From the first share on, the requests that hold the most memory are reset. The closer the second share comes, the
/// smaller are the requests that are reset. So who holds ten megabytes makes room for those who hold two kilobytes.
const RESET_LARGE: (f64, f64) = (0.85, 0.95);
/// Connections without a request are closed after shorter and shorter idle times.
const SHORTER_IDLE: (f64, f64) = (0.85, 0.95);
/// The idle time that is left at the second share.
const SHORTEST_IDLE: &str = "2s";
/// From here on, a connection ends with its answer.
const NO_KEEP_ALIVE: f64 = 0.9;
/// From here on, new connections wait in the kernel.
const NO_CONNECTIONS: f64 = 0.95;
/// From here on, requests are answered with 503.
const NO_REQUESTS: f64 = 0.98;

/// Only requests that hold 2^20 bytes or more can be reset. A request with a body of usual size never is.
const LARGE_POWER_OF_TWO: u32 = 20;

const HEAP: &str = "envoy.resource_monitors.fixed_heap";

pub fn overload_manager(heap: u64) -> Value {
    json!({
        "refresh_interval": REFRESH,
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": LARGE_POWER_OF_TWO},
        "resource_monitors": [
            {
                "name": HEAP,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": heap,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS,
                },
            },
        ],
        "actions": [
            action("shrink_heap", &at(SHRINK)),
            action("reset_high_memory_stream", &between(RESET_LARGE)),
            shorter_idle(),
            action("disable_http_keepalive", &at(NO_KEEP_ALIVE)),
            action("stop_accepting_connections", &at(NO_CONNECTIONS)),
            action("stop_accepting_requests", &at(NO_REQUESTS)),
        ],
    })
}

fn action(name: &str, trigger: &Value) -> Value {
    json!({"name": format!("envoy.overload_actions.{name}"), "triggers": [trigger]})
}

fn shorter_idle() -> Value {
    json!({
        "name": "envoy.overload_actions.reduce_timeouts",
        "triggers": [between(SHORTER_IDLE)],
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
            "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": SHORTEST_IDLE}],
        },
    })
}

fn at(share: f64) -> Value {
    json!({"name": HEAP, "threshold": {"value": share}})
}

fn between((from, to): (f64, f64)) -> Value {
    json!({"name": HEAP, "scaled": {"scaling_threshold": from, "saturation_threshold": to}})
}
