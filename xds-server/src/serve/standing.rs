//! Whether a caller still may have what it asks for. A certificate may be valid for a day after its Gateway was deleted,
//! but no call is served any more. Nor is one for a workload, once no Pod of it runs as the caller's account.
//!
//! Calls are refused here. Discovery streams are long, so `ads.rs` ends them when their claim ends.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;
use tollgate_core::scope::Scope;
use tonic::Status;

use crate::audit::Audit;
use crate::identity::{Caller, Identity, Member};
use crate::pipeline::{Edition, Published};

/// Whom a proxy is for, and what it shows for that.
#[derive(Debug, Clone)]
pub struct Claim {
    pub identity: Identity,
    shown: Shown,
}

#[derive(Debug, Clone)]
enum Shown {
    /// A certificate of ours, which names what it is for.
    Certificate,
    /// A certificate of the mesh, which names an account.
    Account(Member),
}

/// Checks every call except discovery.
pub async fn check(
    State((published, audit)): State<(watch::Receiver<Arc<Published>>, Audit)>,
    request: Request,
    next: Next,
) -> Response {
    let status = match request.extensions().get::<Caller>() {
        Some(Caller::Proxy(identity)) if published.borrow().knows(identity) => None,
        Some(Caller::Proxy(identity)) => {
            let status = gone(identity);
            audit.refused(&identity.to_string(), status.message());
            Some(status)
        }
        Some(Caller::Member(_) | Caller::Replica) => Some(Status::permission_denied("this is for proxies")),
        None => Some(Status::unauthenticated("no client certificate")),
    };
    match status {
        None => next.run(request).await,
        Some(status) => refuse(request.headers(), status),
    }
}

/// The answer to a call with these headers.
pub fn refuse(headers: &HeaderMap, status: Status) -> Response {
    if is_grpc(headers) {
        status.into_http()
    } else {
        (StatusCode::FORBIDDEN, status.message().to_owned()).into_response()
    }
}

/// What an account is told that may not speak for a workload. Whether there is such a workload is not said.
pub fn may_not_speak(member: &Member, scope: &Scope) -> Status {
    Status::permission_denied(format!("no Pod of {scope} that has a policy runs (any more) as the account {member}"))
}

/// What a proxy without a Gateway is told.
fn gone(identity: &Identity) -> Status {
    Status::permission_denied(format!("there is no Gateway (any more) for the client certificate {identity}"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

// === impl Claim ===

impl Claim {
    /// None: the request did not come over a connection of a proxy.
    pub fn of_extensions(extensions: &Extensions) -> Option<Self> {
        let identity = Identity::of_extensions(extensions)?.clone();
        let shown = extensions.get().cloned().map_or(Shown::Certificate, Shown::Account);
        Some(Self { identity, shown })
    }

    /// Whether what it is for is there, and it may speak for that.
    pub fn stands(&self, published: &Published) -> bool {
        match (&self.shown, self.identity.scope()) {
            (Shown::Certificate, _) => published.knows(&self.identity),
            (Shown::Account(member), Some(scope)) => published.may_speak(member.as_str(), scope),
            (Shown::Account(_), None) => false,
        }
    }

    /// What the proxy may have: nothing if the claim does not stand.
    pub fn edition(&self, published: &Published) -> Arc<Edition> {
        if self.stands(published) { published.of(&self.identity) } else { Arc::default() }
    }

    /// What the proxy is told when the claim does not stand.
    pub fn refusal(&self, audit: &Audit) -> Status {
        let (who, status) = match (&self.shown, self.identity.scope()) {
            (Shown::Account(member), Some(scope)) => (member.to_string(), may_not_speak(member, scope)),
            (Shown::Account(_), None) | (Shown::Certificate, _) => (self.identity.to_string(), gone(&self.identity)),
        };
        audit.refused(&who, status.message());
        status
    }
}
