//! The streams and connections of all stages, as one kind of context. To every type that is a context, the SDK gives a
//! method for each host call there is. Each further type would make the filter 10 KB larger.

use proxy_wasm::{
    traits::{Context, HttpContext, StreamContext},
    types::Action,
};

use super::{connection::Peer, http::Http, upstream::Attempt};
use crate::{exchange::Goes, stream::Callback};

pub enum AnyStream {
    Downstream(Http),
    Upstream(Attempt),
    Connection(Peer),
}

// === impl AnyStream ===

impl AnyStream {
    fn on(&mut self, callback: Callback) -> Action {
        let goes = match self {
            Self::Downstream(stream) => stream.on(callback),
            Self::Upstream(attempt) => attempt.on(callback),
            Self::Connection(peer) => peer.on(callback),
        };
        match goes {
            Goes::On => Action::Continue,
            Goes::Nowhere => Action::Pause,
        }
    }
}

impl Context for AnyStream {
    fn on_done(&mut self) -> bool {
        self.on(Callback::Done);
        true
    }
}

impl StreamContext for AnyStream {
    fn on_new_connection(&mut self) -> Action {
        self.on(Callback::Connected)
    }
}

impl HttpContext for AnyStream {
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

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.on(Callback::AnswerBody { size, end });
        Action::Continue
    }

    fn on_log(&mut self) {
        self.on(Callback::Log);
    }
}
