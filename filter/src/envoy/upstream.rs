//! One attempt at a backend, as an upstream filter.

use std::rc::Rc;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, MapType},
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

    pub fn on(&mut self, callback: Callback) -> Goes {
        self.0.on(callback, &EnvoyStream).into_iter().for_each(apply);
        self.0.request_goes()
    }
}
