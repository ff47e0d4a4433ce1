//! One attempt at a backend, as an upstream filter.

use std::rc::Rc;

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, BufferType, MapType},
};

use super::hostcall::{self, EnvoyStream};
use crate::{
    config::Config,
    exchange::Goes,
    stream::{Callback, Order, Upstream},
};

pub struct Attempt(Upstream);

const HEADERS: MapType = MapType::HttpRequestHeaders;

fn apply(order: Order) {
    match order {
        Order::RemoveHeader(name) => hostcall::set_header(HEADERS, name, None),
        Order::SetHeader(name, value) => hostcall::set_header(HEADERS, name, Some(&value)),
        Order::Target(cluster) => hostcall::set_state("target", cluster.as_bytes()),
        Order::Body(body) => hostcall::set_body(BufferType::HttpRequestBody, &body),
        Order::Failures(failures) => hostcall::set_state("tollgate_failures", &failures),
        Order::End { status } => hostcall::ignore(hostcalls::send_http_response(status, Vec::new(), None)),
    }
}

// === impl Attempt ===

impl Attempt {
    pub fn new(config: Rc<Config>) -> Self {
        Self(Upstream::new(config))
    }

    fn on(&mut self, callback: Callback) -> Action {
        self.0.on(callback, &EnvoyStream).into_iter().for_each(apply);
        match self.0.request_goes() {
            Goes::On => Action::Continue,
            Goes::Nowhere => Action::Pause,
        }
    }
}

impl Context for Attempt {
    /// Upstream filters get no `on_log`.
    fn on_done(&mut self) -> bool {
        self.on(Callback::Log);
        true
    }
}

impl HttpContext for Attempt {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        self.on(Callback::RequestHeaders { end })
    }

    fn on_http_request_body(&mut self, _: usize, end: bool) -> Action {
        self.on(Callback::RequestBody { end })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.on(Callback::RequestTrailers)
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        self.on(Callback::AnswerHeaders { end });
        Action::Continue
    }
}
