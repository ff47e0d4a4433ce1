//! One downstream stream. Its state is shared with the root, which lets it go on when the ledger has answered.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use proxy_wasm::{
    hostcalls,
    types::{BufferType, MapType},
};

use super::{
    hostcall::{self, EnvoyShared, EnvoyStream},
    with_vm,
};
use crate::{
    config::Config,
    exchange::{Effect, Goes, Wants},
    stream::{Callback, Downstream},
};

pub struct Http(Rc<RefCell<Stream>>);

struct Stream {
    id: u32,
    downstream: Downstream,
}

/// A held request.
pub struct Waiter(Weak<RefCell<Stream>>);

fn apply(effect: Effect) {
    match effect {
        Effect::RemoveRequestHeader(name) => hostcall::set_header(MapType::HttpRequestHeaders, &name, None),
        Effect::SetRequestHeader(name, value) => {
            hostcall::set_header(MapType::HttpRequestHeaders, name, Some(&value));
        }
        Effect::Target(cluster) => hostcall::set_state("target", cluster.as_bytes()),
        Effect::Plan(plan) => hostcall::set_state("tollgate_plan", &plan),
        // Not as headers: Envoy would look for the route of the backend's path.
        Effect::Rewrite { path, authority } => {
            for (name, value) in [("path", path), ("authority", authority)] {
                if let Some(value) = value {
                    hostcall::set_state(name, value.as_bytes());
                }
            }
        }
        Effect::RequestBody(body) => hostcall::set_body(BufferType::HttpRequestBody, &body),
        Effect::Ring => ring(),
        Effect::Resume => hostcall::ignore(hostcalls::resume_http_request()),
        Effect::Reply { status, headers, body } => {
            let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            hostcall::ignore(hostcalls::send_http_response(status, headers, Some(&body)));
        }
        Effect::RemoveResponseHeader(name) => hostcall::set_header(MapType::HttpResponseHeaders, &name, None),
        Effect::SetResponseHeader(name, value) => {
            hostcall::set_header(MapType::HttpResponseHeaders, name, Some(&value));
        }
        Effect::ResponseBody(body) => hostcall::set_body(BufferType::HttpResponseBody, &body),
        Effect::Field(name, value) => hostcall::set_state(name, value.as_bytes()),
    }
}

fn ring() {
    if let Some(bell) = with_vm(|vm| vm.bell).flatten() {
        hostcall::ignore(hostcalls::enqueue_shared_queue(bell, Some(b"!")));
    }
}

// === impl Stream ===

impl Stream {
    fn on(&mut self, callback: Callback) -> Goes {
        let host = EnvoyStream;
        let effects =
            with_vm(|vm| self.downstream.on(callback, &host, &EnvoyShared, &mut vm.worker, &hostcall::now_ms));
        match effects {
            Some(effects) => {
                effects.into_iter().for_each(apply);
                self.downstream.request_goes()
            }
            // No request goes on undecided.
            None => Goes::Nowhere,
        }
    }
}

// === impl Http ===

impl Http {
    pub fn new(id: u32, config: Rc<Config>) -> Self {
        Self(Rc::new(RefCell::new(Stream { id, downstream: Downstream::new(config) })))
    }

    pub fn on(&self, callback: Callback) -> Goes {
        // Only an answer of our own comes back in while a step is under way. No request goes on undecided.
        let Ok(mut stream) = self.0.try_borrow_mut() else {
            return Goes::Nowhere;
        };
        let goes = stream.on(callback);
        if stream.downstream.wants() == Wants::Ledger {
            let waiter = Waiter(Rc::downgrade(&self.0));
            with_vm(|vm| vm.waiters.push(waiter));
        }
        goes
    }
}

// === impl Waiter ===

impl Waiter {
    /// Goes on with a held request; true while it still waits.
    pub fn go_on(&self, callback: Callback) -> bool {
        let Some(stream) = self.0.upgrade() else {
            return false;
        };
        let Ok(mut stream) = stream.try_borrow_mut() else {
            return true;
        };
        if stream.downstream.wants() != Wants::Ledger || hostcalls::set_effective_context(stream.id).is_err() {
            return false;
        }
        stream.on(callback);
        stream.downstream.wants() == Wants::Ledger
    }
}
