//! Whether a member of the mesh may ask for what it asks for. Its certificate names an account, and each call names a
//! workload in its metadata. The account must be one that the workload's Pods run as.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::watch;
use tollgate_core::scope::Scope;
use tonic::Status;

use super::super::standing;
use crate::audit::Audit;
use crate::identity::{Caller, Identity, Member};
use crate::pipeline::Published;

/// The metadata that names the workload: `workload/<namespace>/<name>/inbound`.
pub const SCOPE: &str = "tollgate-scope";

/// From here on the caller is the proxy of that workload. The account stays known, because a long stream is looked at
/// again (`standing.rs`).
pub async fn check(
    State((published, audit)): State<(watch::Receiver<Arc<Published>>, Audit)>,
    mut request: Request,
    next: Next,
) -> Response {
    let claimed = claim(&published.borrow(), &request);
    match claimed {
        Ok((member, scope)) => {
            request.extensions_mut().insert(Caller::Proxy(Identity::Of(scope)));
            request.extensions_mut().insert(member);
            next.run(request).await
        }
        Err(status) => {
            tracing::debug!(%status, "a member of the mesh is refused");
            if let Some(Caller::Member(member)) = request.extensions().get() {
                audit.refused(&member.to_string(), status.message());
            }
            standing::refuse(request.headers(), status)
        }
    }
}

fn claim(published: &Published, request: &Request) -> Result<(Member, Scope), Status> {
    let Some(Caller::Member(member)) = request.extensions().get() else {
        return Err(Status::unauthenticated("no client certificate of the mesh"));
    };
    let scope = scope(request.headers())?;
    if !published.may_speak(member.as_str(), &scope) {
        return Err(standing::may_not_speak(member, &scope));
    }
    Ok((member.clone(), scope))
}

/// One workload is named. What could be read in two ways is refused.
fn scope(headers: &HeaderMap) -> Result<Scope, Status> {
    let mut values = headers.get_all(SCOPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Status::permission_denied(format!("the metadata {SCOPE} must name one workload")));
    };
    match value.to_str().ok().map(str::parse) {
        Some(Ok(scope @ Scope::Workload { .. })) => Ok(scope),
        Some(Ok(Scope::Gateway(_))) => {
            Err(Status::permission_denied(format!("the metadata {SCOPE} names a Gateway, and this is for workloads")))
        }
        Some(Err(_)) | None => Err(Status::permission_denied(format!(
            "the metadata {SCOPE} names no workload (workload/<namespace>/<name>/inbound)"
        ))),
    }
}
