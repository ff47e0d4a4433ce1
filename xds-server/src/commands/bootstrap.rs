//! `tollgate bootstrap`: what an Envoy of `tollgate serve` is started with.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Outcome, print};
use crate::run::bootstrap::{Bootstrap, ControlPlane};
use crate::serve::identity::Identity;
use crate::serve::pki::Pki;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  tollgate bootstrap --state /var/lib/tollgate --gateway default/llm --server 10.0.0.5:18000 > envoy.json
  envoy -c envoy.json

Makes the client certificate in the state directory's folder pki if there is none yet. An Envoy gets only the
Gateway that its certificate names.")]
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
    /// Envoy's node id [default: the gateway's name]; each Envoy needs its own
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Where Envoy's own admin API listens
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    envoy_admin: std::net::SocketAddr,
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let identity = match &args.gateway {
        None => Identity::AllGateways,
        Some(gateway) => {
            let (namespace, name) =
                gateway.split_once('/').with_context(|| format!("`{gateway}` is not NAMESPACE/NAME"))?;
            Identity::Gateway { namespace: namespace.to_owned(), name: name.to_owned() }
        }
    };
    let (host, port) = args
        .server
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .with_context(|| format!("`{}` is not HOST:PORT", args.server))?;
    let dir = std::path::absolute(args.state.join("pki"))?;
    let pki = Pki::open(&dir)?;
    let proxy = pki.proxy(&identity)?;
    let default_node = args.gateway.as_deref().unwrap_or("tollgate").replace('/', ".");
    let bootstrap = Bootstrap {
        node_id: args.node.as_deref().unwrap_or(&default_node),
        control: ControlPlane { host, port },
        admin: args.envoy_admin,
        ca: &pki.ca_path(),
        certificate: &proxy.certificate_path,
        key: &proxy.key_path,
    };
    print(&format!("{}\n", serde_json::to_string_pretty(&bootstrap.to_json())?));
    Ok(Outcome::Good)
}
