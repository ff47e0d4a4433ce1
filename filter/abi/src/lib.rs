//! Two host calls of Proxy-Wasm (ABI 0.2.1), on wasm32 only, with their results as the host wrote them. The SDK's own
//! make a `String` and a `Vec` of each header, and build the path of each property anew. The host puts a result where the
//! SDK's allocator tells it to.
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
#![cfg(target_arch = "wasm32")]

use std::ptr::null_mut;

/// Which headers (`proxy_map_type_t`).
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Headers {
    Request = 0,
    Answer = 2,
}

/// `proxy_status_t` of a call that succeeded.
const OK: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: Headers, result: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, result: *mut *mut u8, size: *mut usize) -> u32;
}

/// All headers of the stream whose callback is under way, serialized: their number, the lengths of each name and value,
/// all as 32 bits in little endian, and then the names and values, with a zero byte after each one. None: there are
/// none.
pub fn header_pairs(map: Headers) -> Option<Vec<u8>> {
    // SAFETY: both places are ours, and `taken` gives them for the time of the call.
    taken(|result, size| unsafe { proxy_get_header_map_pairs(map, result, size) })
}

/// A property. `path` is the parts of its name with zero bytes between them. None: there is no such property.
pub fn property(path: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: both places are ours, and `taken` gives them for the time of the call. The path outlives it.
    taken(|result, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), result, size) })
}

/// What a call has left.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut result, mut size) = (null_mut(), 0);
    if call(&raw mut result, &raw mut size) != OK || result.is_null() {
        return None;
    }
    // SAFETY: the host has asked `proxy_on_memory_allocate` for this memory, has written all of it, and has given it up.
    // The SDK's is a boxed slice of bytes of this size, from the global allocator.
    Some(unsafe { Vec::from_raw_parts(result, size, size) })
}
