//! Starts the stages that `run` and `serve` share, in the order of `main.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tollgate_core::envoy::{FilterSetup, Surroundings};
use tollgate_core::fleet::Settings;
use tollgate_core::objects::Key;
use tollgate_core::placement::Setting;
use tollgate_core::status::Definitions;

use super::filter::Codes;
use crate::accept;
use crate::admin::{self, Entrance};
use crate::audit::{Audit, Event};
use crate::fleet::{self, Fleet};
use crate::istio;
use crate::leader::{Election, Elector, Holder, Leads};
use crate::ledger::{self, Crossings, Ledger, Receipts};
use crate::notices::{self, Webhook};
use crate::otlp::{Collector, Exporter};
use crate::pipeline::{self, Published, Publisher};
use crate::replicas::{self, Books, Build, Follow, Link};
use crate::report::board::Board;
use crate::report::{Consumers, Due, Metrics, Status};
use crate::serve::Serving;
use crate::serve::ads::{Ads, Envoys};
use crate::serve::incoming::Limits;
use crate::serve::pki::{CurrentAuthority, Keeper, ServerCertificate};
use crate::serve::sidecars::{self, Sidecars};
use crate::serve::signing::Signer;
use crate::serve::status::{self, Readiness};
use crate::serve::tls;
use crate::source::Source;
use crate::source::kubernetes::{Access, Reach, follow_definitions};
use crate::statuses::{self, Statuses};
use crate::web;

/// No request to the API server takes longer.
const REQUEST: Duration = Duration::from_secs(5);
/// After a restart of many Pods all of them ask for a certificate.
const CERTIFICATE_CONNECTIONS: usize = 1_000;

/// What the stages need from the command.
pub struct Parts<'a> {
    pub source: &'a Source,
    /// What it does in the cluster that the objects are from.
    pub duties: Option<Duties>,
    pub state: &'a Path,
    /// The folder of the ledger. Replicas share it.
    pub ledger: PathBuf,
    pub certificates: Keeper,
    pub setting: Setting,
    pub surroundings: Surroundings,
    pub codes: Codes,
    pub lease_ttl: Duration,
    /// How long before its end a key is warned of.
    pub key_warning: Duration,
    pub xds: TcpListener,
    /// None: sidecars are not served.
    pub sidecars: Option<sidecars::Ports>,
    pub admin: Vec<Admin>,
    /// What people and probes are told. Whoever answers probes before there is anything to serve has the other end.
    pub status: watch::Sender<Arc<Status>>,
    pub readiness: Readiness,
    pub audit: Audit,
    /// Who is told of usage.
    pub collector: Option<Collector>,
    /// Who is told of budgets that come to a threshold.
    pub webhook: Option<notices::Place>,
    /// Whether the separate port for metrics names consumers.
    pub consumers_in_metrics: Consumers,
}

/// What a control plane does in a cluster besides reading it.
#[derive(Debug)]
pub struct Duties {
    pub access: Access,
    pub election: Election,
    /// Writes the status of an object into it.
    pub statuses: bool,
    /// Provides the proxies of Gateways.
    pub proxies: Option<Settings>,
    /// Certifies proxies by the tokens of their Pods.
    pub signing: Option<Signing>,
    /// Keeps the EnvoyFilters of sidecars.
    pub envoy_filters: Option<FilterSetup>,
}

#[derive(Debug)]
pub struct Signing {
    pub listener: TcpListener,
    /// The service account of proxies that serve all Gateways.
    pub fleet: Option<Key>,
}

/// Which part of the admin API a port has.
pub enum Admin {
    All(TcpListener, Entrance),
    Metrics(TcpListener),
}

/// The running control plane.
pub struct Stages {
    pub published: watch::Receiver<Arc<Published>>,
    pub status: watch::Receiver<Arc<Status>>,
    serving: Serving,
    sidecars: Option<Sidecars>,
    ledger: replicas::Keeper,
    in_cluster: Option<InCluster>,
    tasks: Vec<JoinHandle<()>>,
    exporter: Option<Exporter>,
    audit: Audit,
}

/// What the running control plane does in the cluster.
struct InCluster {
    leading: Leading,
    statuses: Option<Statuses>,
    fleet: Option<Fleet>,
    envoy_filters: Option<istio::Keeper>,
}

/// Which of several control planes leads.
struct Leading {
    elector: Elector,
    leads: Leads,
    reach: Reach,
}

// === impl Stages ===

impl Stages {
    /// Starts every stage. A folder must be readable. What is wrong in it is only reported, and so is a cluster that does
    /// not answer.
    pub async fn start(mut parts: Parts<'_>) -> anyhow::Result<Self> {
        accept::allow_files();
        let audit = parts.audit.clone();
        let metrics = Metrics::with(audit.clone());
        count_denied(parts.source, parts.duties.as_mut(), &metrics);

        // 1 to 4: files or a cluster -> objects -> IR -> resources, once now and again on every change.
        let writes = parts.duties.as_ref().is_some_and(|duties| duties.statuses);
        let due = writes.then(Due::default);
        let publisher = Publisher::new(parts.setting, parts.surroundings).telling(due.clone()).recording(audit.clone());
        let published = publisher.published();
        let ends = pipeline::ends::keep(published.clone(), parts.key_warning, due.clone(), metrics.clone());
        let configured = publisher.for_ledger();
        let state = parts.state.join("last-good");
        let reload = pipeline::start(parts.source, &state, publisher, metrics.clone()).await?;

        // 5: the ledger, before anybody can ask it.
        let receipts = if parts.webhook.is_some() { Receipts::Given } else { Receipts::None };
        let crossings = Crossings::new(receipts);
        let exporter = parts.collector.as_ref().map(Exporter::start).transpose()?;
        let (events, exporter) = exporter.map_or_else(Default::default, |(events, exporter)| (events, Some(exporter)));
        if events.is_on() {
            let events = events.clone();
            metrics.add(move |registry, _| events.register(registry));
        }
        let counted = ledger::Metrics::new().telling(crossings.clone()).recording(audit.clone()).exporting(events);
        // Before the ledger is opened, so that nothing is missed.
        let webhook = parts.webhook.map(|place| Webhook::new(place, &metrics)).transpose()?;
        let webhook = webhook.map(|webhook| tokio::spawn(webhook.run(crossings.follow())));
        let of_ledger = counted.clone();
        metrics.add(move |registry, consumers| of_ledger.register(registry, consumers));
        let of_ledger = counted.clone();
        metrics.add_of_convention(move |registry, consumers| of_ledger.register_gen_ai(registry, consumers));
        let (last_used, spent_today) = (counted.last_used().clone(), counted.spent_today().clone());
        let board = Board::default();
        let build = Build::new(&parts.codes.wasm.sha256);
        let follow = Follow { dir: parts.ledger, configured, lease_ttl: parts.lease_ttl, metrics: counted };
        let leading = match &parts.duties {
            Some(duties) => Some(Leading::start(duties, &metrics).await?),
            None => None,
        };
        if let Some(Leading { leads, .. }) = &leading {
            tokio::spawn(record_leaders(leads.clone(), audit.clone()));
        }
        let of_several = parts.duties.as_ref().is_some_and(|duties| matches!(duties.election, Election::ByLease(_)));
        let (books, keeper) = match &leading {
            Some(Leading { leads, .. }) if of_several => {
                let (authority, lifetime) = (parts.certificates.authority(), parts.certificates.lifetime());
                let link = Link { authority, lifetime, board: board.clone(), build: build.clone() };
                Books::follow(follow, leads.clone(), link)
            }
            _ => Books::open(follow)?,
        };
        let ledger: Arc<dyn Ledger> = Arc::new(books.clone());
        let for_proxies = ledger::service(Arc::clone(&ledger));

        // 6: discovery, ledger and code for the proxies, and what they say of it.
        let envoys = if parts.codes.module.is_some() { Envoys::OfModule } else { Envoys::Any };
        let ads = Ads { published: published.clone(), board: board.clone(), metrics: metrics.clone(), envoys };
        let tls = tls::config(parts.certificates.authority(), parts.certificates.server_certificate())?;
        let for_replicas = replicas::router(books, board.clone(), build);
        let wasm = Arc::new(parts.codes.wasm);
        let sidecars =
            parts.sidecars.map(|ports| Sidecars::start(ports, ads.clone(), for_proxies.clone(), Arc::clone(&wasm)));
        let codes = std::iter::once(wasm).chain(parts.codes.module.map(Arc::new)).collect();
        let serving = Serving::start(parts.xds, tls, Limits::PROXIES, ads, for_proxies, for_replicas, codes);
        let signs = Signs {
            authority: parts.certificates.authority(),
            lifetime: parts.certificates.lifetime(),
            certificate: parts.certificates.server_certificate(),
            metrics: metrics.clone(),
        };
        let certificates = tokio::spawn(parts.certificates.keep(metrics.clone()));
        let status = parts.status.subscribe();
        let key_warning = parts.key_warning;
        let (definitions_found, definitions) = watch::channel(Definitions::default());
        let objects = status::Statuses {
            published: published.clone(),
            board: board.clone(),
            last_used: last_used.clone(),
            spent_today: spent_today.clone(),
            definitions: definitions.clone(),
            key_warning,
        };
        let keep = status::keep(published.clone(), board.clone(), parts.readiness, parts.status);

        // 7: the same, into the objects of the cluster, and the proxies there.
        let mut tasks = vec![reload, certificates, tokio::spawn(ends)];
        tasks.extend(webhook);
        let in_cluster = match parts.duties.zip(leading) {
            Some((mut duties, leading)) => {
                if let Some(signing) = duties.signing.take() {
                    tasks.push(signs.start(signing, &duties.access, published.clone()).await?);
                }
                let authority = signs.authority;
                let published_too = published.clone();
                let inputs = due.map(|due| statuses::Inputs {
                    due,
                    published: published_too,
                    board,
                    last_used,
                    spent_today,
                    definitions,
                    key_warning,
                });
                if inputs.is_some() {
                    let reach = duties.access.reach(None).await?;
                    tasks.push(tokio::spawn(notices::tell_events(reach.client.clone(), crossings.follow())));
                    tasks.push(tokio::spawn(follow_definitions(reach.client, definitions_found)));
                }
                Some(InCluster::start(duties, leading, inputs, published.clone(), authority, &metrics).await?)
            }
            None => None,
        };

        // 8: people and scrapers.
        let objects = Arc::new(objects);
        let routers = admin::Routers::new(ledger, status.clone(), objects, metrics, parts.consumers_in_metrics);
        for admin in parts.admin {
            let (port, listener, router) = match admin {
                Admin::All(listener, entrance) => ("admin", listener, routers.all(entrance)),
                Admin::Metrics(listener) => ("metrics", listener, routers.metrics()),
            };
            let limits = web::Limits::PEOPLE;
            tasks.push(tokio::spawn(web::serve(listener, port, router, limits)));
        }
        // Last, because it says that all of this is ready.
        tasks.push(tokio::spawn(keep));
        Ok(Self { published, status, serving, sidecars, ledger: keeper, in_cluster, tasks, exporter, audit })
    }

    /// Ends every stage in an order that loses nothing: the proxies' last reports arrive before the ledger closes.
    pub async fn stop(self) {
        // First, because the proxies that leave now are no news.
        let elector = match self.in_cluster {
            Some(in_cluster) => Some(in_cluster.stop().await),
            None => None,
        };
        let of_sidecars = async {
            if let Some(sidecars) = self.sidecars {
                sidecars.stop().await;
            }
        };
        tokio::join!(self.serving.stop(), of_sidecars);
        self.ledger.stop().await;
        // Another one may lead at once, and the ledger is free.
        if let Some(elector) = elector {
            elector.stop().await;
        }
        for task in self.tasks {
            task.abort();
        }
        // The ledger has told its last minutes when it closed.
        if let Some(exporter) = self.exporter {
            exporter.finish().await;
        }
        self.audit.finish();
    }
}

/// What certificates are made with.
struct Signs {
    authority: CurrentAuthority,
    lifetime: Duration,
    certificate: ServerCertificate,
    metrics: Metrics,
}

// === impl Signs ===

impl Signs {
    async fn start(
        &self,
        signing: Signing,
        access: &Access,
        published: watch::Receiver<Arc<Published>>,
    ) -> anyhow::Result<JoinHandle<()>> {
        let reach = access.reach(Some(REQUEST)).await?;
        let audit = self.metrics.audit().clone();
        let signer = Signer::new(reach.client, self.authority.clone(), self.lifetime, published, signing.fleet, audit);
        let acceptor = TlsAcceptor::from(Arc::new(tls::for_strangers(self.certificate.clone())?));
        let tls = web::Tls { acceptor, failures: self.metrics.handshakes().clone() };
        let limits = web::Limits { connections: CERTIFICATE_CONNECTIONS, ..web::Limits::PEOPLE };
        Ok(tokio::spawn(web::serve_tls(signing.listener, "certificates", signer.router(), limits, tls)))
    }
}

// === impl Leading ===

impl Leading {
    async fn start(duties: &Duties, metrics: &Metrics) -> anyhow::Result<Self> {
        let reach = duties.access.reach(Some(REQUEST)).await?;
        let (elector, leads) = Elector::start(&reach, duties.election.clone(), metrics);
        Ok(Self { elector, leads, reach })
    }
}

// === impl InCluster ===

impl InCluster {
    async fn start(
        duties: Duties,
        leading: Leading,
        inputs: Option<statuses::Inputs>,
        published: watch::Receiver<Arc<Published>>,
        authority: CurrentAuthority,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let leads = leading.leads.clone();
        let statuses = inputs.map(|inputs| Statuses::start(leading.reach.clone(), leads.clone(), inputs, metrics));
        let envoy_filters = match duties.envoy_filters {
            Some(setup) => {
                let reach = duties.access.reach(None).await?;
                let namespaces = duties.access.namespaces.clone();
                let inputs = istio::Inputs { published: published.clone(), setup, namespaces };
                Some(istio::Keeper::start(reach, leads.clone(), inputs, metrics))
            }
            None => None,
        };
        let fleet = match duties.proxies {
            Some(settings) => {
                // Its watches are long.
                let reach = duties.access.reach(None).await?;
                let namespaces = duties.access.namespaces;
                let inputs = fleet::Inputs { published, settings, authority, namespaces };
                Some(Fleet::start(reach, leads, inputs, metrics))
            }
            None => None,
        };
        Ok(Self { leading, statuses, fleet, envoy_filters })
    }

    /// Stops all of it, and leads on.
    async fn stop(self) -> Elector {
        if let Some(envoy_filters) = self.envoy_filters {
            envoy_filters.stop().await;
        }
        if let Some(fleet) = self.fleet {
            fleet.stop().await;
        }
        if let Some(statuses) = self.statuses {
            statuses.stop().await;
        }
        self.leading.elector
    }
}

/// Records who leads, whenever that changes.
async fn record_leaders(mut leads: Leads, audit: Audit) {
    let mut known = None;
    loop {
        let holder = leads.holder();
        if known.replace(holder) != Some(holder) {
            let leader = if let Holder::Other(address) = holder { address } else { None };
            audit.record(Event::Leadership { leads: holder == Holder::Us, leader });
        }
        leads.changed().await;
    }
}

/// All that the API server denies is counted together, whoever asked.
fn count_denied(source: &Source, duties: Option<&mut Duties>, metrics: &Metrics) {
    let Source::Kubernetes(access) = source else { return };
    if let Some(duties) = duties {
        duties.access.denied = access.denied.clone();
    }
    let denied = access.denied.clone();
    metrics.add(move |registry, _| denied.register(registry));
}

/// Opens a listener. The error says what to do about it.
pub async fn listen(address: &str, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} cannot be listened on (another process may have it; {option} moves it)"))
}

/// How long before its end a key is warned of.
#[derive(Debug, clap::Args)]
pub struct KeyWarning {
    /// How long before its end (notAfter) a key of a Consumer is warned of: in its status, by an event, in the log and by
    /// the metric tollgate_consumer_keys_expiring
    #[arg(long, default_value = "7d", value_parser = duration, value_name = "DURATION")]
    pub key_expiry_warning: Duration,
}

/// Parses `30s` or `1m`, as in the configuration.
pub fn duration(text: &str) -> Result<Duration, String> {
    tollgate_core::objects::parse_duration(text).map_err(|error| error.to_string())
}
