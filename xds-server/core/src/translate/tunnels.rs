//! Tunnels of the listeners that pass connections on as a whole: one for each name that a client may ask for.

use std::sync::Arc;

use crate::ir::{Gateway, Tunnels};
use crate::objects::Key;

use super::gateways::sites;
use super::hostname::covers;
use super::hosts::more_specific;
use super::listener::OpenListener;
use super::listeners::OpenListeners;
use super::tls_routes::AttachedTlsRoute;

/// Puts the tunnels into a Gateway. `routes` are in order of their names; those that are attached elsewhere do not matter.
pub fn open(gateway: &mut Gateway, open: &OpenListeners, routes: &[(&Key, &Arc<AttachedTlsRoute>)]) {
    let key = gateway.origin.key();
    for (site, listener) in sites(gateway, open) {
        if site.tunnels.is_some() {
            site.tunnels = Some(tunnels(&key, (listener, open), routes));
        }
    }
}

/// Of several routes for one name the oldest counts, then the first by name. A name that a more specific listener has is
/// not among them, and the listener's own is, because it belongs to no other listener.
fn tunnels(
    gateway: &Key,
    (listener, open): (&OpenListener, &OpenListeners),
    routes: &[(&Key, &Arc<AttachedTlsRoute>)],
) -> Tunnels {
    let elsewhere = more_specific(listener, open);
    let mut oldest_first = routes.to_vec();
    oldest_first.sort_by_key(|(key, route)| (route.created, *key));
    let mut tunnels = Tunnels::new();
    for (_, route) in oldest_first {
        let here =
            route.attachments.iter().filter(|place| place.gateway == *gateway && place.listener == listener.name);
        for domain in here.flat_map(|place| &place.hostnames) {
            if !elsewhere.iter().any(|other| covers(other, domain)) {
                tunnels.entry(domain.clone()).or_insert_with(|| Some(Arc::clone(&route.tunnel)));
            }
        }
    }
    tunnels.entry(listener.hostname.clone()).or_default();
    tunnels
}
