//! `tollgate mesh policies`: the objects that hold an Istio mesh to what Tollgate is for. They are printed, and a person
//! applies them.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_core::fleet;
use tollgate_core::istio::Policies;
use tollgate_core::objects::Key;

use super::{domain, label, place, subdomain};
use crate::commands::{Format, Outcome, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate mesh policies --gateway default/llm --runners models | kubectl apply --server-side -f -
  tollgate mesh policies --gateway default/llm --runners models --callers shop -o json
  tollgate mesh policies --account tollgate-system/tollgate-proxies --runners models     # one fleet for all Gateways

In each namespace of runners: a PeerAuthentication (STRICT), an AuthorizationPolicy that lets nobody in, another one that
lets the Gateways in, and a Telemetry that writes each request down. They act on Pods with a sidecar. Whoever else is to
reach these Pods (Prometheus, an operator's own clients) needs an AuthorizationPolicy besides.
In each namespace of callers: a Sidecar, so that their sidecars know this namespace and those of the Gateways alone.")]
pub struct Args {
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
    /// The mesh's trust domain
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    trust_domain: String,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    let output = args.output;
    print(&written(&args.policies().documents(), output)?);
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
    fn policies(self) -> Policies {
        let account = |gateway: &Key| Key::new(Arc::clone(&gateway.namespace), fleet::name(&gateway.name, &self.class));
        let gateways = self.gateway.iter().map(account).chain(self.account.iter().cloned());
        Policies {
            gateways: gateways.collect(),
            trust_domain: self.trust_domain,
            runners: self.runners,
            callers: self.callers,
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
        Ok(cli.args.policies())
    }

    #[test]
    fn gateways_are_known_by_the_accounts_of_their_proxies() {
        let found = policies("--gateway llm --gateway edge/a.b --account x/proxies --runners models").unwrap();
        let accounts = [("default", "llm-tollgate"), ("edge", &fleet::name("a.b", "tollgate")), ("x", "proxies")];
        assert_eq!(found.gateways, accounts.map(|(namespace, name)| Key::new(namespace, name)));
        assert!(accounts[1].1.starts_with("gw-a-b-"), "{}", accounts[1].1);
        assert_eq!(found.trust_domain, "cluster.local");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (line, told) in [
            ("--runners models", "--gateway"),
            ("--gateway llm", "--runners"),
            ("--gateway a/b/c --runners models", "`b/c` is no name in Kubernetes"),
            ("--gateway llm --runners A", "`A` is no name of a namespace"),
            ("--gateway llm --runners a --trust-domain A", "lower case letters"),
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
