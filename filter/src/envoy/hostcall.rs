//! Host calls. The SDK panics on any status that it does not list. So each call here is made in a phase where Envoy
//! answers it with a listed status, and every `Err` is handled or does not matter.

use std::time::UNIX_EPOCH;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, LogLevel, MapType, Status},
};
use tollgate_wasm_abi as abi;

use crate::{
    headers::Headers,
    host::{Conflict, RequestBody, Shared, Version},
    stream::{Property, StreamHost},
};

/// Envoy's shared data.
pub struct EnvoyShared;

/// The stream whose callback is under way, or the one that the root has made effective.
pub struct EnvoyStream;

/// More than any body has. It is no larger because Envoy adds start and size in 32 bits.
const ALL: usize = 1 << 30;

/// Unix time in nanoseconds.
pub fn now_ns() -> u64 {
    let time = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    time.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0)
}

pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

pub fn warn(message: &str) {
    let _ = hostcalls::log(LogLevel::Warn, message);
}

/// Sets the filter state `wasm.NAME`. Envoy refuses that only if the stream is gone.
pub fn set_state(name: &str, value: &[u8]) {
    let _ = hostcalls::set_property(vec![name], Some(value));
}

pub fn set_header(map: MapType, name: &str, value: Option<&str>) {
    let _ = hostcalls::set_map_value(map, name, value);
}

fn buffer(buffer: BufferType, start: usize, len: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer, start, len).ok().flatten().unwrap_or_default()
}

pub fn set_body(buffer: BufferType, body: &[u8]) {
    let _ = hostcalls::set_buffer(buffer, 0, ALL, body);
}

/// Drops the result of a call where it does not matter.
pub fn ignore<T>(result: Result<T, Status>) {
    drop(result);
}

impl RequestBody for EnvoyStream {
    fn read(&self) -> Vec<u8> {
        buffer(BufferType::HttpRequestBody, 0, ALL)
    }
}

impl StreamHost for EnvoyStream {
    fn request_headers(&self) -> Headers {
        abi::header_pairs(abi::Headers::Request).and_then(Headers::from_pairs).unwrap_or_default()
    }

    fn answer_headers(&self) -> Headers {
        abi::header_pairs(abi::Headers::Answer).and_then(Headers::from_pairs).unwrap_or_default()
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        abi::property(match property {
            Property::Source => b"source\0address",
            Property::Route => b"xds\0route_name",
            Property::FilterChain => b"xds\0filter_chain_name",
            // The whole of it: of a part, Envoy 1.40 gives a form in which numbers and texts look alike.
            Property::Metadata => b"metadata",
            Property::ClientUri => b"connection\0uri_san_peer_certificate",
            Property::CodeDetails => b"response\0code_details",
            Property::Cluster => b"xds\0cluster_name",
            Property::UpstreamConnection => b"upstream\0local_address",
            Property::AttemptNumber => b"upstream\0request_attempt_count",
            Property::Plan => b"tollgate_plan",
            Property::Failures => b"tollgate_failures",
            Property::Node => b"xds\0node\0id",
        })
    }

    fn chunk(&self, start: usize, len: usize) -> Vec<u8> {
        buffer(BufferType::HttpResponseBody, start, len)
    }
}

impl Shared for EnvoyShared {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), version)) => Some((value, Version(version.unwrap_or(0)))),
            _ => None,
        }
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), Conflict> {
        let version = version.map(|Version(version)| version);
        hostcalls::set_shared_data(key, Some(value), version).map_err(|_| Conflict)
    }
}
