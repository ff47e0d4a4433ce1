//! Protects this port from web pages of others that reach it through an operator's browser.
//!
//! DNS rebinding needs a name of the attacker in `Host`. So the admin port answers only to addresses and to names that
//! nobody else can own. This holds for every path, because metrics name consumers and models, and probes name Gateways.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

pub(super) async fn guard(request: Request, next: Next) -> Response {
    // Every given name is checked, and a name that cannot be read is refused. A browser always gives a name. A request
    // without one comes from a script.
    let hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut names = hosts.chain(request.uri().authority().map(Authority::as_str));
    if names.all(ours) {
        return next.run(request).await;
    }
    let hint = "this name could be anybody's: use the address, localhost or the Service's name in the cluster\n";
    (StatusCode::MISDIRECTED_REQUEST, hint).into_response()
}

/// Adds security headers to every answer. The page sets a content policy of its own.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = headers.entry(header::CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

fn ours(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => {
            return v6.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
        }
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || [".localhost", ".svc", ".svc.cluster.local"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_own() {
        for host in [
            "127.0.0.1:19000",
            "10.1.2.3",
            "[::1]:19000",
            "localhost:1",
            "LOCALHOST",
            "a.localhost",
            "tollgate.ns.svc:8080",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:19000", "localhost.evil.example", "[evil]", "evil.svc.example", ""]
        {
            assert!(!ours(host), "{host}");
        }
    }
}
