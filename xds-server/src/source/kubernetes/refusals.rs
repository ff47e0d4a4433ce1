//! Refusals of the API server in one line each: between kube's client and the connection.
//!
//! What a watch is answered kube's client reads line by line, whatever its status, and each line that is no event is an error of
//! its own. The API server writes some refusals over many lines; while it starts, most of them. Each line would be waited for
//! as a failure is, so a watch would stand still for minutes after a restart of the API server. In one line it is the
//! refusal that it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use axum::{BoxError, body};
use serde_json::{Value, json};
use tower::{Layer, Service};

/// A refusal has some hundred bytes. What is longer is taken for none.
const MAX: usize = 64 << 10;
/// The longest part of a text that is no status.
const MAX_TEXT: usize = 256;

/// Puts them in one line.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneLine;

/// What stands around a connection.
#[derive(Debug, Clone)]
pub struct Reading<S>(S);

// === impl OneLine ===

impl<S> Layer<S> for OneLine {
    type Service = Reading<S>;

    fn layer(&self, inner: S) -> Reading<S> {
        Reading(inner)
    }
}

// === impl Reading ===

impl<S, A, B> Service<Request<A>> for Reading<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let (mut head, body) = answer.await?.into_parts();
            let body = Body::new(body);
            if !head.status.is_client_error() && !head.status.is_server_error() {
                return Ok(Response::from_parts(head, body));
            }
            // A connection that breaks leaves a status without a text.
            let text = body::to_bytes(body, MAX).await.unwrap_or_default();
            head.headers.remove(header::CONTENT_LENGTH);
            let line = line(head.status, &text);
            Ok(Response::from_parts(head, Body::from(line)))
        })
    }
}

/// The status that this is, or one that says this.
fn line(status: StatusCode, text: &[u8]) -> String {
    let is_status = |value: &Value| value.get("kind").is_some_and(|kind| kind == "Status");
    let told = serde_json::from_slice(text).ok().filter(is_status);
    let told = told.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(text);
        let message: String = text.trim().chars().take(MAX_TEXT).collect();
        let reason = status.canonical_reason().unwrap_or_default();
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": status.as_u16(),
        })
    });
    told.to_string()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use kube::api::{Api, WatchParams};
    use kube::client::ClientBuilder;
    use kube::core::DynamicObject;
    use kube::discovery::ApiResource;
    use tokio_stream::StreamExt as _;

    use super::*;

    const FORBIDDEN: &str = r#"{
  "kind": "Status",
  "apiVersion": "v1",
  "metadata": {},
  "status": "Failure",
  "message": "secrets is forbidden: RBAC: not ready",
  "reason": "Forbidden",
  "details": {
    "kind": "secrets"
  },
  "code": 403
}
"#;

    /// What a watch tells whose request is answered so.
    async fn told(status: u16, text: &'static str) -> Vec<String> {
        let answer = move |_request: Request<kube::client::Body>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(text)).unwrap())
        };
        let client = ClientBuilder::new(tower::service_fn(answer), "default").with_layer(&OneLine).build();
        let secrets = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
        let api: Api<DynamicObject> = Api::all_with(client, &secrets);
        let events = api.watch(&WatchParams::default(), "1").await.unwrap();
        let told = events.map(|event| match event {
            Err(kube::Error::Api(status)) => status.code.to_string(),
            other => format!("{other:?}"),
        });
        tokio::time::timeout(Duration::from_secs(120), told.collect()).await.unwrap()
    }

    /// A connection that has no room now, and one that has ended.
    struct Away(Poll<Result<(), &'static str>>);

    impl Service<Request<()>> for Away {
        type Response = Response<Body>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            self.0
        }

        fn call(&mut self, _request: Request<()>) -> Self::Future {
            std::future::ready(Err("nobody waited for it"))
        }
    }

    #[test]
    fn who_waits_for_the_connection_still_does() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for state in [Poll::Pending, Poll::Ready(Ok(())), Poll::Ready(Err("it has ended"))] {
            assert_eq!(OneLine.layer(Away(state)).poll_ready(&mut context), state);
        }
    }

    #[tokio::test]
    async fn a_refusal_of_many_lines_is_one_error() {
        assert_eq!(told(403, FORBIDDEN).await, ["403"]);
        assert_eq!(told(503, "the server is\nstarting\n").await, ["503"]);
        assert_eq!(told(500, "").await, ["500"]);
        assert_eq!(told(502, "{\"kind\": \"Else\"}\n").await, ["502"]);
    }

    #[tokio::test]
    async fn what_is_no_refusal_passes_as_it_is() {
        let event = r#"{"type": "BOOKMARK", "object": {"kind": "Secret", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}}"#;
        let told = told(200, event).await;
        assert!(told.len() == 1 && told[0].contains("Bookmark"), "{told:?}");
    }
}
