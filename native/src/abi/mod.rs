//! What we use of Envoy's ABI for dynamic modules (Envoy 1.40), in our words. Its values are those of Envoy's header
//! `source/extensions/dynamic_modules/abi/abi.h`; the end-to-end tests run each of them on a real Envoy.
//!
//! Envoy checks nothing that it loads. A callback that this Envoy does not have fails the load, because the module is
//! linked so that all are resolved at once (`native/build.rs`).

pub mod callbacks;
#[cfg(test)]
pub mod fake;

use std::ffi::{CStr, c_void};

/// The version of the ABI that this module is written against. Envoy logs a warning if its own is another.
pub const VERSION: &CStr = c"v0.2.0";

/// Bytes in Envoy's memory or in ours. Whose they are, and for how long, each function says.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Bytes {
    pub start: *const u8,
    pub len: usize,
}

/// A header of Envoy's or of ours.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub name: Bytes,
    pub value: Bytes,
}

/// An object of Envoy's.
pub type Envoys = *mut c_void;

/// An object of ours, as Envoy keeps it.
pub type Ours = *const c_void;

/// Which headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Headers {
    Request = 0,
    Answer = 2,
}

/// Which part of which body. What is received is what came last, while its hook runs; what is held was stopped before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Body {
    RequestReceived = 0,
    RequestHeld = 1,
    AnswerReceived = 2,
}

/// What Envoy knows of a stream (`docs/.../attributes` of Envoy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Attribute {
    AnswerCodeDetails = 16,
    ClientUri = 37,
    UpstreamLocalAddress = 51,
    AttemptCount = 53,
    ClusterName = 57,
    RouteName = 61,
    FilterChainName = 66,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LogLevel {
    Warn = 3,
}

/// How far a request's headers or an attempt's headers go.
pub mod headers_go {
    pub const ON: u32 = 0;
    /// Body and trailers still come to this filter.
    pub const NOWHERE: u32 = 1;
}

/// How far a chunk of a body goes.
pub mod body_goes {
    pub const ON: u32 = 0;
    /// Envoy keeps it.
    pub const NOWHERE: u32 = 1;
}

/// How far trailers go, or what happens on a connection.
pub mod goes {
    pub const ON: u32 = 0;
    pub const NOWHERE: u32 = 1;
}

/// How to close a connection: what was written is sent first.
pub const CLOSE_AFTER_WRITING: u32 = 0;

/// A call or a definition that succeeded.
pub const SUCCESS: u32 = 0;

// === impl Bytes ===

impl Bytes {
    pub const NONE: Self = Self { start: std::ptr::null(), len: 0 };

    /// Ours, for as long as the slice is borrowed.
    pub fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), len: bytes.len() }
    }

    /// A copy.
    ///
    /// # Safety
    /// Unless there are none, the bytes are readable.
    pub unsafe fn copied(self) -> Vec<u8> {
        // SAFETY: the caller's promise is passed on, and the slice does not outlive this line.
        unsafe { self.slice() }.to_vec()
    }

    /// The bytes where they are.
    ///
    /// # Safety
    /// Unless there are none, they are readable, and stay so and unchanged for `'a`.
    pub unsafe fn slice<'a>(self) -> &'a [u8] {
        if self.start.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: it is not null, and the caller promises the rest.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Header {
    pub const NONE: Self = Self { name: Bytes::NONE, value: Bytes::NONE };

    /// Ours, for as long as both are borrowed.
    pub fn of(name: &str, value: &[u8]) -> Self {
        Self { name: Bytes::of(name.as_bytes()), value: Bytes::of(value) }
    }
}
