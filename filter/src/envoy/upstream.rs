//! One attempt at a backend, as an upstream filter.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, BufferType, MapType},
};

use super::hostcall;
use crate::{
    attempt::{AttemptPlan, Body, decide, renamed},
    body::rewrite::Edit,
    config::{Config, Stage},
};

pub struct Upstream {
    config: Rc<Config>,
    /// The edit of a body that is on its way.
    edit: Option<Edit>,
}

const HEADERS: MapType = MapType::HttpRequestHeaders;

// === impl Upstream ===

impl Upstream {
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, edit: None }
    }

    fn finish(&mut self) -> Action {
        if let Some(edit) = self.edit.take() {
            let body = hostcall::body(BufferType::HttpRequestBody);
            hostcall::set_body(BufferType::HttpRequestBody, &renamed(&body, edit));
        }
        Action::Continue
    }
}

impl Context for Upstream {}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        let Stage::Attempt(stage) = &self.config.stage else {
            return Action::Continue;
        };
        let Some(plan) = hostcall::property(&["tollgate_plan"]).and_then(|plan| AttemptPlan::decoded(&plan)) else {
            return Action::Continue;
        };
        let number = hostcall::number_property(&["upstream", "request_attempt_count"]).unwrap_or(1);
        let cluster = hostcall::text_property(&["xds", "cluster_name"]).unwrap_or_default();
        let Some(decision) = decide(&plan, stage, number, &cluster) else {
            return Action::Continue;
        };
        for name in decision.remove {
            hostcall::set_header(HEADERS, name, None);
        }
        hostcall::set_header(HEADERS, ":path", Some(&decision.path));
        if let Some(authority) = &decision.authority {
            hostcall::set_header(HEADERS, ":authority", Some(authority));
        }
        if let Some(target) = &decision.next_target {
            hostcall::set_state("target", target.as_bytes());
        }
        if hostcall::header(HEADERS, "content-length").is_some() {
            let length = decision.content_length.to_string();
            hostcall::set_header(HEADERS, "content-length", Some(&length));
        }
        match decision.body {
            Body::Rename { edit } if !end => {
                self.edit = Some(edit);
                Action::Pause
            }
            Body::Rename { .. } | Body::AsItIs => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, _: usize, end: bool) -> Action {
        match (&self.edit, end) {
            (Some(_), false) => Action::Pause,
            _ => self.finish(),
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.finish()
    }
}
