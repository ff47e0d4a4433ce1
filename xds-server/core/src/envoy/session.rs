//! Sessions: Envoy's own filter. A route that keeps sessions turns it on for its requests. So a route that gets sessions
//! changes no listener.

use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3::Cookie;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::Session;

use super::route_table::Form;
use super::scope::turned_on;
use super::wire::{any, duration, extension};

pub const FILTER: &str = "envoy.filters.http.stateful_session";

pub fn filter(form: Form) -> HttpFilter {
    turned_on(form, FILTER, &StatefulSession::default())
}

/// An endpoint that is gone is replaced by another one, and the client is told of it.
pub fn of_route(session: &Session) -> Any {
    let state = match session {
        Session::Cookie { name, path, lifetime } => {
            let cookie = Cookie {
                name: name.clone(),
                path: path.clone(),
                ttl: lifetime.and_then(duration),
                ..Default::default()
            };
            extension("envoy.http.stateful_session.cookie", &CookieBasedSessionState { cookie: Some(cookie) })
        }
        Session::Header { name } => {
            extension("envoy.http.stateful_session.header", &HeaderBasedSessionState { name: name.clone() })
        }
    };
    let session = StatefulSession { session_state: Some(state), ..Default::default() };
    any(&StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) })
}
