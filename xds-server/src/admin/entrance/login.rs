//! The login form, and the cookie of a session.
//!
//! The cookie has no `Path`, so a browser takes the folder of `/login`. Behind a proxy that adds a prefix, that is the
//! prefix. It goes to no other host, to no script, and not with what the pages of other sites ask for.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::sessions::LIFETIME;
use super::{Admin, Guarded, Problem};
use crate::admin::page;
use crate::web::Peer;

const LOGIN: &str = "/login";
const LOGOUT: &str = "/logout";
/// The paths that are for those who have not logged in.
pub(super) const PATHS: [&str; 2] = [LOGIN, LOGOUT];

const COOKIE: &str = "tollgate_session";
/// A form with the longest token, each character as three.
const MOST_BYTES: usize = 16 << 10;

/// The routes of the form.
pub(in crate::admin) fn router(guarded: Arc<Guarded>) -> Router<Admin> {
    Router::new()
        .route(LOGIN, get(async || page::login("")).post(log_in))
        .route(LOGOUT, post(log_out))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(Extension(guarded))
}

/// Leads a browser to the form, from this path.
pub(super) fn lead(path: &str) -> Response {
    let depth = path.matches('/').count().saturating_sub(1);
    see(&("../".repeat(depth) + "login"))
}

async fn log_in(
    Extension(guarded): Extension<Arc<Guarded>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    form: Bytes,
) -> Response {
    if is_of_another_page(&headers) {
        return foreign();
    }
    let shown = url::form_urlencoded::parse(&form).find(|(name, _)| name == "token");
    let shown = shown.map(|(_, token)| token.trim().to_owned()).unwrap_or_default();
    match guarded.show(shown.as_bytes(), super::address(peer.map(|Extension(peer)| peer))).await {
        Ok(token) => {
            let id = guarded.sessions().begin(token, Instant::now());
            with_cookie(see("./"), &headers, &id, LIFETIME.as_secs())
        }
        Err(refusal) => {
            let mut response = page::login(refusal.message());
            *response.status_mut() = refusal.status();
            refusal.mark(response.headers_mut());
            response
        }
    }
}

async fn log_out(Extension(guarded): Extension<Arc<Guarded>>, headers: HeaderMap) -> Response {
    if is_of_another_page(&headers) {
        return foreign();
    }
    if let Some(id) = session(&headers) {
        guarded.sessions().end(id);
    }
    with_cookie(see("login"), &headers, "", 0)
}

/// To a browser all ports of a host are one site, so `SameSite` does not keep their pages out.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

fn foreign() -> Response {
    let hint = "open the admin page itself and log in or out there";
    Problem::refused(StatusCode::FORBIDDEN, "this form was sent by another page", hint).into_response()
}

fn see(location: &str) -> Response {
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("login"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

fn with_cookie(mut response: Response, headers: &HeaderMap, id: &str, seconds: u64) -> Response {
    // A proxy that speaks TLS to the browser says so.
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={id}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The session of a request, by its cookie.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, id)| id)
}
