//! Where a Pod gets its certificate: by the token of its own service account, for a key that never leaves the Pod.
//!
//! ```text
//! POST /v1/certificate  authorization: Bearer <token>, body: a signing request (PEM)
//!   -> TokenReview (whose Pod is it?) -> whose proxies have this service account? -> a certificate (PEM) for that Gateway
//! ```
//! The port is under TLS with the control plane's certificate, and asks for none. What a Pod asks for in its request does
//! not count. Its service account alone says which Gateway it is of, so who can run Pods in one namespace gets no
//! certificate for a Gateway of another.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use rcgen::Error as CertificateError;
use tokio::sync::{Semaphore, watch};
use tollgate_core::fleet::TOKEN_AUDIENCE;
use tollgate_core::objects::Key;

use super::pki::{CurrentAuthority, Leaf};
use crate::audit::{Audit, Event};
use crate::identity::Identity;
use crate::pipeline::Published;

pub const PATH: &str = "/v1/certificate";
/// A signing request has some hundred bytes, and a token about a thousand.
const MAX_BODY: usize = 16 << 10;
const MAX_TOKEN: usize = 16 << 10;
/// Each question costs the API server a signature, so not many are asked at once, whoever asks.
const AT_ONCE: usize = 16;
/// What the API server says of an account.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Signs for Pods.
pub struct Signer {
    pub client: Client,
    pub authority: CurrentAuthority,
    pub lifetime: Duration,
    pub published: watch::Receiver<Arc<Published>>,
    /// The service account of the proxies that serve all Gateways. If there are such, no others are certified.
    pub fleet: Option<Key>,
    audit: Audit,
    questions: Semaphore,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no token (authorization: Bearer TOKEN)")]
    NoToken,
    #[error("the token is not valid, or not for the audience {TOKEN_AUDIENCE}")]
    InvalidToken,
    #[error("the token is of no service account")]
    NoAccount,
    #[error("the service account {0} is of no Gateway's proxies")]
    Unknown(Key),
    #[error("the body is no signing request that its own key has signed: {0}")]
    Request(CertificateError),
    #[error("the API server cannot be asked whose the token is: {0}")]
    NoReview(String),
    #[error("too many ask at once")]
    Busy,
}

// === impl Signer ===

impl Signer {
    pub fn new(
        client: Client,
        authority: CurrentAuthority,
        lifetime: Duration,
        published: watch::Receiver<Arc<Published>>,
        fleet: Option<Key>,
        audit: Audit,
    ) -> Self {
        Self { client, authority, lifetime, published, fleet, audit, questions: Semaphore::new(AT_ONCE) }
    }

    pub fn router(self) -> Router {
        Router::new().route(PATH, post(answer)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(Arc::new(self))
    }

    async fn sign(&self, headers: &HeaderMap, request: &str) -> Result<String, Refused> {
        let account = self.account(token(headers).ok_or(Refused::NoToken)?).await?;
        let identity = self.identity(&account).ok_or_else(|| Refused::Unknown(account.clone()))?;
        let signed =
            self.authority.get().sign(request, Leaf::Proxy(&identity), self.lifetime).map_err(Refused::Request)?;
        let (issued, to) = (identity.to_string(), account.to_string());
        self.audit.record(Event::CertificateIssued { identity: &issued, account: &to });
        tracing::info!(%identity, %account, "a proxy has a new certificate");
        Ok(signed)
    }

    /// Whose the token is.
    async fn account(&self, token: &str) -> Result<Key, Refused> {
        let _turn = self.questions.try_acquire().map_err(|_| Refused::Busy)?;
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]), token: Some(token.to_owned()) },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| Refused::NoReview(error.to_string()))?.status.unwrap_or_default();
        let is_for_us = status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE);
        if status.authenticated != Some(true) || !is_for_us {
            return Err(Refused::InvalidToken);
        }
        let user = status.user.and_then(|user| user.username).unwrap_or_default();
        account_of(&user).ok_or(Refused::NoAccount)
    }

    fn identity(&self, account: &Key) -> Option<Identity> {
        if let Some(fleet) = &self.fleet {
            return (fleet == account).then_some(Identity::AllGateways);
        }
        let published = Arc::clone(&self.published.borrow());
        let gateway = published.gateway_of_account(account)?;
        Some(Identity::of_gateway(&gateway.namespace, &gateway.name))
    }
}

async fn answer(State(signer): State<Arc<Signer>>, headers: HeaderMap, request: String) -> (StatusCode, String) {
    match signer.sign(&headers, &request).await {
        Ok(certificate) => (StatusCode::OK, certificate),
        Err(refused) => {
            signer.audit.record(Event::CertificateRefused { reason: &refused.to_string() });
            tracing::warn!("a certificate is refused: {refused}");
            (refused.status(), format!("{refused}\n"))
        }
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?.trim();
    (1..=MAX_TOKEN).contains(&token.len()).then_some(token)
}

fn account_of(user: &str) -> Option<Key> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    Some(Key::new(namespace, name))
}

// === impl Refused ===

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::NoAccount | Self::Unknown(_) => StatusCode::FORBIDDEN,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::NoReview(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_told_by_the_users_name() {
        assert_eq!(account_of("system:serviceaccount:team:llm-tollgate"), Some(Key::new("team", "llm-tollgate")));
        for other in ["system:node:a", "admin", "system:serviceaccount:team", ""] {
            assert_eq!(account_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_a_bearers_and_not_too_long() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(of(&format!("Bearer {}", "x".repeat(MAX_TOKEN))).map(|token| token.len()), Some(MAX_TOKEN));
        for bad in ["", "Bearer ", "Basic abc", "abc", &format!("Bearer {}", "x".repeat(MAX_TOKEN + 1))] {
            assert_eq!(of(bad), None, "{bad:.20}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
