//! Session persistence of a rule (GEP-1619): which part of a request says to which session it belongs.

use std::time::Duration;

use gateway_api::apis::experimental::httproutes::{
    HttpRouteRulesSessionPersistence as Given,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as LifetimeType,
    HttpRouteRulesSessionPersistenceType as Type,
};
use sha2::{Digest as _, Sha256};

use crate::ir::{PathMatch, Session};
use crate::objects::parse_duration;

/// What Envoy cannot do.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Within `sessionPersistence`.
    pub field: &'static str,
    pub message: &'static str,
    pub hint: &'static str,
}

/// The session of requests with this path. `rule` names the rule for good, and is no name of another one.
///
/// # Errors
/// When its author would get something else than what was asked for.
pub fn session(given: &Given, rule: &str, path: &PathMatch) -> Result<Session, Unusable> {
    let name = given.session_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name_of(rule));
    if given.idle_timeout.is_some() {
        return Err(Unusable {
            field: ".idleTimeout",
            message: "no session ends because nobody uses it",
            hint: "absoluteTimeout, with a permanent cookie",
        });
    }
    let timeout = given.absolute_timeout.as_deref().and_then(|text| parse_duration(text).ok());
    match given.r#type {
        Some(Type::Header) if timeout.is_some() => Err(Unusable {
            field: ".absoluteTimeout",
            message: "a session by a header has no end",
            hint: "type: Cookie, lifetimeType: Permanent",
        }),
        Some(Type::Header) => Ok(Session::Header { name }),
        Some(Type::Cookie) | None => {
            let lifetime_type = given.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type.as_ref());
            let is_permanent = lifetime_type == Some(&LifetimeType::Permanent);
            if timeout.is_some() && !is_permanent {
                // Envoy says the end of a session in the cookie, and then it is a permanent one.
                return Err(Unusable {
                    field: ".absoluteTimeout",
                    message: "a session of a cookie that ends with the client's session has no other end",
                    hint: "lifetimeType: Permanent",
                });
            }
            Ok(Session::Cookie { name, path: path_of(path), lifetime: timeout.map(in_seconds) })
        }
    }
}

/// A cookie's age is in whole seconds, and one without any ends at once.
fn in_seconds(timeout: Duration) -> Duration {
    Duration::from_secs(timeout.as_secs().max(1))
}

fn name_of(rule: &str) -> String {
    let hash = hex::encode(Sha256::digest(rule.as_bytes()));
    format!("tollgate-session-{}", hash.get(..8).unwrap_or_default())
}

/// The paths of a rule, as far as a cookie can name them.
fn path_of(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(_) | PathMatch::Call { .. } => "/".to_owned(),
    }
}
