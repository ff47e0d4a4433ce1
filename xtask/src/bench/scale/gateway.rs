//! The released `tollgate run` and its Envoy on a folder of files, and what both use.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::client::{Client, Probe};
use crate::bench::stats::{self, Threads};
use crate::process::{self, Detached, Process, Run};
use crate::setup::Tools;

/// The time between two questions of the client.
pub const PACE: Duration = Duration::from_millis(1);
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the control plane has sent to Envoy, as Envoy counts it.
const RECEIVED: &str = "cluster.tollgate_control.upstream_cx_rx_bytes_total";

/// A process rests when it uses less than [`RESTING`] in each of [`RESTING_STEPS`] steps.
const STEP: Duration = Duration::from_millis(50);
const RESTING: Duration = Duration::from_millis(2);
const RESTING_STEPS: u32 = 4;
/// What still works then works always.
const REST_AT_LATEST: Duration = Duration::from_secs(20);

/// A new folder with the configuration and the state, and the port of the Gateway.
pub struct Home {
    path: PathBuf,
    config: PathBuf,
    port: u16,
}

/// Both processes run until this value is dropped.
pub struct Gateway {
    pub client: Client,
    /// From the start of the control plane to the first right answer.
    pub start_time: Duration,
    admin: PathBuf,
    /// It ends its Envoy, and so it comes first.
    control_plane: Process,
    envoy: Detached,
}

/// A moment from which on CPU time is counted.
pub struct Window {
    since: Instant,
    server: Threads,
    envoy: Threads,
}

/// Milliseconds of CPU time in a window: the control plane's, and Envoy's.
pub struct Used {
    pub elapsed: Duration,
    pub cpu: [f64; 2],
}

// === impl Home ===

impl Home {
    pub fn make(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
        let config = path.join("config");
        std::fs::create_dir_all(&config)?;
        Ok(Self { path: path.to_path_buf(), config, port: process::port_or_free(0)? })
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

// === impl Gateway ===

impl Gateway {
    /// Returns when the probe has got the right answer. What is answered before does not count.
    pub fn start(tools: &Tools, tollgate: &Path, home: Home, probe: &Probe) -> anyhow::Result<Self> {
        let state = home.path.join("state");
        let admin = format!("127.0.0.1:{}", process::port_or_free(0)?);
        let run = Run {
            tollgate,
            tools,
            config: &home.config,
            state: &state,
            admin: &admin,
            arguments: &["--concurrency", "1"],
            log: &home.path.join("tollgate.log"),
        };
        let started = Instant::now();
        let mut control_plane = run.spawn()?;
        let mut client = Client::new(home.port);
        while !client.gets(probe) {
            control_plane.ensure_running("tollgate run")?;
            let in_time = started.elapsed() < PATIENCE;
            anyhow::ensure!(in_time, "no right answer after {} s; logs: {}", PATIENCE.as_secs(), home.path.display());
            std::thread::sleep(PACE);
        }
        let start_time = started.elapsed();
        let envoy = Detached::new(process::envoy_of(&state)?);
        Ok(Self { client, start_time, admin: admin_socket(&state)?, control_plane, envoy })
    }

    pub fn window(&self) -> anyhow::Result<Window> {
        let (server, envoy) = (Threads::of(self.server())?, Threads::of(self.envoy.id)?);
        Ok(Window { since: Instant::now(), server, envoy })
    }

    pub fn used_since(&self, window: &Window) -> anyhow::Result<Used> {
        let now = self.window()?;
        let millis = |used: Duration| used.as_secs_f64() * 1e3;
        let cpu = [millis(now.server.since(&window.server)), millis(now.envoy.since(&window.envoy))];
        Ok(Used { elapsed: now.since.duration_since(window.since), cpu })
    }

    /// Waits until both processes have done what there was to do.
    pub fn come_to_rest(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + REST_AT_LATEST;
        let mut resting = 0;
        while resting < RESTING_STEPS && Instant::now() < end {
            let window = self.window()?;
            std::thread::sleep(STEP);
            let used = self.used_since(&window)?;
            let rests = used.cpu.into_iter().all(|used| used < RESTING.as_secs_f64() * 1e3);
            resting = if rests { resting + 1 } else { 0 };
        }
        Ok(())
    }

    /// Bytes that Envoy has received from the control plane so far.
    pub fn received(&self) -> anyhow::Result<u64> {
        let mut stream = UnixStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let path = format!("/stats?filter=^{}$", RECEIVED.replace('.', "\\."));
        write!(stream, "GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let value = answer.lines().find_map(|line| line.strip_prefix(RECEIVED)?.strip_prefix(": ")?.parse().ok());
        value.with_context(|| format!("Envoy does not tell {RECEIVED}: {answer}"))
    }

    /// MiB of the control plane and of Envoy.
    pub fn memory(&self) -> anyhow::Result<[f64; 2]> {
        Ok([stats::memory(self.server())?, stats::memory(self.envoy.id)?])
    }

    fn server(&self) -> u32 {
        self.control_plane.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Envoy waits for open connections before it ends.
        self.client.close();
    }
}

/// The socket of Envoy's admin interface, by the file that Envoy was started with.
fn admin_socket(state: &Path) -> anyhow::Result<PathBuf> {
    let file = state.join("envoy-bootstrap.json");
    let bootstrap: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)
        .with_context(|| format!("{} is not JSON", file.display()))?;
    let socket = bootstrap.pointer("/admin/address/pipe/path").and_then(Value::as_str);
    Ok(socket.context("Envoy's admin interface is not a socket")?.into())
}
