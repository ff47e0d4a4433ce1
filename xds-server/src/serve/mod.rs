//! The port that proxies know: discovery, ledger and the filter's code, all under mTLS. `sidecars/` has the ports that
//! sidecars know.
//!
//! ```text
//! tls.rs, incoming.rs (who is there? a Caller) -> standing.rs (is there such a Gateway?)
//! Published (what is served, swapped whole) -> ads.rs (a task per stream) -> answers.rs, wire.rs -> Envoy, filter
//!                                                 | ACK, NACK             <- discovery.rs, wire.rs
//! report::Status <- status.rs <- report::Board (a report per stream)
//! ```

pub mod ads;
mod answers;
mod discovery;
pub mod incoming;
pub mod pki;
#[cfg(test)]
mod port_test;
pub mod sidecars;
pub mod signing;
mod standing;
pub mod status;
pub mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tollgate_proto::v1::ledger_server::LedgerServer;
use tonic::service::Routes;
use tonic::transport::Server;

use self::ads::Ads;
use self::incoming::{Door, Limits, incoming};
use crate::filter_code::FilterCode;
use crate::handshakes::Handshakes;
use crate::ledger;
use crate::pipeline::Published;

/// Streams never end by themselves. When the server stops, they get this time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The most streams of one connection. A worker of an Envoy has one call to the ledger under way, and Envoy's main
/// thread has two streams and a file.
const MAX_STREAMS: u32 = 100;
/// The most bytes of headers. Envoy sends a few hundred. hyper's own default is the same, but it is not promised.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// Pings go out this often, to notice a proxy that has vanished without a word or that reads nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The running server.
#[derive(Debug)]
pub struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

// === impl Serving ===

impl Serving {
    /// `for_replicas` are routes of its own that look themselves who calls.
    pub fn start(
        listener: TcpListener,
        tls: ServerConfig,
        limits: Limits,
        ads: Ads,
        ledger: LedgerServer<ledger::Service>,
        for_replicas: axum::Router,
        codes: Vec<Arc<FilterCode>>,
    ) -> Self {
        let surroundings = (ads.published.clone(), ads.metrics.audit().clone());
        let check = from_fn_with_state(surroundings, standing::check);
        let (published, handshakes) = (ads.published.clone(), ads.metrics.handshakes().clone());
        let mut routes = Routes::new(ledger);
        let router = routes.axum_router_mut();
        let for_proxies = std::mem::take(router).merge(code(codes)).layer(check);
        *router = for_proxies.merge(discovery::routes(ads)).merge(for_replicas);
        Self::of_routes(listener, tls.into(), limits, (published, handshakes), routes)
    }

    /// Serves on `listener` as soon as something is published. Until then nobody knows what a proxy should have, and
    /// whoever connects waits: told that there is nothing, it would give back what it has.
    fn of_routes(
        listener: TcpListener,
        door: Door,
        limits: Limits,
        (mut published, handshakes): (watch::Receiver<Arc<Published>>, Handshakes),
        routes: Routes,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .add_routes(routes);
        let task = async move {
            let mut stopped = stopped;
            tokio::select! {
                _dropped = &mut stopped => return Ok(()),
                published = published.wait_for(|published| published.generation > 0) => {
                    if published.is_err() {
                        return Ok(());
                    }
                }
            }
            let stopped = async {
                let _dropped = stopped.await;
            };
            server.serve_with_incoming_shutdown(incoming(listener, door, limits, handshakes), stopped).await
        };
        Self { stop, task: tokio::spawn(task) }
    }

    /// Takes no new connections, and ends those that do not end by themselves.
    pub async fn stop(mut self) {
        let _ended_before = self.stop.send(());
        if timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// `GET /code/<sha256>.wasm`, and the same of a module: the filter, for Envoys that have no file of it.
fn code(codes: Vec<Arc<FilterCode>>) -> axum::Router {
    async fn serve(State(codes): State<Vec<Arc<FilterCode>>>, Path(file): Path<String>) -> impl IntoResponse {
        let code = codes.iter().find(|code| code.file_name() == file).ok_or(StatusCode::NOT_FOUND)?;
        Ok::<_, StatusCode>(([(header::CONTENT_TYPE, code.media_type())], code.bytes.clone()))
    }
    axum::Router::new().route("/code/{file}", get(serve)).with_state(codes)
}
