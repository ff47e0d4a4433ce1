//! Hooks of an HTTP stream: a client's request, or an attempt at a backend.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_filter::{exchange::Goes, stream::Callback};

use super::{borrowed, given, guarded, taken_back};
use crate::{
    abi::{Bytes, Envoys, Header, Ours, body_goes, goes, headers_go},
    host::Http,
    island,
    plugin::{self, Member, Notice},
    root,
    stream::{Reply, Then, Turn},
};

/// What Envoy keeps of one stream.
struct Handle {
    island: usize,
    id: u64,
}

/// The numbers of streams. None comes twice, so that an island which began anew knows none of its former streams.
static IDS: AtomicU64 = AtomicU64::new(1);

/// The status where the filter cannot decide.
const UNDECIDED: u32 = 503;

pub fn new_id() -> u64 {
    IDS.fetch_add(1, Ordering::Relaxed)
}

// === impl Handle ===

impl Handle {
    /// A callback that holds or lets go the request.
    fn request(&self, filter: Envoys, callback: Callback, [on, nowhere]: [u32; 2]) -> u32 {
        guarded(nowhere, || {
            // SAFETY: Envoy gives its filter to a hook of the same, on its thread.
            let http = unsafe { Http::new(filter) };
            let turn =
                island::at(self.island).and_then(|island| island.with(|inner| inner.on_http(self.id, callback, http)));
            match self.carry_out(turn.flatten(), http) {
                Goes::On => on,
                Goes::Nowhere => nowhere,
            }
        })
    }

    /// A callback during which nothing can be held.
    fn answer(&self, filter: Envoys, callback: Callback) {
        guarded((), || {
            // SAFETY: Envoy gives its filter to a hook of the same, on its thread.
            let http = unsafe { Http::new(filter) };
            let callback = match callback {
                Callback::AnswerBody { end, .. } => Callback::AnswerBody { size: http.chunk_size(), end },
                other => other,
            };
            let turn =
                island::at(self.island).and_then(|island| island.with(|inner| inner.on_http(self.id, callback, http)));
            if let Some(turn) = turn.flatten() {
                self.carry_out(Some(turn), http);
            }
        });
    }

    /// What is left to do of a turn. No request goes on undecided: without a turn it is refused.
    fn carry_out(&self, turn: Option<Turn>, http: Http<'_>) -> Goes {
        let Some(turn) = turn else {
            http.reply(UNDECIDED, &[], &[]);
            return Goes::Nowhere;
        };
        if let Some(plugin) = turn.rang.and_then(plugin::of_number) {
            plugin.tell(Notice::Rang { island: self.island });
        }
        turn.woken.into_iter().for_each(|woken| root::tell_woken(self.island, woken));
        match turn.then {
            Then::Nothing | Then::Close => {}
            Then::Resume => http.resume(),
            Then::Reply(Reply { status, headers, body }) => http.reply(status, &headers, &body),
        }
        turn.goes
    }

    fn close(&self) {
        let closed = island::at(self.island).and_then(|island| island.with(|inner| inner.close(self.id)));
        if let Some(closed) = closed {
            closed.woken.into_iter().for_each(|woken| root::tell_woken(self.island, woken));
        }
    }
}

/// # Safety
/// As of [`borrowed`]: Envoy has `ours` from the hook that made it and has not destroyed it.
unsafe fn handle<'a>(ours: Ours) -> &'a Handle {
    // SAFETY: the caller's promise is passed on.
    unsafe { borrowed(ours) }
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_new(config: Ours, filter: Envoys) -> Ours {
    guarded(std::ptr::null(), || {
        // SAFETY: Envoy has it from `configured` and has not destroyed it, and the filter is a new one of this thread.
        let (member, http) = unsafe { (borrowed::<Member>(config), Http::new(filter)) };
        let (island, id) = (island::of_worker(http.worker()), new_id());
        if let Some(place) = island::at(island) {
            // SAFETY: Envoy keeps the filter until the hook that destroys it, which closes the stream.
            place.with(|inner| unsafe { inner.open_http(member.plugin.number, id, http) });
        }
        given(Handle { island, id })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(filter: Envoys, ours: Ours, end: bool) -> u32 {
    // SAFETY: Envoy gives what it has got for this object.
    let handle = unsafe { handle(ours) };
    handle.request(filter, Callback::RequestHeaders { end }, [headers_go::ON, headers_go::NOWHERE])
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_body(filter: Envoys, ours: Ours, end: bool) -> u32 {
    // SAFETY: Envoy gives what it has got for this object.
    let handle = unsafe { handle(ours) };
    handle.request(filter, Callback::RequestBody { end }, [body_goes::ON, body_goes::NOWHERE])
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(filter: Envoys, ours: Ours) -> u32 {
    // SAFETY: Envoy gives what it has got for this object.
    let handle = unsafe { handle(ours) };
    handle.request(filter, Callback::RequestTrailers, [goes::ON, goes::NOWHERE])
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(filter: Envoys, ours: Ours, end: bool) -> u32 {
    // SAFETY: Envoy gives what it has got for this object.
    let handle = unsafe { handle(ours) };
    handle.answer(filter, Callback::AnswerHeaders { end });
    headers_go::ON
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_body(filter: Envoys, ours: Ours, end: bool) -> u32 {
    // SAFETY: Envoy gives what it has got for this object.
    let handle = unsafe { handle(ours) };
    handle.answer(filter, Callback::AnswerBody { size: 0, end });
    body_goes::ON
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(_: Envoys, _: Ours) -> u32 {
    goes::ON
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(filter: Envoys, ours: Ours) {
    // SAFETY: Envoy gives what it has got for this object.
    unsafe { handle(ours) }.answer(filter, Callback::Log);
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_destroy(ours: Ours) {
    guarded((), || {
        // SAFETY: Envoy has it from the hook that made it and does not use it after this.
        unsafe { taken_back::<Handle>(ours) }.close();
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(filter: Envoys, ours: Ours, event: u64) {
    guarded((), || {
        // SAFETY: Envoy gives what it has got for this object, and its filter to a hook of the same, on its thread.
        let (handle, http) = unsafe { (handle(ours), Http::new(filter)) };
        let turn =
            island::at(handle.island).and_then(|island| island.with(|inner| inner.on_wake(handle.id, event, http)));
        handle.carry_out(turn.flatten(), http);
    });
}

// Envoy asks for these, and they do nothing here.

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _: Envoys,
    _: Ours,
    _: u64,
    _: u32,
    _: *const Header,
    _: usize,
    _: *const Bytes,
    _: usize,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _: Envoys,
    _: Ours,
    _: u64,
    _: *const Header,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _: Envoys,
    _: Ours,
    _: u64,
    _: *const Bytes,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _: Envoys,
    _: Ours,
    _: u64,
    _: *const Header,
    _: usize,
) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(_: Envoys, _: Ours, _: u64) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(_: Envoys, _: Ours, _: u64, _: u32) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(_: Envoys, _: Ours) {
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(_: Envoys, _: Ours) {}
