//! What Envoy calls, under the names by which it looks for it. Envoy calls the hooks of one object one after the other,
//! on its own thread, and gives each the pointers that it has got from us for that object.

mod calls;
mod connection;
mod http;
#[cfg(test)]
mod tests;

use std::{
    ffi::c_char,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    abi::{self, Bytes, Envoys, Ours},
    host::{self, Config},
    plugin::{self, Member},
};

/// Runs a hook. No panic goes on into Envoy; `failed` is the answer then.
fn guarded<T>(failed: T, hook: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or(failed)
}

/// Gives an object to Envoy.
fn given<T>(object: T) -> Ours {
    Box::into_raw(Box::new(object)).cast_const().cast()
}

/// # Safety
/// `ours` was made by [`given`] of a `T` and is not taken back while `'a` lasts.
unsafe fn borrowed<'a, T>(ours: Ours) -> &'a T {
    // SAFETY: the caller's promise is passed on.
    unsafe { &*ours.cast::<T>() }
}

/// # Safety
/// `ours` was made by [`given`] of a `T`, and is used no more after this.
unsafe fn taken_back<T>(ours: Ours) -> Box<T> {
    // SAFETY: the caller's promise is passed on.
    unsafe { Box::from_raw(ours.cast::<T>().cast_mut()) }
}

/// Takes in a configuration. Null: it is refused.
fn configured(bytes: &[u8], config: Option<Config>) -> Ours {
    match plugin::configure(bytes, config) {
        Ok(member) => given(member),
        Err(error) => {
            host::warn(&format!("tollgate: the configuration is refused: {error}"));
            std::ptr::null()
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    abi::VERSION.as_ptr()
}

/// On the main thread.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(config: Envoys, _name: Bytes, bytes: Bytes) -> Ours {
    guarded(std::ptr::null(), || {
        // SAFETY: Envoy's bytes stay until this hook returns.
        let bytes = unsafe { bytes.copied() };
        // SAFETY: the configuration is a new one, of which Envoy says when it is destroyed, and `Member` forgets it then.
        configured(&bytes, Some(unsafe { Config::new(config) }))
    })
}

/// On any thread.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(ours: Ours) {
    // SAFETY: Envoy has it from `configured` and does not use it after this.
    guarded((), || unsafe { taken_back::<Member>(ours) }.leave());
}

/// On the main thread.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_new(_: Envoys, _name: Bytes, bytes: Bytes) -> Ours {
    guarded(std::ptr::null(), || {
        // SAFETY: Envoy's bytes stay until this hook returns.
        let bytes = unsafe { bytes.copied() };
        configured(&bytes, None)
    })
}

/// On any thread.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(ours: Ours) {
    // SAFETY: Envoy has it from `configured` and does not use it after this.
    guarded((), || unsafe { taken_back::<Member>(ours) }.leave());
}
