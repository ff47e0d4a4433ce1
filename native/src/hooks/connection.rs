//! Hooks of a client's connection.

use tollgate_filter::{exchange::Goes, stream::Callback};

use super::{borrowed, given, guarded, http::new_id, taken_back};
use crate::{
    abi::{Bytes, Envoys, Header, Ours, goes},
    host::Peer,
    island,
    plugin::Member,
    stream::{Then, Turn},
};

/// What Envoy keeps of one connection.
struct Handle {
    island: usize,
    id: u64,
}

// === impl Handle ===

impl Handle {
    fn on(&self, callback: Callback, peer: Peer<'_>) -> Option<Turn> {
        island::at(self.island)?.with(|inner| inner.on_connection(self.id, callback, peer)).flatten()
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_new(config: Ours, filter: Envoys) -> Ours {
    guarded(std::ptr::null(), || {
        // SAFETY: Envoy has it from `configured` and has not destroyed it, and the filter is a new one of this thread.
        let (member, peer) = unsafe { (borrowed::<Member>(config), Peer::new(filter)) };
        let (island, id) = (island::of_worker(peer.worker()), new_id());
        if let Some(place) = island::at(island) {
            place.with(|inner| inner.open_connection(member.plugin.number, id));
        }
        given(Handle { island, id })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(filter: Envoys, ours: Ours) -> u32 {
    guarded(goes::NOWHERE, || {
        // SAFETY: Envoy gives what it has got for this object, and its filter to a hook of the same, on its thread.
        let (handle, peer) = unsafe { (borrowed::<Handle>(ours), Peer::new(filter)) };
        match handle.on(Callback::Connected, peer) {
            Some(Turn { goes: Goes::On, then: Then::Nothing, .. }) => goes::ON,
            // It is refused, or the filter cannot count it.
            _ => {
                peer.close();
                goes::NOWHERE
            }
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_read(_: Envoys, _: Ours, _: usize, _: bool) -> u32 {
    goes::ON
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_write(_: Envoys, _: Ours, _: usize, _: bool) -> u32 {
    goes::ON
}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_destroy(ours: Ours) {
    guarded((), || {
        // SAFETY: Envoy has it from the hook that made it and does not use it after this.
        let handle = unsafe { taken_back::<Handle>(ours) };
        // SAFETY: nothing is asked of the connection at its end.
        let peer = unsafe { Peer::new(std::ptr::null_mut()) };
        handle.on(Callback::Done, peer);
        if let Some(island) = island::at(handle.island) {
            island.with(|inner| inner.close(handle.id));
        }
    });
}

// Envoy asks for these, and they do nothing here.

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_event(_: Envoys, _: Ours, _: u32) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_http_callout_done(
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
pub extern "C" fn envoy_dynamic_module_on_network_filter_scheduled(_: Envoys, _: Ours, _: u64) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_above_write_buffer_high_watermark(_: Envoys, _: Ours) {}

#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_network_filter_below_write_buffer_low_watermark(_: Envoys, _: Ours) {}
