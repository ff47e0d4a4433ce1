//! Python programs of tests/python that take a job and answer it, both as JSON.

use std::process::Stdio;

use anyhow::Context;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::tools::Tools;

/// Runs one to its end. Returns what it printed.
///
/// # Errors
/// When it fails; the error has what it said.
pub async fn run(tools: &Tools, script: &str, job: &Value) -> anyhow::Result<Vec<u8>> {
    let mut child = tokio::process::Command::new(&tools.python)
        .arg(tools.scripts.join(script))
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(job.to_string().as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "{script} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
