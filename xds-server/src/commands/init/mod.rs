//! `tollgate init DIR`: a folder to begin with. It is small, says in comments what can be changed, and works as it is.

mod runner;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use self::runner::Runner;
use super::key::Secret;
use super::{Outcome, print};

const GATEWAY: &str = include_str!("gateway.yaml");
const OPENAI: &str = include_str!("openai.yaml");
const RUNNER: &str = include_str!("runner.yaml");
const CONSUMERS: &str = include_str!("consumers.yaml");
const BUDGET: &str = include_str!("budget.yaml");

/// A runner serves what it serves; OpenAI's models for chats begin so.
const ALL_MODELS: &str = "*";
const OF_OPENAI: &str = "gpt-*";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate init conf                                        OpenAI, with the key in OPENAI_API_KEY
  tollgate init conf --runner http://127.0.0.1:11434/v1     what answers OpenAI's API there: llama.cpp, vLLM, Ollama, ...
  tollgate init conf --model gpt-5-mini                     one model, and no other

It writes gateway.yaml, models.yaml, consumers.yaml and budget.yaml, makes a key, and prints it with what to do next. The
key is shown only then: the files hold its hash. A folder that is not empty is left alone.")]
pub struct Args {
    /// The folder to write
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Base URL of a runner that speaks OpenAI's API, in place of OpenAI itself
    #[arg(long, value_name = "URL")]
    runner: Option<Runner>,
    /// The model that clients ask for; a * at the end stands for any rest [default: gpt-*, of a runner *]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{0} is not empty, and nothing is overwritten (name another folder)")]
    NotEmpty(PathBuf),
    #[error("{0:?} is no name of a model (a * may stand at its end)")]
    NoModel(String),
    #[error("{path}: {error}")]
    NotWritten { path: PathBuf, error: io::Error },
}

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    let model = args.model.as_deref().unwrap_or(if args.runner.is_some() { ALL_MODELS } else { OF_OPENAI });
    let name = model.strip_suffix('*').unwrap_or(model);
    if model.is_empty() || name.contains('*') || name.chars().any(char::is_control) {
        return Err(InitError::NoModel(model.to_owned()).into());
    }
    let secret = Secret::new(None, jiff::Timestamp::now());
    let models = match &args.runner {
        Some(runner) => runner.fill(RUNNER),
        None => OPENAI.to_owned(),
    };
    let files = [
        ("gateway.yaml", GATEWAY.to_owned()),
        ("models.yaml", models.replace("@model@", &text(model))),
        ("consumers.yaml", CONSUMERS.replace("@sha256@", &text(&secret.entry.sha256))),
        ("budget.yaml", BUDGET.to_owned()),
    ];
    write(&args.folder, &files)?;
    print(&next(args, model, &secret.key));
    Ok(Outcome::Good)
}

/// A string as YAML has it, whatever is in it.
fn text(value: &str) -> String {
    json!(value).to_string()
}

fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), InitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| InitError::NotWritten { path, error }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    if fs::read_dir(folder).map_err(failed(folder))?.next().is_some() {
        return Err(InitError::NotEmpty(folder.to_owned()));
    }
    for (name, content) in files {
        let path = folder.join(name);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(content.as_bytes()));
        written.map_err(failed(&path))?;
    }
    Ok(())
}

/// What to do with it, to be copied into a shell.
fn next(args: &Args, model: &str, key: &str) -> String {
    let folder = args.folder.display();
    let credential = match args.runner {
        Some(_) => "",
        None => "  export OPENAI_API_KEY=...\n",
    };
    // Only who wrote it knows what a * stands for.
    let asked = if model.ends_with('*') { "MODEL" } else { model };
    let body = json!({"model": asked, "messages": [{"role": "user", "content": "Hello!"}]});
    format!(
        "{folder}: gateway.yaml, models.yaml, consumers.yaml, budget.yaml

The key of the consumer `me`, shown only now:
  {key}

Next:
{credential}  tollgate run -f {folder}
  curl http://127.0.0.1:8080/v1/chat/completions -H 'authorization: Bearer {key}' \\
    -H 'content-type: application/json' -d '{body}'
  tollgate usage
"
    )
}
