//! Whether there still is the Gateway that a proxy's certificate is for. A certificate may be valid for a day after its
//! Gateway was deleted, but no call is served any more.
//!
//! Calls are refused here. Discovery streams are long, so `ads.rs` ends them when their Gateway goes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;
use tonic::Status;

use crate::identity::{Caller, Identity};
use crate::pipeline::Published;

/// Checks every call except discovery.
pub async fn check(State(published): State<watch::Receiver<Arc<Published>>>, request: Request, next: Next) -> Response {
    let status = match request.extensions().get::<Caller>() {
        Some(Caller::Proxy(identity)) if published.borrow().knows(identity) => None,
        Some(Caller::Proxy(identity)) => Some(gone(identity)),
        Some(Caller::Replica) => Some(Status::permission_denied("this is for proxies")),
        None => Some(Status::unauthenticated("no client certificate")),
    };
    match status {
        None => next.run(request).await,
        Some(status) if is_grpc(request.headers()) => status.into_http(),
        Some(status) => (StatusCode::FORBIDDEN, status.message().to_owned()).into_response(),
    }
}

/// What a proxy without a Gateway is told.
pub fn gone(identity: &Identity) -> Status {
    Status::permission_denied(format!("there is no Gateway (any more) for the client certificate {identity}"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
