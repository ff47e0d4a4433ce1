//! Bounds of what one client or one connection can take of Envoy, and for how long. They are needed because strangers
//! connect to it.
//!
//! The list is Envoy's own, "Configuring Envoy as an edge proxy", with other figures where answers of models need
//! them. What bounds the process as a whole (heap, connections) is in the bootstrap. Stock Envoy 1.40 has no limit of
//! connections per source address: `connection_limit` counts a filter chain's, the listener and network forms of
//! `local_ratelimit` have one bucket for all, and the HTTP form, which has descriptors, counts requests. So our own
//! filter counts them, as a network filter.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::pb::google::protobuf::UInt64Value;

use super::wire::{duration, number};

/// How much waits in Envoy until one side takes it, for a connection and for each of its streams. For a slow reader
/// Envoy holds this much of an answer and not all of it. It is as large as a stream's window, because a smaller buffer
/// would stop the sender early.
pub const BUFFER_BYTES: u32 = STREAM_WINDOW_BYTES;

/// The most requests that one HTTP/2 connection may have running. For more, SDKs open another connection. Envoy's
/// default is 2^31.
const MAX_STREAMS: u32 = 100;

/// How much a peer may send on one stream before Envoy has dealt with it. This is the protocol's own default, and the
/// least with which a request of a few pages comes in one piece. Envoy's default is 16 MiB.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all streams of a connection together. Envoy's default is 24 MiB.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The time for the headers of a request. SDKs send them at once.
pub const REQUEST_HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for a whole request with its body. 10 MiB in this time need 1.4 Mbit/s. It ends when the answer begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// After this silence in both directions, a stream of a plain route ends. Pools have a time of their own, by the
/// timeouts of their backends. This is Envoy's default; it is set so that it does not change with Envoy's.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Answers last as long as tokens come. A day is longer than any, and ends what nobody remembers.
const MAX_STREAM_DURATION: Duration = Duration::from_secs(24 * 3_600);

/// After this silence in both directions, a connection that is passed on as a whole is closed. This is Envoy's default; it
/// is set so that it does not change with Envoy's.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A connection without a request is closed after this time. Clients keep theirs for less, so they close first, and no
/// request meets the end of its connection.
const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// After this time a connection takes no further requests. Those that run go on, and the client makes a new connection.
/// So clients spread over new replicas, and no connection lasts for ever.
const MAX_CONNECTION_DURATION: Duration = Duration::from_secs(2 * 3_600);

/// The most headers of one request, in KiB and in number. These are Envoy's defaults; they are set so that they do not
/// change with Envoy's.
pub const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MAX_REQUEST_HEADERS: u32 = 100;

/// The most connections of one filter chain, which is a port, or a hostname with its certificate. It is a fifth of what
/// all may have together, so that one crowded filter chain leaves room for the others.
const MAX_CONNECTIONS: u64 = 10_000;

/// The most connections of one source address to one Envoy. It is a fifth of what a filter chain may have. It is not
/// less, because behind a load balancer that hides its clients, a node is one source.
pub const MAX_CONNECTIONS_PER_SOURCE: u32 = 2_000;

/// The bounds of HTTP/2 connections, from clients and to backends.
pub fn http2() -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        max_concurrent_streams: number(MAX_STREAMS),
        initial_stream_window_size: number(STREAM_WINDOW_BYTES),
        initial_connection_window_size: number(CONNECTION_WINDOW_BYTES),
        ..Default::default()
    }
}

/// The bounds of any HTTP connection from a client.
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

/// Closes each connection beyond the limit.
pub fn connection_limit(stat_prefix: &str) -> ConnectionLimit {
    ConnectionLimit {
        stat_prefix: stat_prefix.to_owned(),
        max_connections: Some(UInt64Value { value: MAX_CONNECTIONS }),
        ..Default::default()
    }
}
