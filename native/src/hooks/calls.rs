//! Hooks of a configuration, on the main thread: ticks and other notices, and what comes on its calls.

use super::{borrowed, guarded};
use crate::{
    abi::{Bytes, Envoys, Header, Ours},
    grpc,
    host::{Config, Started},
    plugin::{Member, Notice},
    root,
};

/// # Safety
/// As of [`borrowed`]: Envoy has `ours` from `configured` and has not destroyed it.
unsafe fn member<'a>(ours: Ours) -> &'a Member {
    // SAFETY: the caller's promise is passed on.
    unsafe { borrowed(ours) }
}

/// # Safety
/// Envoy gives this pointer to the hook of a configuration, on the main thread.
unsafe fn config(envoys: Envoys) -> Config {
    // SAFETY: the caller's promise is passed on.
    unsafe { Config::new(envoys) }
}

/// # Safety
/// There are `count` headers at `first`, and they stay until the hook returns.
unsafe fn copied(first: *const Header, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise is passed on.
    let headers = unsafe { std::slice::from_raw_parts(first, count) };
    // SAFETY: the caller's promise is passed on.
    headers.iter().map(|header| unsafe { (header.name.copied(), header.value.copied()) }).collect()
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(_: Envoys, ours: Ours, event: u64) {
    guarded((), || {
        // SAFETY: Envoy gives what it has got for this object.
        let member = unsafe { member(ours) };
        if let Some(notice) = Notice::of_number(event) {
            root::noticed(&member.plugin, notice);
        }
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_headers(
    envoys: Envoys,
    ours: Ours,
    id: u64,
    headers: *const Header,
    count: usize,
    _end: bool,
) {
    // SAFETY: Envoy gives what it has got for this object, and its headers.
    guarded((), || unsafe { fields(envoys, ours, id, copied(headers, count), true) });
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_trailers(
    envoys: Envoys,
    ours: Ours,
    id: u64,
    trailers: *const Header,
    count: usize,
) {
    // SAFETY: Envoy gives what it has got for this object, and its trailers.
    guarded((), || unsafe { fields(envoys, ours, id, copied(trailers, count), false) });
}

/// # Safety
/// As of [`member`] and [`config`].
unsafe fn fields(envoys: Envoys, ours: Ours, id: u64, fields: Vec<(Vec<u8>, Vec<u8>)>, began: bool) {
    // SAFETY: the caller's promise is passed on.
    let (member, config) = unsafe { (member(ours), config(envoys)) };
    member.plugin.calls().fields(config, Started(id), &fields, began);
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_data(
    envoys: Envoys,
    ours: Ours,
    id: u64,
    chunks: *const Bytes,
    count: usize,
    _end: bool,
) {
    guarded((), || {
        // SAFETY: Envoy gives what it has got for this object.
        let (member, config) = unsafe { (member(ours), config(envoys)) };
        if chunks.is_null() {
            return;
        }
        // SAFETY: there are as many chunks, and they stay until this hook returns.
        let chunks = unsafe { std::slice::from_raw_parts(chunks, count) };
        for chunk in chunks {
            // SAFETY: Envoy's bytes stay until this hook returns.
            let bytes = unsafe { chunk.slice() };
            let news = member.plugin.calls().bytes(config, Started(id), bytes);
            news.into_iter().for_each(|(call, news)| root::tell(&member.plugin, call, news));
        }
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_complete(envoys: Envoys, ours: Ours, id: u64) {
    // SAFETY: Envoy gives what it has got for this object.
    guarded((), || unsafe { ended(envoys, ours, id, grpc::UNKNOWN) });
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_reset(
    envoys: Envoys,
    ours: Ours,
    id: u64,
    _reason: u32,
) {
    // SAFETY: Envoy gives what it has got for this object.
    guarded((), || unsafe { ended(envoys, ours, id, grpc::UNAVAILABLE) });
}

/// # Safety
/// As of [`member`] and [`config`].
unsafe fn ended(envoys: Envoys, ours: Ours, id: u64, status: u32) {
    // SAFETY: the caller's promise is passed on.
    let (member, config) = unsafe { (member(ours), config(envoys)) };
    let ended = member.plugin.calls().ended(config, Started(id), status);
    if let Some((call, news)) = ended {
        root::tell(&member.plugin, call, news);
    }
}
