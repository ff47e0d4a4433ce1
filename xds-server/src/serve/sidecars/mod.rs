//! The ports that sidecars know. istiod programs sidecars, and the filter in them asks us for the keys of its workload
//! and calls the ledger, under the TLS of the mesh.
//!
//! ```text
//! certificates.rs (Istio's agent keeps ours) -> incoming.rs (a Member) -> members.rs (may it speak for that workload?)
//!                                                -> discovery of keys, ledger: as for the proxies of Gateways
//! ```
//! The agent of a sidecar fetches the filter's code without a certificate, from a port of its own. It knows the code's
//! SHA-256, and the code is no secret.

mod certificates;
mod members;
#[cfg(test)]
mod sidecars_test;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tollgate_core::mesh::Mesh;
use tollgate_proto::v1::ledger_server::LedgerServer;
use tonic::service::Routes;

use self::certificates::Keeper;
use super::ads::Ads;
use super::incoming::{Door, Limits};
use super::{Serving, code, discovery};
use crate::filter_code::FilterCode;
use crate::ledger;
use crate::web;

/// Where sidecars are served.
#[derive(Debug)]
pub struct Ports {
    pub listener: TcpListener,
    /// None: the code is served elsewhere.
    pub code: Option<TcpListener>,
    pub mesh: Arc<Mesh>,
    /// The folder of our own certificate.
    pub certificates: PathBuf,
}

/// The running ports.
#[derive(Debug)]
pub struct Sidecars {
    serving: Serving,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Sidecars ===

impl Sidecars {
    pub fn start(ports: Ports, ads: Ads, ledger: LedgerServer<ledger::Service>, code: Arc<FilterCode>) -> Self {
        Self::looking(ports, ads, ledger, code, certificates::LOOK)
    }

    /// `look` is how often the folder is looked at.
    fn looking(
        ports: Ports,
        ads: Ads,
        ledger: LedgerServer<ledger::Service>,
        code: Arc<FilterCode>,
        look: Duration,
    ) -> Self {
        let keeper = Keeper::new(ports.certificates);
        let door = Door::Mesh { acceptor: keeper.acceptor(), mesh: ports.mesh };
        let (published, metrics) = (ads.published.clone(), ads.metrics.clone());
        let check = from_fn_with_state((published.clone(), metrics.audit().clone()), members::check);
        let mut routes = Routes::new(ledger);
        let router = routes.axum_router_mut();
        *router = std::mem::take(router).merge(discovery::routes(ads)).layer(check);
        let serving = Serving::of_routes(
            ports.listener,
            door,
            Limits::PROXIES,
            (published, metrics.handshakes().clone()),
            routes,
        );
        let mut tasks = vec![tokio::spawn(keeper.keep(look, metrics))];
        if let Some(listener) = ports.code {
            tasks.push(tokio::spawn(web::serve(listener, "code", self::code(vec![code]), web::Limits::PEOPLE)));
        }
        Self { serving, tasks }
    }

    /// Takes no new connections, and ends those that do not end by themselves.
    pub async fn stop(self) {
        self.serving.stop().await;
        for task in self.tasks {
            task.abort();
        }
    }
}
