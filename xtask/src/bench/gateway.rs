//! An Envoy that a build of tollgate programs, for the benchmark.

use std::path::Path;

use crate::bench::config;
use crate::process::{self, Detached, Process, Run};
use crate::setup::Tools;

/// Both processes run until this value is dropped.
pub struct Gateway {
    pub port: u16,
    /// The port of a Gateway that routes to no model and so has no filter.
    pub bare: u16,
    /// It ends its Envoy, and so it comes first.
    pub control_plane: Process,
    pub envoy: Detached,
}

// === impl Gateway ===

impl Gateway {
    /// `arguments` are added to those of `tollgate run`.
    pub fn start(
        tools: &Tools,
        tollgate: &Path,
        arguments: &[&str],
        backend: u16,
        home: &Path,
    ) -> anyhow::Result<Self> {
        if home.exists() {
            std::fs::remove_dir_all(home)?;
        }
        let (folder, state) = (home.join("config"), home.join("state"));
        std::fs::create_dir_all(&folder)?;
        let port = process::port_or_free(0)?;
        let bare = process::port_or_free(0)?;
        config::write(&folder, port, bare, backend)?;
        let admin = format!("127.0.0.1:{}", process::port_or_free(0)?);
        let control_plane = Run {
            tollgate,
            tools,
            config: &folder,
            state: &state,
            admin: &admin,
            arguments: &[&["--concurrency", "1"], arguments].concat(),
            log: &home.join("tollgate.log"),
        }
        .start()?;
        Ok(Self { port, bare, control_plane, envoy: Detached::new(process::envoy_of(&state)?) })
    }
}
