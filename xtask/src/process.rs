//! Child processes of demo and benchmark. Their output goes to a file, and they are ended when they are not needed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http;
use crate::interrupt;
use crate::setup::Tools;
use crate::shell;
use crate::workspace::Workspace;

/// A process that ends when this value is dropped, unless it was let go.
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        interrupt::started(child.id());
        Ok(Self { child: Some(child), log: log.to_path_buf() })
    }

    /// Does the same in a process group of its own, where Ctrl-C of the terminal does not reach the process.
    pub fn start_detached(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        Self::start(command.process_group(0), log)
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Calls `look` until it works, while the process runs.
    pub fn wait_for<T>(&mut self, what: &str, look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.wait_at_most(Duration::from_secs(60), what, look)
    }

    /// The same with another patience than a minute.
    pub fn wait_at_most<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + patience;
        loop {
            let last = match look() {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            self.ensure_running(what)?;
            if Instant::now() > end {
                let log = self.log.display();
                return Err(last.context(format!("{what}: not within {} s; its log: {log}", patience.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An error, and the end of its output, if it has ended.
    pub fn ensure_running(&mut self, what: &str) -> anyhow::Result<()> {
        if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            interrupt::ended(self.id());
            eprintln!("{}", shell::tail(&self.log, 30));
            anyhow::bail!("{what}: it ended ({status}); its log: {}", self.log.display());
        }
        Ok(())
    }

    /// Leaves it running.
    pub fn let_go(mut self) {
        interrupt::ended(self.id());
        self.child = None;
    }

    /// Ends it and waits for its end.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        interrupt::ended(child.id());
        if signal(child.id(), Signal::TERM).is_ok() {
            for _ in 0..100 {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// An Envoy that is nobody's child, as `tollgate run` starts it. It ends with its control plane. If it has not when this
/// value is dropped, it is killed.
pub struct Detached {
    pub id: u32,
}

// === impl Detached ===

impl Detached {
    pub fn new(id: u32) -> Self {
        interrupt::started(id);
        Self { id }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        interrupt::ended(self.id);
        if is_envoy(self.id) {
            let _ended_meanwhile = signal(self.id, Signal::KILL);
        }
    }
}

fn is_envoy(id: u32) -> bool {
    std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|program| program.ends_with("envoy"))
}

pub fn signal(id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(id)?).context("not a process id")?;
    Ok(kill_process(pid, signal)?)
}

/// Starts a real model server on this port. Returns it when it is healthy.
pub fn llm(workspace: &Workspace, tools: &Tools, port: u16, log: &Path) -> anyhow::Result<Process> {
    let mut process = Process::start_detached(
        Command::new(&tools.python)
            .arg(workspace.root().join("tests/python/llm.py"))
            .args(["--parallel", "4", "--port", &port.to_string(), "--model"])
            .arg(&tools.model),
        log,
    )?;
    let log = log.to_path_buf();
    process.wait_for("the model server", || {
        let text = std::fs::read_to_string(&log)?;
        anyhow::ensure!(text.lines().any(|line| line.starts_with("{\"url\"")), "not healthy");
        Ok(())
    })?;
    Ok(process)
}

/// `tollgate run`. `start` returns when Envoy serves the configuration, and `spawn` returns at once.
pub struct Run<'a> {
    pub tollgate: &'a Path,
    pub tools: &'a Tools,
    pub config: &'a Path,
    pub state: &'a Path,
    pub admin: &'a str,
    pub arguments: &'a [&'a str],
    pub log: &'a Path,
}

// === impl Run ===

impl Run<'_> {
    pub fn start(&self) -> anyhow::Result<Process> {
        let mut process = self.spawn()?;
        process.wait_for("tollgate run", || {
            let status = http::get_json(self.admin, "/api/status")?;
            anyhow::ensure!(status.get("ready") == Some(&Value::Bool(true)), "{status}");
            Ok(())
        })?;
        Ok(process)
    }

    pub fn spawn(&self) -> anyhow::Result<Process> {
        Process::start_detached(
            Command::new(self.tollgate)
                .arg("run")
                .arg("-f")
                .arg(self.config)
                .arg("--envoy")
                .arg(&self.tools.envoy)
                .arg("--state")
                .arg(self.state)
                .args(["--admin", self.admin])
                .args(self.arguments),
            self.log,
        )
    }
}

/// This port, or another one if it is taken.
pub fn port_or_free(wanted: u16) -> anyhow::Result<u16> {
    let probe = std::net::TcpListener::bind(("127.0.0.1", wanted))
        .or_else(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(probe.local_addr()?.port())
}

/// The Envoy that runs on this state folder.
pub fn envoy_of(state: &Path) -> anyhow::Result<u32> {
    let state = state.canonicalize()?;
    let state = state.to_str().context("a path in UTF-8")?;
    std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|id| {
            let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            is_envoy(*id) && String::from_utf8_lossy(&arguments).contains(state)
        })
        .context("no Envoy runs on this state folder")
}
