//! Who may use the admin port. Without a token everybody who reaches it. With one whoever shows it: in a header, or once
//! in the login form, for which he gets a session.
//!
//! ```text
//! request -> probe?  -> answered, by a name that is ours
//!         -> cookie  -> session     -> answered
//!         -> bearer  -> tries left? -> token -> answered, or 401
//!         -> a browser is led to the form, all others get 401
//! ```
//! All comparisons are of SHA-256 hashes, and take the same time whatever is compared.

mod login;
mod sessions;
mod token;
mod tries;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

pub(super) use self::login::router;
use self::sessions::Sessions;
use self::token::Hash;
pub use self::token::TokenFile;
use self::tries::Tries;
use super::api::Problem;
use super::{Admin, guard};
use crate::web::Peer;

/// Who may use the port.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// Everybody who reaches it.
    Open,
    Token(Arc<Guarded>),
}

/// What lets somebody in.
#[derive(Debug)]
pub struct Guarded {
    token: TokenFile,
    sessions: Mutex<Sessions>,
    tries: Mutex<Tries>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// He has shown nothing.
    Nothing,
    WrongToken,
    /// He may try again after so many seconds.
    TooManyTries(u64),
}

/// The paths that need no token: probes say whether this process works.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Lets a request through, or refuses it.
pub(super) async fn admit(State(entrance): State<Entrance>, request: Request, next: Next) -> Response {
    let guarded = match &entrance {
        // A name of somebody else shows that his web page asks, through an operator's browser.
        Entrance::Open => return guard::guard(request, next).await,
        Entrance::Token(_) if PROBES.contains(&request.uri().path()) => return guard::guard(request, next).await,
        // Such a page has neither the token nor the cookie, so the port may have any name.
        Entrance::Token(guarded) => guarded,
    };
    if login::PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = address(request.extensions().get().copied());
    match guarded.check(request.headers(), peer).await {
        Ok(()) => next.run(request).await,
        Err(Refusal::Nothing) if is_for_a_person(&request) => login::lead(request.uri().path()),
        Err(refusal) => refusal.into_response(),
    }
}

/// Of a browser that opens a page.
fn is_for_a_person(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    request.method() == Method::GET && accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The token of a header. The scheme is in any case, and another one is not for us.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

/// Where a request comes from.
fn address(peer: Option<Peer>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| address)
}

// === impl Entrance ===

impl Entrance {
    pub fn by(token: TokenFile) -> Self {
        Self::Token(Arc::new(Guarded { token, sessions: Mutex::default(), tries: Mutex::default() }))
    }
}

// === impl Guarded ===

impl Guarded {
    /// A session comes first: a proxy in front may have put a header of its own beside its cookie.
    async fn check(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), Refusal> {
        if let Some(session) = login::session(headers) {
            // Whoever changes the token ends its sessions.
            let token = self.token.hash().await;
            if self.sessions().has(session, token, Instant::now()) {
                return Ok(());
            }
        }
        match headers.get(header::AUTHORIZATION).and_then(bearer) {
            Some(token) => self.show(token, peer).await.map(|_right| ()),
            None => Err(Refusal::Nothing),
        }
    }

    /// Somebody shows this as the token. Returns its hash if it is right.
    async fn show(&self, shown: &[u8], peer: IpAddr) -> Result<Hash, Refusal> {
        let token = self.token.hash().await;
        // Under one lock, so that many tries at once are not more than one after the other.
        let mut tries = self.tries();
        if let Some(seconds) = tries.wait(peer, Instant::now()) {
            return Err(Refusal::TooManyTries(seconds));
        }
        if token == Hash::of(shown) {
            return Ok(token);
        }
        tries.failed(peer, Instant::now());
        Err(Refusal::WrongToken)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Refusal ===

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::Nothing | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooManyTries(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Nothing => "the admin API wants its token",
            Self::WrongToken => "this is not the token of the admin API",
            Self::TooManyTries(_) => "too many wrong tokens came from this address",
        }
    }

    /// Adds what the status asks for.
    fn mark(self, headers: &mut HeaderMap) {
        match self {
            Self::Nothing => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tollgate\""));
            }
            Self::WrongToken => {
                let wrong = "Bearer realm=\"tollgate\", error=\"invalid_token\"";
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(wrong));
            }
            Self::TooManyTries(seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let hint = match self {
            Self::Nothing | Self::WrongToken => {
                "send it as `authorization: Bearer TOKEN`; tollgate's commands take --admin-token-file or \
                 TOLLGATE_ADMIN_TOKEN, and people log in at /login"
            }
            Self::TooManyTries(_) => "try again after the seconds of retry-after",
        };
        let mut response = Problem::refused(self.status(), self.message(), hint).into_response();
        self.mark(response.headers_mut());
        response
    }
}
