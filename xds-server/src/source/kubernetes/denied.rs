//! Requests that the API server denied, counted where all of them pass: between kube's client and the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{Method, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

/// Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Denied(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    /// As rules of RBAC name it: `secrets`, `gateways.gateway.networking.k8s.io`, `gateways.gateway.networking.k8s.io/status`.
    resource: String,
    code: u16,
}

/// What stands around a connection.
#[derive(Debug, Clone)]
pub struct Counting<S> {
    inner: S,
    denied: Denied,
}

// === impl Denied ===

impl Denied {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests that the API server denied (401, 403), by verb and resource";
        registry.register("api_requests_denied", help, self.0.clone());
    }

    pub fn count(&self, verb: &'static str, resource: String, code: u16) {
        self.0.get_or_create(&Labels { verb, resource, code }).inc();
    }
}

impl<S> Layer<S> for Denied {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, denied: self.clone() }
    }
}

// === impl Counting ===

impl<S, A, B> Service<Request<A>> for Counting<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let asked = asked(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let denied = self.denied.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let code = answer.status().as_u16();
            if matches!(code, 401 | 403) {
                let (verb, resource) = asked;
                denied.count(verb, resource, code);
            }
            Ok(answer)
        })
    }
}

/// The verb and the resource, as rules of RBAC name them. No names of objects are in it, so there are as many as kinds that
/// we ask for.
fn asked(method: &Method, path: &str, query: &str) -> (&'static str, String) {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    let group = match parts.next() {
        Some("api") => "",
        Some("apis") => parts.next().unwrap_or_default(),
        _ => return (verb(method, true, query), "other".to_owned()),
    };
    let _version = parts.next();
    // What stands below a namespace; a Namespace itself is a resource too.
    let mut rest: Vec<&str> = parts.collect();
    if let ["namespaces", _, _, ..] = rest.as_slice() {
        rest.drain(..2);
    }
    let (resource, is_named, part) = match rest.as_slice() {
        [] => ("other", false, None),
        [resource] => (*resource, false, None),
        [resource, _] => (*resource, true, None),
        [resource, _, part, ..] => (*resource, true, Some(*part)),
    };
    let mut text = resource.to_owned();
    if !group.is_empty() {
        text.extend([".", group]);
    }
    if let Some(part) = part {
        text.extend(["/", part]);
    }
    (verb(method, is_named, query), text)
}

fn verb(method: &Method, is_named: bool, query: &str) -> &'static str {
    let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
    match (method.as_str(), is_named) {
        ("GET", _) if watches => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn verbs_and_resources_are_those_of_rbac() {
        for (method, path, query, verb, resource) in [
            (Method::GET, "/api/v1/secrets", "limit=500", "list", "secrets"),
            (Method::GET, "/api/v1/secrets", "&watch=true&resourceVersion=1", "watch", "secrets"),
            (Method::GET, "/api/v1/namespaces/shop/secrets/key", "", "get", "secrets"),
            (Method::GET, "/api/v1/namespaces", "", "list", "namespaces"),
            (Method::GET, "/api/v1/namespaces/shop", "", "get", "namespaces"),
            (
                Method::PATCH,
                "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/llm/status",
                "",
                "patch",
                "gateways.gateway.networking.k8s.io/status",
            ),
            (
                Method::POST,
                "/apis/authentication.k8s.io/v1/tokenreviews",
                "",
                "create",
                "tokenreviews.authentication.k8s.io",
            ),
            (Method::GET, "/version", "", "get", "other"),
        ] {
            assert_eq!(asked(&method, path, query), (verb, resource.to_owned()), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn what_is_denied_is_counted_and_nothing_else() {
        let denied = Denied::default();
        let answer = |request: Request<()>| async move {
            let code = request.uri().query().unwrap().trim_start_matches("code=").parse().unwrap();
            Ok::<_, Infallible>(Response::builder().status::<u16>(code).body(()).unwrap())
        };
        let mut service = denied.layer(tower::service_fn(answer));
        for code in [200, 401, 403, 403, 404, 500] {
            let request = Request::get(format!("/api/v1/namespaces/a/secrets/b?code={code}")).body(()).unwrap();
            assert_eq!(service.call(request).await.unwrap().status(), code);
        }
        let mut registry = Registry::default();
        denied.register(&mut registry);
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();
        let mut lines: Vec<&str> = written.lines().filter(|line| line.contains('{')).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "api_requests_denied_total{verb=\"get\",resource=\"secrets\",code=\"401\"} 1",
                "api_requests_denied_total{verb=\"get\",resource=\"secrets\",code=\"403\"} 2",
            ]
        );
    }
}
