//! Starts the stages that `run` and `serve` share, in the order of `main.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tollgate_core::envoy::Surroundings;
use tollgate_core::placement::Placement;

use crate::accept;
use crate::admin;
use crate::filter_code::FilterCode;
use crate::ledger::{self, Embedded, Ledger};
use crate::pipeline::{self, Published, Publisher};
use crate::report::board::Board;
use crate::report::{Consumers, Due, Metrics, Status};
use crate::serve::Serving;
use crate::serve::ads::Ads;
use crate::serve::incoming::Limits;
use crate::serve::pki::Keeper;
use crate::serve::status::{self, Readiness};
use crate::serve::tls;
use crate::source::Source;
use crate::source::kubernetes::Access;
use crate::statuses::{Election, Inputs, Statuses};

/// What the stages need from the command.
pub struct Parts<'a> {
    pub source: &'a Source,
    pub writing: Writing,
    pub state: &'a Path,
    pub certificates: Keeper,
    pub placement: Placement,
    pub surroundings: Surroundings,
    pub code: FilterCode,
    pub lease_ttl: Duration,
    pub xds: TcpListener,
    pub admin: Vec<Admin>,
    pub readiness: Readiness,
    /// Whether the separate port for metrics names consumers.
    pub consumers_in_metrics: Consumers,
}

/// Whether the status of an object is written into it.
#[derive(Debug, Clone)]
pub enum Writing {
    Nothing,
    Into(Access, Election),
}

/// Which part of the admin API a port has.
pub enum Admin {
    All(TcpListener),
    Metrics(TcpListener),
    Probes(TcpListener),
}

/// The running control plane.
pub struct Stages {
    pub published: watch::Receiver<Arc<Published>>,
    pub status: watch::Receiver<Arc<Status>>,
    serving: Serving,
    ledger: Embedded,
    statuses: Option<Statuses>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Stages ===

impl Stages {
    /// Starts every stage. A folder must be readable. What is wrong in it is only reported, and so is a cluster that does
    /// not answer.
    pub async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        accept::allow_files();
        let metrics = Metrics::default();

        // 1 to 4: files or a cluster -> objects -> IR -> resources, once now and again on every change.
        let due = matches!(parts.writing, Writing::Into(..)).then(Due::default);
        let publisher = Publisher::new(parts.placement, parts.surroundings).telling(due.clone());
        let published = publisher.published();
        let configured = publisher.for_ledger();
        let state = parts.state.join("last-good");
        let reload = pipeline::start(parts.source, &state, publisher, metrics.clone()).await?;

        // 5: the ledger, before anybody can ask it.
        let embedded = Embedded::open(&parts.state.join("ledger"), configured, parts.lease_ttl)?;
        let counted = embedded.metrics().clone();
        metrics.add(|registry, consumers| counted.register(registry, consumers));
        let ledger: Arc<dyn Ledger> = Arc::new(embedded.clone());
        let for_proxies = ledger::service(Arc::clone(&ledger), counted);

        // 6: discovery, ledger and code for the proxies, and what they say of it.
        let board = Board::default();
        let ads = Ads { published: published.clone(), board: board.clone(), metrics: metrics.clone() };
        let tls = tls::config(parts.certificates.authority(), parts.certificates.server_certificate())?;
        let serving = Serving::start(parts.xds, tls, Limits::PROXIES, ads, for_proxies, Arc::new(parts.code));
        let certificates = tokio::spawn(parts.certificates.keep(metrics.clone()));
        let (sender, status) = watch::channel(Arc::default());
        let objects = Arc::new(status::Statuses { published: published.clone(), board: board.clone() });
        let keep = tokio::spawn(status::keep(published.clone(), board.clone(), parts.readiness, sender));

        // 7: the same, into the objects of the cluster.
        let statuses = match (parts.writing, due) {
            (Writing::Into(access, election), Some(due)) => {
                let inputs = Inputs { due, published: published.clone(), board };
                Some(Statuses::start(&access, election, inputs, &metrics).await?)
            }
            _ => None,
        };

        // 8: people and probes.
        let routers = admin::routers(ledger, status.clone(), objects, metrics, parts.consumers_in_metrics);
        let mut tasks = vec![reload, keep, certificates];
        for admin in parts.admin {
            let (port, listener, router) = match admin {
                Admin::All(listener) => ("admin", listener, &routers.all),
                Admin::Metrics(listener) => ("metrics", listener, &routers.metrics),
                Admin::Probes(listener) => ("probes", listener, &routers.probes),
            };
            let limits = admin::server::Limits::PEOPLE;
            tasks.push(tokio::spawn(admin::server::serve(listener, port, router.clone(), limits)));
        }
        Ok(Self { published, status, serving, ledger: embedded, statuses, tasks })
    }

    /// Ends every stage in an order that loses nothing: the proxies' last reports arrive before the ledger closes.
    pub async fn stop(self) {
        // First, because the proxies that leave now are no news.
        if let Some(statuses) = self.statuses {
            statuses.stop().await;
        }
        self.serving.stop().await;
        self.ledger.close().await;
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Opens a listener. The error says what to do about it.
pub async fn listen(address: &str, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} cannot be listened on (another process may have it; {option} moves it)"))
}

/// Parses `30s` or `1m`, as in the configuration.
pub fn duration(text: &str) -> Result<Duration, String> {
    tollgate_core::objects::parse_duration(text).map_err(|error| error.to_string())
}
