//! `tollgate key new`: a key for a Consumer that may not exist yet.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_core::objects::key_list::KeyList;

use super::cluster::{Consumers, Missing};
use super::{Apply, Secret, Whose, consumer, written};
use crate::commands::stages::duration;
use crate::commands::{Format, Outcome, ask, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate key new --consumer alice > alice.yaml      the key is in its first line
  tollgate key new --consumer alice -o json | jq -r .key
  KEY=$(tollgate key new --consumer alice --expires 90d --apply)

The Consumer holds only the key's hash; the Secret is for the application that uses the key. The key is shown
only now.

With --apply the Consumer is made in the cluster, or the hash is added to the one that is there. The key is all that
stands on standard output, and the cluster never gets it. It needs get, create and patch of consumers.tollgate.dev.")]
pub struct New {
    #[command(flatten)]
    whose: Whose,
    /// How long the key counts [default: until it is removed]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    expires: Option<Duration>,
    #[command(flatten)]
    apply: Apply,
    /// [default: yaml; with --apply the key alone]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

pub fn main(new: &New) -> anyhow::Result<Outcome> {
    new.whose.check()?;
    let secret = Secret::new(new.expires, Timestamp::now());
    if new.apply.apply {
        return ask::block_on(apply(new, &secret));
    }
    print(&objects(new, &secret)?);
    Ok(Outcome::Good)
}

async fn apply(new: &New, secret: &Secret) -> anyhow::Result<Outcome> {
    let consumers = Consumers::of(&new.apply.access(), &new.whose).await?;
    let done = consumers.change(Missing::Make, |keys| KeyList::with(keys, &secret.entry)).await?;
    let what = if done.made { "made" } else { "changed" };
    eprintln!("Consumer {consumers}: {what}; a key was added ({})", secret.words());
    secret.print(new.output, &consumers.to_string())?;
    Ok(Outcome::Good)
}

fn objects(new: &New, secret: &Secret) -> anyhow::Result<String> {
    let namespace = new.whose.namespace_in_files();
    let consumer = consumer(&new.whose.consumer, namespace, &[secret.entry.entry()]);
    let object = of_application(&new.whose.consumer, namespace, &secret.key);
    match new.output.unwrap_or(Format::Yaml) {
        Format::Json => {
            let (key, sha256) = (&secret.key, &secret.entry.sha256);
            written(&json!({"key": key, "sha256": sha256, "consumer": consumer, "secret": object}), Format::Json)
        }
        Format::Yaml => Ok(format!(
            "# The key, shown only now: {}\n\
             # The Consumer lets it in and holds only its hash. The Secret is for the application that uses the key;\n\
             # leave it out where nobody mounts it, then no file holds the key.\n\
             # It counts for the ModelPools of namespace {namespace}; others say whom they take by allowedConsumers.\n\
             {}---\n{}",
            secret.key,
            written(&consumer, Format::Yaml)?,
            written(&object, Format::Yaml)?,
        )),
    }
}

fn of_application(consumer: &str, namespace: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("{consumer}-key"), "namespace": namespace},
        "stringData": {"apiKey": key},
    })
}
