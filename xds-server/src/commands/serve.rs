//! `tollgate serve`: the control plane for Envoys that are started elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tollgate_core::envoy::{FilterSetup, Ports, RouteTables, Surroundings};
use tollgate_core::placement::Setting;

use super::Outcome;
use super::admin::AdminPort;
use super::filter::FilterArgs;
use super::logging::LogFormat;
use super::mesh::{MeshArgs, SidecarArgs};
use super::otlp::OtlpArgs;
use super::placement::Placements;
use super::proxies::Proxies;
use super::signals::SignalArgs;
use super::sources::{HEADING, Sources};
use super::stages::{Admin, Duties, KeyWarning, Parts, Stages, duration, listen};
use super::webhook::WebhookArgs;
use crate::admin;
use crate::leader::{Election, LeasePlace};
use crate::report::{Consumers, Status};
use crate::serve::pki::{Keeper, LIFETIME, Origin, lifetime};
use crate::serve::status::Readiness;
use crate::source::Source;
use crate::state::dir::{StateDir, default_path};
use crate::state::private;
use crate::web;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate serve --source ./conf --state /var/lib/tollgate
  tollgate serve --source kubernetes --state /var/lib/tollgate
  tollgate bootstrap --state /var/lib/tollgate --gateway default/llm --server control:18000 > envoy.json
  envoy -c envoy.json

From a cluster nothing is served before every kind is listed (/readyz says so). Its service account needs get, list and
watch of the kinds of gateway.networking.k8s.io and tollgate.dev, and of Namespaces, Services, EndpointSlices and Secrets.
Of Secrets only those are read that an object refers to. For statuses it needs patch of the kinds' `status`, create
and patch of Events, and get, create and update of Leases in its namespace.

Proxies need a client certificate of the state directory's CA; `tollgate bootstrap` makes it. Those that are in the
state directory are renewed in time, for Envoys that read them from there.")]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    placement: Placements,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    sidecars: SidecarArgs,
    /// Do not write the status of each object into the cluster
    #[arg(long, requires = "source", help_heading = HEADING)]
    no_write_status: bool,
    /// Of several replicas only one has the ledger and writes statuses, and all serve proxies. They agree by the Lease
    /// `tollgate-controller`; a leader that is lost is replaced within 15 s. `false`: this is the only one
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = HEADING)]
    leader_election: bool,
    /// Where the Lease is [default: POD_NAMESPACE, else the pod's or the kubeconfig's namespace]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", help_heading = HEADING)]
    lease_namespace: Option<String>,
    #[command(flatten)]
    proxies: Proxies,
    /// Where discovery, ledger and filter code are served (gRPC, mTLS)
    #[arg(long, default_value = "0.0.0.0:18000", value_name = "IP:PORT")]
    xds: String,
    /// Where /metrics is served
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    metrics: String,
    /// Name the consumers in the metrics of that port too. Left out otherwise: they are names of customers or people,
    /// the port answers to everybody who reaches it, and each of them is a series. The admin port names them always
    #[arg(long)]
    metrics_consumers: bool,
    /// Where /healthz and /readyz are served
    #[arg(long, default_value = "0.0.0.0:8081", value_name = "IP:PORT")]
    probes: String,
    #[command(flatten)]
    admin: AdminPort,
    /// Address that the Gateways' ports are opened on, on the Envoys' machines
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    bind: IpAddr,
    /// Folder for certificates and ledger [default: tollgate/<folder>-<hash> in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder of the ledger. Several replicas share one, on a volume where files can be locked: the leader has the ledger,
    /// and the others ask it [default: ledger in the state directory]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// Where other replicas reach this one, on the port of --xds [default: the address of --xds, if it is one]
    #[arg(long, env = "POD_IP", value_name = "IP", help_heading = HEADING)]
    replica_address: Option<IpAddr>,
    #[command(flatten)]
    filter: FilterArgs,
    /// How long a lease of tokens lives that its proxy says nothing about
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    lease_ttl: Duration,
    #[command(flatten)]
    keys: KeyWarning,
    /// Folder with the CA that signs certificates, instead of one that is made in the state directory: tls.crt and tls.key, and
    /// in ca.crt whom proxies and control plane are to trust, which may be several [default: tls.crt]. A mounted Secret
    /// of cert-manager has these names. It is read again when it changes, and no stream ends for that
    #[arg(long, value_name = "DIR", conflicts_with = "authority_secret")]
    authority: Option<PathBuf>,
    #[command(flatten)]
    webhook: WebhookArgs,
    /// File of the audit log, a line of JSON for each change of configuration and keys, for usage and for refusals; `-` is
    /// standard output
    #[arg(long, value_name = "PATH")]
    audit_log: Option<PathBuf>,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    signals: SignalArgs,
    /// How long certificates live; they are renewed at two thirds of it
    #[arg(long, default_value = LIFETIME, value_parser = lifetime, value_name = "DURATION")]
    certificate_lifetime: Duration,
    /// Route tables with more hostnames than this are sent one scope for each hostname, so that a change of one costs
    /// little however many there are
    #[arg(long, default_value_t = RouteTables::default().scoped_above, value_name = "N")]
    scoped_routes_above: usize,
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    args.log_format.start();
    let source = args.sources.get()?;
    let setting = args.sidecars.setting(args.mesh.setting(args.placement.served(&source)?));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(args, source, setting))
}

/// A name that no other process has. A pod has one process at a time, and one that was killed and is started again goes
/// on with the Lease at once.
fn identity() -> String {
    if let Ok(pod) = std::env::var("POD_NAME") {
        return pod;
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let machine = machine.as_deref().map_or("tollgate", str::trim);
    format!("{machine}_{:016x}", rand::random::<u64>())
}

async fn serve(args: Args, source: Source, setting: Setting) -> anyhow::Result<Outcome> {
    private::mask();
    private::leave_no_core();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let webhook = args.webhook.place()?;
    let collector = args.otlp.collector()?;
    let audit = super::audit(args.audit_log.as_deref())?;
    let signals = args.signals.elsewhere(collector.as_ref())?;
    let fields = args.signals.asked_fields();
    let codes = args.filter.load()?;
    let xds = listen(&args.xds, "--xds").await?;
    let xds_address = xds.local_addr()?;
    let state_path = args.state.map_or_else(|| default_path(&args.sources.name()), Ok)?;
    let state = StateDir::open(&state_path)?;
    let sidecars = args.sidecars.ports(setting.mesh.as_ref()).await?;
    let mut authority = args.authority.map_or(Origin::Own, Origin::Folder);
    let duties = match &source {
        Source::Kubernetes(access) => {
            let reach = access.reach(None).await?;
            let namespace = args.lease_namespace.clone().unwrap_or_else(|| reach.namespace.clone());
            let secret = args.proxies.authority(&reach.client, &namespace);
            authority = secret.unwrap_or(authority);
            let ip = args.replica_address.or_else(|| Some(xds_address.ip()).filter(|ip| !ip.is_unspecified()));
            let address = ip.map(|ip| SocketAddr::new(ip, xds_address.port()));
            let place = LeasePlace { namespace: Some(namespace.clone()), identity: identity(), address };
            let election = if args.leader_election { Election::ByLease(place) } else { Election::Always };
            Some(Duties {
                statuses: !args.no_write_status,
                proxies: args.proxies.settings(&namespace, setting.mesh.as_deref(), &signals),
                signing: args.proxies.signing(&setting.placement).await?,
                envoy_filters: args
                    .sidecars
                    .envoy_filters(&namespace, setting.mesh.as_ref(), sidecars.as_ref(), &codes.wasm.sha256)?
                    .map(|setup| setup.telling(fields)),
                ..args.sources.writing(election)?
            })
        }
        Source::Folder(_) => None,
    };
    // A CA that somebody else makes may take its time. Until then this is alive, and not ready.
    let waits = Status { waiting_for: vec![format!("there is no CA in {authority}")], ..Status::default() };
    let status = watch::Sender::new(Arc::new(waits));
    let probes = listen(&args.probes, "--probes").await?;
    tokio::spawn(web::serve(probes, "probes", admin::probes(status.subscribe()), web::Limits::PEOPLE));
    let pki = state.join("pki");
    tokio::select! {
        first = authority.first(&pki) => first.with_context(|| format!("the CA of {authority}"))?,
        _ = interrupt.recv() => return Ok(Outcome::Good),
        _ = terminate.recv() => return Ok(Outcome::Good),
    }
    status.send_replace(Arc::default());
    let certificates = Keeper::open(&pki, args.certificate_lifetime)?.following(authority);
    let (code, runtime) = codes.remote();
    let (admin_address, for_people) = args.admin.open().await?;
    let metrics = listen(&args.metrics, "--metrics").await?;
    let metrics_address = metrics.local_addr()?;
    let stages = Stages::start(Parts {
        source: &source,
        duties,
        state: state.path(),
        ledger: args.ledger.unwrap_or_else(|| state.join("ledger")),
        certificates,
        setting,
        surroundings: Surroundings {
            bind: args.bind.to_string(),
            ports: Ports::Shared,
            filter: FilterSetup::of_gateways(code).with_runtime(runtime).telling(signals.fields(fields)),
            route_tables: RouteTables { scoped_above: args.scoped_routes_above },
            signals,
        },
        codes,
        lease_ttl: args.lease_ttl,
        key_warning: args.keys.key_expiry_warning,
        webhook,
        audit,
        collector,
        xds,
        sidecars,
        admin: vec![for_people, Admin::Metrics(metrics)],
        status,
        readiness: Readiness::Published,
        consumers_in_metrics: if args.metrics_consumers { Consumers::Named } else { Consumers::LeftOut },
    })
    .await?;
    tracing::info!(xds = %xds_address, admin = %admin_address, metrics = %metrics_address, state = %state.path().display(), "serving");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stages.stop().await;
    Ok(Outcome::Good)
}
