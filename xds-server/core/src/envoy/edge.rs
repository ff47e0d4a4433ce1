//! Bounds of what one client or one connection can take of Envoy, and of how long: strangers connect to it.
//!
//! The list is Envoy's own, "Configuring Envoy as an edge proxy", with other figures where answers of models need
//! them. What bounds the process as a whole (heap, connections) is in the bootstrap. Stock Envoy 1.40 has no limit of
//! connections per source address: `connection_limit` counts a filter chain's, the listener and network forms of
//! `local_ratelimit` have one bucket for all, and the HTTP form, which has descriptors, counts requests.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::pb::google::protobuf::UInt64Value;

use super::wire::{any, duration, number};

/// What waits in Envoy for one side to take it: of a connection, and of each of its streams. A slow reader holds this
/// much of an answer and not all of it. As large as the window of a stream: a smaller one would stop the sender early.
pub const BUFFER_BYTES: u32 = STREAM_WINDOW_BYTES;

/// Requests that one HTTP/2 connection may have running. Envoy's default is 2^31; SDKs open another connection.
const MAX_STREAMS: u32 = 100;

/// What a peer may send on one stream before Envoy has dealt with it. The protocol's own default, and the least that
/// lets a request of a few pages come in one piece. Envoy's default is 16 MiB.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all streams of a connection; Envoy's default is 24 MiB.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// For the headers of a request: SDKs send them at once.
pub const REQUEST_HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// For the whole request, body included: 10 MiB by then need 1.4 Mbit/s. An answer that has begun ends the wait.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Silence in both directions ends a stream of a plain route; pools have one of their own, by their backends'
/// timeouts. Envoy's default, said so that it does not change with Envoy's.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Answers last as long as tokens come. A day is longer than any, and ends what nobody remembers.
const MAX_STREAM_DURATION: Duration = Duration::from_secs(24 * 3_600);

/// A connection without a request is closed after this. Longer than clients keep theirs, so that they close first and
/// no request meets the end of its connection.
const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Then a connection takes no further requests, those that run go on, and the client makes a new one: so clients
/// spread over new replicas, and keep none for ever.
const MAX_CONNECTION_DURATION: Duration = Duration::from_secs(2 * 3_600);

/// Headers of one request in KiB and in number. Envoy's defaults, said so that they do not change with Envoy's.
pub const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MAX_REQUEST_HEADERS: u32 = 100;

/// Connections of one filter chain: a port, or a hostname with its certificate. A fifth of what all may have together,
/// so that one crowded entry leaves room for the others.
const MAX_CONNECTIONS: u64 = 10_000;

/// Of HTTP/2 connections, from clients and to backends.
pub fn http2() -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        max_concurrent_streams: number(MAX_STREAMS),
        initial_stream_window_size: number(STREAM_WINDOW_BYTES),
        initial_connection_window_size: number(CONNECTION_WINDOW_BYTES),
        ..Default::default()
    }
}

/// Of any HTTP connection from a client.
pub fn http() -> core::HttpProtocolOptions {
    core::HttpProtocolOptions {
        idle_timeout: duration(CONNECTION_IDLE_TIMEOUT),
        max_connection_duration: duration(MAX_CONNECTION_DURATION),
        max_stream_duration: duration(MAX_STREAM_DURATION),
        max_headers_count: number(MAX_REQUEST_HEADERS),
        // `a_b` and `a-b` are one header to many applications.
        headers_with_underscores_action: core::http_protocol_options::HeadersWithUnderscoresAction::RejectRequest
            .into(),
        ..Default::default()
    }
}

/// Closes what is one connection too many.
pub fn connection_limit(stat_prefix: &str) -> listener::Filter {
    let limit = ConnectionLimit {
        stat_prefix: stat_prefix.to_owned(),
        max_connections: Some(UInt64Value { value: MAX_CONNECTIONS }),
        ..Default::default()
    };
    listener::Filter {
        name: "envoy.filters.network.connection_limit".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&limit))),
    }
}
