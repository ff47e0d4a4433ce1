//! `tollgate mesh policies`: the objects that hold a mesh to what Tollgate is for. They are printed, and a person applies them.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_core::linkerd::{self, Port};
use tollgate_core::objects::Key;
use tollgate_core::{fleet, istio};

use super::{domain, label, place, subdomain};
use crate::commands::{Format, Outcome, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate mesh policies --gateway default/llm --runners models | kubectl apply --server-side -f -
  tollgate mesh policies --gateway default/llm --runners models --callers shop -o json
  tollgate mesh policies --account tollgate-system/tollgate-proxies --runners models     # one fleet for all Gateways
  tollgate mesh policies --mesh linkerd --gateway default/llm --runners models --port 8000

Istio, in each namespace of runners: a PeerAuthentication (STRICT), an AuthorizationPolicy that lets nobody in, another one that
lets the Gateways in, and a Telemetry that writes each request down. They act on Pods with a sidecar. Whoever else is to
reach these Pods (Prometheus, an operator's own clients) needs an AuthorizationPolicy besides.
In each namespace of callers: a Sidecar, so that their sidecars know this namespace and those of the Gateways alone.

Linkerd, in each namespace of runners: for each port a Server and an AuthorizationPolicy that lets the Gateways in and nobody
else (MeshTLSAuthentication). Pods that are made from then on let nobody in at other ports either, and write each request down
(annotations of the Namespace). Linkerd has nothing like a Sidecar, so there is nothing for callers.")]
pub struct Args {
    /// Whose objects
    #[arg(long, value_enum, default_value = "istio")]
    mesh: MeshName,
    /// A Gateway that runners take requests of; may be given again
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = place, required_unless_present = "account")]
    gateway: Vec<Key>,
    /// The GatewayClass of these Gateways
    #[arg(long, value_name = "NAME", default_value = "tollgate", value_parser = subdomain)]
    class: String,
    /// The service account of other proxies that runners take requests of; may be given again
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = place)]
    account: Vec<Key>,
    /// A namespace of runners; may be given again
    #[arg(long, value_name = "NAMESPACE", value_parser = label, required_unless_present = "callers")]
    runners: Vec<String>,
    /// A namespace of callers; may be given again. A Sidecar hides the rest of the mesh from all workloads there
    #[arg(long, value_name = "NAMESPACE", value_parser = label)]
    callers: Vec<String>,
    /// Linkerd: where the runners' Pods listen, as a number or as a container calls it; may be given again
    #[arg(long, value_name = "PORT")]
    port: Vec<Port>,
    /// Istio: the mesh's trust domain [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    trust_domain: Option<String>,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MeshName {
    Istio,
    Linkerd,
}

/// The objects of one mesh or the other.
#[derive(Debug, PartialEq, Eq)]
enum Policies {
    Istio(istio::Policies),
    Linkerd(linkerd::Policies),
}

/// What was asked for does not go with this mesh.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("--port is Linkerd's: Istio's policies are for all ports (leave it out)")]
    PortOfIstio,
    #[error("--callers is Istio's: Linkerd has no object that hides the rest of the mesh (leave it out)")]
    CallersOfLinkerd,
    #[error("--trust-domain is Istio's: Linkerd completes the names of service accounts itself (leave it out)")]
    DomainOfLinkerd,
    #[error("--port is missing: Linkerd has a policy for each port of the runners' Pods (--port 8000)")]
    NoPort,
    #[error(
        "the namespace {0} has proxies of Gateways and runners: Linkerd would let nobody in at those proxies either \
         (give the runners a namespace of their own)"
    )]
    GatewayAmongRunners(String),
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    let output = args.output;
    print(&written(&args.policies()?.documents(), output)?);
    Ok(Outcome::Good)
}

/// One stream of documents, as kubectl takes it.
pub fn written(documents: &[Value], format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
            format!("{}\n", serde_json::to_string_pretty(&list)?)
        }
        Format::Yaml => {
            let texts: Result<Vec<String>, _> = documents.iter().map(serde_saphyr::to_string).collect();
            texts?.join("---\n")
        }
    })
}

// === impl Args ===

impl Args {
    fn policies(self) -> Result<Policies, Unfit> {
        let account = |gateway: &Key| Key::new(Arc::clone(&gateway.namespace), fleet::name(&gateway.name, &self.class));
        let gateways: Vec<Key> = self.gateway.iter().map(account).chain(self.account.iter().cloned()).collect();
        match self.mesh {
            MeshName::Istio if !self.port.is_empty() => Err(Unfit::PortOfIstio),
            MeshName::Istio => Ok(Policies::Istio(istio::Policies {
                gateways,
                trust_domain: self.trust_domain.unwrap_or_else(|| "cluster.local".to_owned()),
                runners: self.runners,
                callers: self.callers,
            })),
            MeshName::Linkerd if !self.callers.is_empty() => Err(Unfit::CallersOfLinkerd),
            MeshName::Linkerd if self.trust_domain.is_some() => Err(Unfit::DomainOfLinkerd),
            MeshName::Linkerd if self.port.is_empty() => Err(Unfit::NoPort),
            MeshName::Linkerd => {
                let is_shared = |namespace: &&String| gateways.iter().any(|account| *account.namespace == ***namespace);
                match self.runners.iter().find(is_shared) {
                    Some(namespace) => Err(Unfit::GatewayAmongRunners(namespace.clone())),
                    None => Ok(Policies::Linkerd(linkerd::Policies {
                        gateways,
                        runners: self.runners,
                        ports: self.port.into_iter().collect(),
                    })),
                }
            }
        }
    }
}

// === impl Policies ===

impl Policies {
    fn documents(&self) -> Vec<Value> {
        match self {
            Self::Istio(policies) => policies.documents(),
            Self::Linkerd(policies) => policies.documents(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn policies(line: &str) -> Result<Policies, String> {
        let cli =
            Cli::try_parse_from(["mesh"].into_iter().chain(line.split(' '))).map_err(|error| error.to_string())?;
        cli.args.policies().map_err(|error| error.to_string())
    }

    #[test]
    fn gateways_are_known_by_the_accounts_of_their_proxies() {
        let line = "--gateway llm --gateway edge/a.b --account x/proxies --runners models";
        let accounts = [("default", "llm-tollgate"), ("edge", &fleet::name("a.b", "tollgate")), ("x", "proxies")];
        assert!(accounts[1].1.starts_with("gw-a-b-"), "{}", accounts[1].1);
        let accounts = accounts.map(|(namespace, name)| Key::new(namespace, name));
        let Policies::Istio(found) = policies(line).unwrap() else { panic!("Istio is the default") };
        assert_eq!(found.gateways, accounts);
        assert_eq!(found.trust_domain, "cluster.local");
        let Policies::Linkerd(found) = policies(&format!("{line} --mesh linkerd --port 8000 --port 8000")).unwrap()
        else {
            panic!("Linkerd is asked for")
        };
        assert_eq!((found.gateways, found.ports.len()), (accounts.to_vec(), 1));
    }

    #[test]
    fn what_is_no_name_or_of_another_mesh_is_refused() {
        for (line, told) in [
            ("--runners models", "--gateway"),
            ("--gateway llm", "--runners"),
            ("--gateway a/b/c --runners models", "`b/c` is no name in Kubernetes"),
            ("--gateway llm --runners A", "`A` is no name of a namespace"),
            ("--gateway llm --runners a --trust-domain A", "lower case letters"),
            ("--gateway llm --runners a --port 80", "--port is Linkerd's"),
            ("--gateway llm --runners a --mesh linkerd", "--port is missing"),
            ("--gateway llm --runners a --mesh linkerd --port 0", "`0` is no port"),
            ("--gateway llm --runners a --mesh linkerd --port 80 --callers b", "--callers is Istio's"),
            ("--gateway llm --runners a --mesh linkerd --port 80 --trust-domain a", "--trust-domain is Istio's"),
            ("--gateway llm --runners a --runners default --mesh linkerd --port 80", "the namespace default has"),
        ] {
            let error = policies(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn several_documents_are_one_stream() {
        let documents = [json!({"a": 1}), json!({"b": {}})];
        assert_eq!(written(&documents, Format::Yaml).unwrap(), "a: 1\n---\nb: {}\n");
        let list: Value = serde_json::from_str(&written(&documents, Format::Json).unwrap()).unwrap();
        assert_eq!((&list["kind"], &list["items"]), (&json!("List"), &json!(documents)));
    }
}
