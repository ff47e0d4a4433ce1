//! `tollgate key rotate`: a new key for a Consumer, whose other keys end after an overlap.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgGroup;
use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_core::objects::key_list::{self, KeyList, UnusableKeys, in_seconds};

use super::cluster::{Consumers, Missing};
use super::{Apply, Secret, Whose, written};
use crate::commands::stages::duration;
use crate::commands::{Format, Outcome, ask, print};
use crate::source::folder::find;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("where").required(true).args(["apply", "file"]))]
#[command(after_help = "\
Examples:
  KEY=$(tollgate key rotate --consumer alice --apply)              the old keys count for another day
  tollgate key rotate --consumer alice --overlap 7d --apply
  tollgate key rotate --consumer alice -f ./conf                   prints the Consumer as it should be in the folder

Both keys count during the overlap, so clients can change over one by one. A key that would end before that still ends
then. Keys that have ended are removed from the Consumer.")]
pub struct Rotate {
    #[command(flatten)]
    whose: Whose,
    /// How long the other keys still count
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
    overlap: Duration,
    /// How long the new key counts [default: until it is removed]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    expires: Option<Duration>,
    #[command(flatten)]
    apply: Apply,
    /// Folder with the Consumer. It is not written to
    #[arg(short, long, value_name = "DIR")]
    file: Option<PathBuf>,
    /// [default: yaml; with --apply the key alone]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: {error}")]
struct InFile {
    path: String,
    line: u64,
    error: UnusableKeys,
}

pub fn main(rotate: &Rotate) -> anyhow::Result<Outcome> {
    rotate.whose.check()?;
    let now = Timestamp::now();
    let secret = Secret::new(rotate.expires, now);
    match &rotate.file {
        Some(folder) => {
            print(&for_folder(rotate, folder, &secret, now)?);
            Ok(Outcome::Good)
        }
        None => ask::block_on(apply(rotate, &secret, now)),
    }
}

async fn apply(rotate: &Rotate, secret: &Secret, now: Timestamp) -> anyhow::Result<Outcome> {
    let consumers = Consumers::of(&rotate.apply.access(), &rotate.whose).await?;
    let change = |keys: Option<&Value>| KeyList::rotated(keys, &secret.entry, now, rotate.overlap);
    let done = consumers.change(Missing::Refuse, change).await?;
    let summary = summary(&done.list, key_list::after(now, rotate.overlap));
    eprintln!("Consumer {consumers}: a key was added ({}); {summary}", secret.words());
    secret.print(rotate.output, &consumers.to_string())?;
    Ok(Outcome::Good)
}

fn for_folder(rotate: &Rotate, folder: &Path, secret: &Secret, now: Timestamp) -> anyhow::Result<String> {
    let Whose { consumer, .. } = &rotate.whose;
    let namespace = rotate.whose.namespace_in_files();
    let Some(found) = find::object(folder, "Consumer", namespace, consumer)? else {
        anyhow::bail!(
            "{}: there is no Consumer {namespace}/{consumer} (tollgate key new makes one; --namespace names another namespace)",
            folder.display()
        );
    };
    let (path, line, mut value) = (found.path.display().to_string(), found.line, found.value);
    let list = KeyList::rotated(value.pointer("/spec/keys"), &secret.entry, now, rotate.overlap)
        .map_err(|error| InFile { path: path.clone(), line, error })?;
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("keys".to_owned(), json!(list.keys));
    }
    match rotate.output.unwrap_or(Format::Yaml) {
        Format::Json => {
            let (key, sha256) = (&secret.key, &secret.entry.sha256);
            written(&json!({"key": key, "sha256": sha256, "consumer": value}), Format::Json)
        }
        Format::Yaml => Ok(format!(
            "# The key, shown only now: {}\n\
             # In place of the Consumer in {path}, line {line}; {}.\n\
             {}",
            secret.key,
            summary(&list, key_list::after(now, rotate.overlap)),
            written(&value, Format::Yaml)?,
        )),
    }
}

fn summary(list: &KeyList, end: Timestamp) -> String {
    let KeyList { ending, removed, .. } = list;
    let keys = |count: &usize| if *count == 1 { "1 other key".to_owned() } else { format!("{count} other keys") };
    let ending = format!("{} until {} at the latest", keys(ending), in_seconds(end));
    if *removed == 0 { ending } else { format!("{ending}; {} had ended and {} removed", keys(removed), was(*removed)) }
}

fn was(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}
