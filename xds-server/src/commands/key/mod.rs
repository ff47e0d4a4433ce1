//! `tollgate key`: makes keys and lets them in. A key is shown once and kept nowhere; its hash is what a Consumer holds.
//!
//! ```text
//! new.rs, rotate.rs -> core::objects::key_list (the next spec.keys) -> cluster.rs (--apply), or YAML for a folder
//! ```

mod cluster;
mod new;
mod rotate;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tollgate_core::objects::key_list::{self, NewKey, in_seconds};
use tollgate_core::objects::{ANONYMOUS, Shown, hash_name, is_dns_label, is_dns_subdomain};

use super::{Format, Outcome, print};
use crate::source::kubernetes::Access;

/// 62^43 is a little more than 2^256.
const LENGTH: usize = 43;
const HEADING: &str = "With --apply";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new key: print it with the objects that let it in, or let it in (--apply)
    New(new::New),
    /// Make a new key, and let the others of the Consumer end after an overlap
    Rotate(rotate::Rotate),
}

/// The Consumer that a key is for.
#[derive(Debug, clap::Args)]
struct Whose {
    /// Name of the Consumer that the key is for
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// Its namespace: the one of the ModelPools that it may use
    /// [default: `default`; with --apply the one of the kubeconfig's context]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Whether the cluster is written to, and which one.
#[derive(Debug, clap::Args)]
struct Apply {
    /// Write the key's hash into the Consumer in the cluster. The key itself is only printed
    #[arg(long)]
    apply: bool,
    /// kubeconfig of the cluster [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "PATH", requires = "apply", help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "apply", help_heading = HEADING)]
    kube_context: Option<String>,
}

/// A key that nobody has seen yet, and its entry in a Consumer.
pub(super) struct Secret {
    pub(super) key: String,
    pub(super) entry: NewKey,
}

pub fn main(args: Args) -> anyhow::Result<Outcome> {
    match args.command {
        Command::New(new) => new::main(&new),
        Command::Rotate(rotate) => rotate::main(&rotate),
    }
}

// === impl Whose ===

impl Whose {
    /// # Errors
    /// When no Consumer can have this name.
    fn check(&self) -> anyhow::Result<()> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        if !is_dns_subdomain(&self.consumer) || !is_dns_label(namespace) {
            anyhow::bail!(
                "{} in namespace {} is no name of a Consumer (lowercase letters, digits and `-`, as in Kubernetes)",
                Shown(&self.consumer),
                Shown(namespace)
            );
        }
        if self.consumer == ANONYMOUS {
            anyhow::bail!("no Consumer can be called `{ANONYMOUS}`: it stands for callers without a key");
        }
        Ok(())
    }

    /// Where it is in files.
    fn namespace_in_files(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

// === impl Apply ===

impl Apply {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.kube_context.clone(), ..Access::default() }
    }
}

// === impl Secret ===

impl Secret {
    pub(super) fn new(expires: Option<Duration>, now: Timestamp) -> Self {
        let random: String = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
        let key = format!("tg-{random}");
        let sha256 = hex::encode(Sha256::digest(&key));
        let not_after = expires.map(|expires| key_list::after(now, expires));
        Self { key, entry: NewKey { sha256, not_after } }
    }

    /// Shows a key that is let in already: alone, so that a script can take it.
    fn print(&self, format: Option<Format>, consumer: &str) -> anyhow::Result<()> {
        match format {
            None => print(&format!("{}\n", self.key)),
            Some(format) => {
                let not_after = self.entry.not_after.map(in_seconds);
                let mut value = json!({"key": self.key, "sha256": self.entry.sha256, "consumer": consumer});
                if let (Some(end), Value::Object(fields)) = (not_after, &mut value) {
                    fields.insert("notAfter".to_owned(), json!(end));
                }
                print(&written(&value, format)?);
            }
        }
        Ok(())
    }

    /// `2bb80d53…`, and when it ends.
    fn words(&self) -> String {
        let end = self.entry.not_after.map_or_else(String::new, |end| format!(", ends at {}", in_seconds(end)));
        format!("{}{end}", hash_name(&self.entry.sha256))
    }
}

fn written(value: &Value, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        Format::Yaml => serde_saphyr::to_string(value)?,
    })
}

/// A Consumer as a user would write it.
fn consumer(name: &str, namespace: &str, keys: &[Value]) -> Value {
    json!({
        "apiVersion": "tollgate.dev/v1alpha1",
        "kind": "Consumer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"keys": keys},
    })
}
