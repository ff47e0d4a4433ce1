//! Envoys as they are in the sidecars of a mesh, by the program `sidecar` of the tests.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::bench::config;
use crate::process::Process;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// They run until this value is dropped.
pub struct Sidecars {
    plain: Place,
    by_key: Place,
    by_identity: Place,
    _process: Process,
}

/// Whether the filter is in it, and how it knows its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    None,
    Key,
    /// The certificate of the caller's sidecar.
    Identity,
}

/// Where requests are sent to come to a sidecar, and the process of its Envoy.
#[derive(Clone, Copy)]
pub struct Place {
    pub port: u16,
    pub envoy: u32,
}

/// Compiles what [`Sidecars::start`] runs.
pub fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let step = Step { what: "building the sidecars' program", takes: Some("a minute the first time"), log: "sidecar" };
    step.run(workspace, shell::cargo(workspace).arg("build").args(PROGRAM))
}

const PROGRAM: [&str; 4] = ["--package", "tollgate-tests", "--bin", "sidecar"];

// === impl Sidecars ===

impl Sidecars {
    /// Starts them in front of this port of this machine.
    pub fn start(workspace: &Workspace, app: u16, home: &Path) -> anyhow::Result<Self> {
        let log = home.join("sidecar.log");
        let mut program = shell::cargo(workspace);
        program.args(["run", "--quiet"]).args(PROGRAM).args(["--", &app.to_string(), config::KEY]);
        let mut process = Process::start(&mut program, &log)?;
        let found = process.wait_for("the sidecars", || {
            let text = std::fs::read_to_string(&log)?;
            let line = text.lines().find(|line| line.starts_with('{')).context("they are not there yet")?;
            Ok(serde_json::from_str::<Value>(line)?)
        })?;
        let place = |name: &str| Place::read(found.get(name)).with_context(|| format!("no {name} in {found}"));
        let (plain, by_key, by_identity) = (place("plain")?, place("key")?, place("identity")?);
        Ok(Self { plain, by_key, by_identity, _process: process })
    }

    pub fn place(&self, filter: Filter) -> Place {
        match filter {
            Filter::None => self.plain,
            Filter::Key => self.by_key,
            Filter::Identity => self.by_identity,
        }
    }

    /// The processes that are measured.
    pub fn envoys(&self) -> [u32; 2] {
        [self.plain.envoy, self.by_key.envoy]
    }
}

// === impl Place ===

impl Place {
    fn read(value: Option<&Value>) -> Option<Self> {
        let number = |name: &str| value?.get(name)?.as_u64();
        Some(Self { port: number("port")?.try_into().ok()?, envoy: number("envoy")?.try_into().ok()? })
    }
}
