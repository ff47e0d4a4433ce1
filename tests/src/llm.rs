//! The real model server: llama.cpp with SmolLM2-135M, one process for all tests.

use std::process::Command;

use anyhow::Context;

use crate::poll;
use crate::process::{Process, free_port};
use crate::tools::Tools;

pub struct Llm {
    _process: Process,
    url: String,
}

// === impl Llm ===

impl Llm {
    /// Starts it and waits until it is healthy.
    pub async fn start(tools: &Tools) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&tools.logs)?;
        let log = tools.logs.join("llm.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Process::start(
            Command::new(&tools.python)
                .arg(tools.scripts.join("llm.py"))
                .args(["--port", &free_port()?.to_string()])
                .args(["--embeddings", "--with-parent", "--parallel", "8", "--model"])
                .arg(&tools.model),
            &log,
        )?;
        let url = poll::until("the model server is healthy", || {
            let found = process.ensure_running().and_then(|()| ready(&process.log()));
            async move { found }
        })
        .await?;
        Ok(Self { _process: process, url })
    }

    /// Its base, as http://127.0.0.1:PORT.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn ready(log: &str) -> anyhow::Result<String> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|line| line.get("url")?.as_str().map(str::to_owned))
        .context("it has not said its address")
}
