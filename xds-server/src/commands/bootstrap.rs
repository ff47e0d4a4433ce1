//! `tollgate bootstrap`: what an Envoy of `tollgate serve` is started with.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::{Outcome, print};
use crate::envoy::bootstrap::{Bootstrap, ControlPlane};
use crate::envoy::{admin_socket, memory};
use crate::identity::Identity;
use crate::serve::pki::{Authority, Folder, LIFETIME, Leaf, lifetime};
use crate::state::private;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tollgate bootstrap --state /var/lib/tollgate --gateway default/llm --server 10.0.0.5:18000 > envoy.json
  envoy -c envoy.json

Makes a client certificate, in the state directory's folder pki or in --out. An Envoy gets only the Gateway that its
certificate names. Envoy watches these files: a certificate that is put there later is taken up without a restart.

Renewal: `tollgate serve` renews what is in its state directory. For an Envoy that reads from elsewhere, run the same
command again before --certificate-lifetime is over, with the same --out:
  tollgate bootstrap --state /var/lib/tollgate --gateway default/llm --out /etc/envoy/tollgate > /dev/null")]
pub struct Args {
    /// The state directory of `tollgate serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The Gateway that the Envoy is for; absent: all of them
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: Option<String>,
    /// Where the control plane is
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "HOST:PORT")]
    server: String,
    /// Folder for the certificate [default: in the state directory]; Envoy must find it under the same path
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long the certificate lives
    #[arg(long, default_value = LIFETIME, value_parser = lifetime, value_name = "DURATION")]
    certificate_lifetime: Duration,
    /// Envoy's node id [default: the gateway's name]; each Envoy needs its own
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Socket of Envoy's own admin API [default: envoy-admin.sock beside the certificate]; of it Envoy answers
    /// /stats, /ready and /drain_listeners only
    #[arg(long, value_name = "PATH")]
    envoy_admin: Option<PathBuf>,
    /// Largest heap of Envoy; before it is full, requests with large bodies are ended and new ones refused
    /// [default: half of what this container or machine has]
    #[arg(long, value_parser = memory::quantity, value_name = "BYTES")]
    envoy_memory: Option<u64>,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let identity = match &args.gateway {
        None => Identity::AllGateways,
        Some(gateway) => {
            let (namespace, name) =
                gateway.split_once('/').with_context(|| format!("`{gateway}` is not NAMESPACE/NAME"))?;
            Identity::of_gateway(namespace, name)
        }
    };
    let (host, port) = args
        .server
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .with_context(|| format!("`{}` is not HOST:PORT", args.server))?;
    private::mask();
    let authority = Authority::open(&std::path::absolute(args.state.join("pki"))?)?;
    let dir = args.out.as_ref().map_or_else(|| Ok(authority.dir().to_owned()), std::path::absolute)?;
    let issued = authority.issue(Leaf::Proxy(&identity), args.certificate_lifetime)?;
    let certificates = Folder::of(&dir, &identity).put(&issued, authority.trusted())?;
    let admin = args.envoy_admin.clone().unwrap_or_else(|| dir.join(admin_socket::NAME));
    admin_socket::fits(&admin).context("--envoy-admin names a shorter one")?;
    let default_node = args.gateway.as_deref().unwrap_or("tollgate").replace('/', ".");
    let bootstrap = Bootstrap {
        node_id: args.node.as_deref().unwrap_or(&default_node),
        control: ControlPlane { host, port },
        admin: &admin,
        admin_paths: &[],
        heap: args.envoy_memory.unwrap_or_else(memory::heap),
        certificates: &certificates,
    };
    print(&format!("{}\n", serde_json::to_string_pretty(&bootstrap.to_json())?));
    Ok(Outcome::Good)
}
