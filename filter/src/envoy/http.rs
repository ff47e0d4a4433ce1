//! One downstream stream. Its state is shared with the root, which goes on with it when the ledger has
//! answered.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, BufferType, MapType},
};

use super::{
    hostcall::{self, EnvoyShared, ResponseChunk},
    root, with_vm,
};
use crate::{
    config::{Config, Stage},
    exchange::{AnswerHead, Effect, Ending, Event, Exchange, Head, Origin},
};

pub struct Http(Rc<RefCell<Stream>>);

/// The exchange of a stream, with the configuration that it started under.
pub struct Stream {
    id: u32,
    config: Rc<Config>,
    exchange: Exchange,
    /// When the time was last of interest.
    now: u64,
}

/// A held request.
pub struct Waiter(Weak<RefCell<Stream>>);

/// `response.code_details` of an answer that came from a backend.
const VIA_UPSTREAM: &[u8] = b"via_upstream";
/// Response flag: the client closed the connection.
const DOWNSTREAM_LEFT: u64 = 0x4000;

// === impl Stream ===

impl Stream {
    fn step(&mut self, event: Event<'_>) {
        let Stage::Request(stage) = &self.config.stage else {
            return;
        };
        let exchange = std::mem::take(&mut self.exchange);
        if event.needs_time() {
            self.now = hostcall::now_ms();
        }
        let now = self.now;
        let stepped = with_vm(|vm| {
            let held = exchange.holds_tokens();
            let (exchange, effects) = exchange.step(event, &mut vm.worker.desk(stage, &EnvoyShared, now));
            match (held, exchange.holds_tokens()) {
                (false, true) => vm.worker.open += 1,
                (true, false) => vm.worker.open = vm.worker.open.saturating_sub(1),
                _ => {}
            }
            (exchange, effects)
        });
        let Some((exchange, effects)) = stepped else {
            return;
        };
        self.exchange = exchange;
        for effect in effects {
            apply(effect);
        }
    }
}

fn apply(effect: Effect) {
    match effect {
        Effect::RemoveRequestHeader(name) => hostcall::set_header(MapType::HttpRequestHeaders, &name, None),
        Effect::SetRequestHeader(name, value) => {
            hostcall::set_header(MapType::HttpRequestHeaders, name, Some(&value));
        }
        Effect::Target(cluster) => {
            hostcall::set_state("target", cluster.as_bytes());
            hostcall::ignore(hostcalls::call_foreign_function("clear_route_cache", None));
        }
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
        Effect::Ring => root::ring(),
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
    }
}

// === impl Http ===

impl Http {
    pub fn new(id: u32, config: Rc<Config>) -> Self {
        Self(Rc::new(RefCell::new(Stream { id, config, exchange: Exchange::New, now: 0 })))
    }

    /// Goes one step; answers whether the request is held.
    fn step(&self, event: Event<'_>) -> Action {
        // Only an answer of our own comes back in while a step is under way. No request goes on undecided.
        let Ok(mut stream) = self.0.try_borrow_mut() else {
            return Action::Pause;
        };
        let waited = stream.exchange.is_waiting();
        stream.step(event);
        if stream.exchange.is_waiting() && !waited {
            let waiter = Waiter(Rc::downgrade(&self.0));
            with_vm(|vm| vm.waiters.push(waiter));
        }
        if stream.exchange.holds_request() { Action::Pause } else { Action::Continue }
    }

    fn asks(&self, ask: impl FnOnce(&Exchange) -> bool) -> bool {
        self.0.try_borrow().is_ok_and(|stream| ask(&stream.exchange))
    }

    fn request_ends(&self) -> Action {
        if !self.asks(Exchange::is_reading) {
            return if self.asks(Exchange::holds_request) { Action::Pause } else { Action::Continue };
        }
        let body = hostcall::body(BufferType::HttpRequestBody);
        self.step(Event::RequestEnd { body: &body })
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        let headers = hostcall::headers(MapType::HttpRequestHeaders);
        let route = hostcall::text_property(&["xds", "route_name"]);
        self.step(Event::RequestHeaders { head: Head { headers: &headers, route: route.as_deref() }, end })
    }

    fn on_http_request_body(&mut self, _: usize, end: bool) -> Action {
        if end {
            return self.request_ends();
        }
        if self.asks(Exchange::holds_request) { Action::Pause } else { Action::Continue }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.request_ends()
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        let watched = self.asks(|exchange| exchange.holds_tokens() || exchange.is_reading());
        if watched {
            let headers = hostcall::headers(MapType::HttpResponseHeaders);
            let ok = headers.first().is_some_and(|(name, value)| name == ":status" && value.starts_with(b"2"));
            let from_backend =
                || hostcall::property(&["response", "code_details"]).is_some_and(|details| details == VIA_UPSTREAM);
            let origin = if ok || from_backend() { Origin::Backend } else { Origin::Envoy };
            self.step(Event::ResponseHeaders { head: AnswerHead { headers: &headers, origin }, end });
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.asks(Exchange::watches_answer) {
            self.step(Event::ResponseBody { chunk: &ResponseChunk { len: size }, end });
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if !self.asks(Exchange::is_open) {
            return;
        }
        let ending = if self.asks(Exchange::holds_tokens) {
            let flags = || hostcall::number_property(&["response", "flags"]).unwrap_or(0);
            Ending {
                cluster: self
                    .asks(Exchange::has_choice)
                    .then(|| hostcall::text_property(&["xds", "cluster_name"]))
                    .flatten(),
                left_working: self.asks(|exchange| matches!(exchange, Exchange::Sent(_)))
                    && flags() & DOWNSTREAM_LEFT != 0
                    && hostcall::text_property(&["upstream", "address"]).is_some(),
            }
        } else {
            Ending::default()
        };
        self.step(Event::Ended(ending));
    }
}

// === impl Waiter ===

impl Waiter {
    /// Goes on with a held request; true while it still waits.
    pub fn go_on(&self, event: Event<'_>) -> bool {
        let Some(stream) = self.0.upgrade() else {
            return false;
        };
        let Ok(mut stream) = stream.try_borrow_mut() else {
            return true;
        };
        if !stream.exchange.is_waiting() || hostcalls::set_effective_context(stream.id).is_err() {
            return false;
        }
        stream.step(event);
        stream.exchange.is_waiting()
    }
}
