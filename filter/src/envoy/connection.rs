//! One connection of a client, as a network filter.

use std::rc::Rc;

use proxy_wasm::hostcalls;

use super::{
    hostcall::{self, EnvoyStream},
    with_vm,
};
use crate::{
    config::Config,
    exchange::Goes,
    stream::{Callback, Close, Connection},
};

pub struct Peer(Connection);

// === impl Peer ===

impl Peer {
    pub fn new(config: Rc<Config>) -> Self {
        Self(Connection::new(config))
    }

    pub fn on(&mut self, callback: Callback) -> Goes {
        let order = with_vm(|vm| self.0.on(callback, &EnvoyStream, &mut vm.worker)).unwrap_or(Some(Close));
        // Envoy does so when this callback has returned.
        if let Some(Close) = order {
            hostcall::ignore(hostcalls::close_downstream());
        }
        self.0.goes()
    }
}
