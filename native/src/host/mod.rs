//! Envoy's objects as safe types. Whoever makes one of them promises that Envoy's object lives as long.

mod call;
mod connection;
mod http;
mod scheduler;

pub use call::{Config, Started};
pub use connection::Peer;
pub use http::Http;
pub use scheduler::{OfConfig, OfStream, Scheduler, Unsent};

use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{Bytes, LogLevel, Ours, callbacks};

/// Unix time in nanoseconds.
pub fn now_ns() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(0)
}

pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

pub fn warn(message: &str) {
    // SAFETY: the function may be called on every thread, and reads the message during the call alone.
    unsafe { callbacks::log(LogLevel::Warn, Bytes::of(message.as_bytes())) }
}

/// What some module of this process has given under this name. Null: none has.
pub fn given(name: &str) -> Ours {
    let mut object = std::ptr::null();
    // SAFETY: the function may be called on every thread. It reads the name during the call, and the place is ours.
    let is_there = unsafe { callbacks::given(Bytes::of(name.as_bytes()), &raw mut object) };
    if is_there { object } else { std::ptr::null() }
}

/// Gives something to the modules of this process, for good.
pub fn give(name: &str, object: Ours) {
    // SAFETY: the function may be called on every thread, and keeps the object's address alone.
    unsafe { callbacks::give(Bytes::of(name.as_bytes()), object) };
}

/// How many worker threads Envoy has. To be called on the main thread.
pub fn concurrency() -> usize {
    // SAFETY: it takes nothing; all hooks that call this run on the main thread.
    let workers = unsafe { callbacks::concurrency() };
    usize::try_from(workers).unwrap_or(1)
}
