//! `tollgate key new`: prints a key, which is shown only once, and the objects to apply.

use clap::Subcommand;
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tollgate_core::objects::{ANONYMOUS, Shown, is_dns_label, is_dns_subdomain};

use super::{Format, Outcome, print};

/// 62^43 is a little more than 2^256.
const LENGTH: usize = 43;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a new key and the objects that let it in
    New(New),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate key new --consumer alice > alice.yaml      the key is in its first line
  tollgate key new --consumer alice -o json | jq -r .key

The Consumer holds only the key's hash; the Secret is for the application that uses the key. The key is shown
only now.")]
struct New {
    /// Name of the Consumer that the key is for
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// Its namespace: the one of the ModelPools that it may use
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    let Command::New(new) = args.command;
    if !is_dns_subdomain(&new.consumer) || !is_dns_label(&new.namespace) {
        anyhow::bail!(
            "{} in namespace {} is no name of a Consumer (lowercase letters, digits and `-`, as in Kubernetes)",
            Shown(&new.consumer),
            Shown(&new.namespace)
        );
    }
    if new.consumer == ANONYMOUS {
        anyhow::bail!("no Consumer can be called `{ANONYMOUS}`: it stands for callers without a key");
    }
    let random: String = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
    let key = format!("tg-{random}");
    let sha256 = hex::encode(Sha256::digest(&key));
    let consumer = consumer(&new, &sha256);
    let secret = secret(&new, &key);
    match new.output {
        Format::Json => {
            let all = json!({"key": key, "sha256": sha256, "consumer": consumer, "secret": secret});
            print(&format!("{}\n", serde_json::to_string_pretty(&all)?));
        }
        Format::Yaml => {
            print(&format!(
                "# The key, shown only now: {key}\n\
                 # The Consumer lets it in and holds only its hash. The Secret is for the application that uses the key;\n\
                 # leave it out where nobody mounts it, then no file holds the key.\n\
                 # It counts for the ModelPools of namespace {}; others say whom they take by allowedConsumers.\n\
                 {}---\n{}",
                new.namespace,
                serde_saphyr::to_string(&consumer)?,
                serde_saphyr::to_string(&secret)?,
            ));
        }
    }
    Ok(Outcome::Good)
}

fn consumer(new: &New, sha256: &str) -> Value {
    json!({
        "apiVersion": "tollgate.dev/v1alpha1",
        "kind": "Consumer",
        "metadata": {"name": new.consumer, "namespace": new.namespace},
        "spec": {"keys": [{"sha256": sha256}]},
    })
}

fn secret(new: &New, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("{}-key", new.consumer), "namespace": new.namespace},
        "stringData": {"apiKey": key},
    })
}
