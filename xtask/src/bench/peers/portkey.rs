//! Portkey as its package starts it, in production mode and without its console. Where to send a request is said in
//! headers of each request, which is how it is used without its own service.

use std::process::Command;

use super::{Site, listens};
use crate::bench::load::Entry;
use crate::bench::parts::PATH;
use crate::process::Process;

pub fn start(site: &Site<'_>) -> anyhow::Result<Process> {
    let program = site.installed.join("node_modules/@portkey-ai/gateway/build/start-server.js");
    let mut command = Command::new("node");
    command.arg(program).arg(format!("--port={}", site.port)).arg("--headless");
    command.env("NODE_ENV", "production").env("HOME", site.home).current_dir(site.home);
    let mut process = Process::start_detached(&mut command, &site.home.join("portkey.log"))?;
    process.wait_for("Portkey", || listens(site.port))?;
    Ok(process)
}

/// The headers of a request lead it to this port.
pub fn entry(backend: u16) -> Entry {
    let host = format!("x-portkey-custom-host: http://127.0.0.1:{backend}/v1");
    Entry::new(PATH, "m", &["authorization: Bearer none", "x-portkey-provider: openai", &host])
}
