//! Running one step: says what it does and how long that may take, keeps its output in a log file,
//! shows that it is alive, and on failure prints the end of the log.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::interrupt;
use crate::workspace::Workspace;

/// The time between two signs of life where there is no terminal that can redraw a line.
const QUIET: Duration = Duration::from_secs(20);

pub struct Step<'a> {
    /// What it does, as a person would say it.
    pub what: &'a str,
    /// How long it may take, where that is more than some seconds.
    pub takes: Option<&'a str>,
    /// The name of its log file.
    pub log: &'a str,
}

/// A step that ran to its end.
pub struct Outcome {
    pub success: bool,
    pub log: PathBuf,
}

// === impl Step ===

impl Step<'_> {
    /// Runs the command. If it fails, the error shows the end of its output.
    pub fn run(&self, workspace: &Workspace, command: &mut Command) -> anyhow::Result<()> {
        let outcome = self.outcome(workspace, command)?;
        if outcome.success {
            return Ok(());
        }
        eprintln!("{}", tail(&outcome.log, 40));
        anyhow::bail!("{} failed; the whole output: {}", self.what, outcome.log.display())
    }

    /// Runs the command to its end, whether it succeeds or fails.
    pub fn outcome(&self, workspace: &Workspace, command: &mut Command) -> anyhow::Result<Outcome> {
        std::fs::create_dir_all(workspace.logs())?;
        let log = workspace.logs().join(format!("{}.log", self.log));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        match self.takes {
            Some(takes) => println!("==> {} ({takes})", self.what),
            None => println!("==> {}", self.what),
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        interrupt::started(child.id());
        let mut pulse = Pulse::new(&log);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                interrupt::ended(child.id());
                break status;
            }
            std::thread::sleep(Duration::from_millis(100));
            pulse.beat(started.elapsed());
        };
        pulse.end();
        let took = started.elapsed();
        let sign = if status.success() { "ok" } else { "FAILED" };
        println!("    {sign} ({:.1} s)", took.as_secs_f64());
        Ok(Outcome { success: status.success(), log })
    }
}

/// A log as it is, or nothing.
pub fn read_log(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = read_log(log);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// The standard output of a command that takes next to no time.
pub fn read(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    anyhow::ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace.root());
    without_ours(&mut command);
    command
}

/// What `cargo run` sets for xtask itself must not reach the cargo below it: some build scripts would run anew.
pub fn without_ours(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Signs of life of a step: the last line of its log.
struct Pulse<'a> {
    log: &'a Path,
    terminal: bool,
    said: Duration,
}

// === impl Pulse ===

impl<'a> Pulse<'a> {
    fn new(log: &'a Path) -> Self {
        Self { log, terminal: std::io::stdout().is_terminal(), said: Duration::ZERO }
    }

    fn beat(&mut self, elapsed: Duration) {
        let pause = if self.terminal { Duration::from_secs(1) } else { QUIET };
        if elapsed < self.said + pause {
            return;
        }
        self.said = elapsed;
        let line: String = last_line(self.log).chars().take(90).collect();
        if self.terminal {
            print!("\r\x1b[2K    {} s: {line}", elapsed.as_secs());
            let _ = std::io::stdout().flush();
        } else {
            println!("    ... {} s: {line}", elapsed.as_secs());
        }
    }

    fn end(&self) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
    }
}

fn last_line(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(400)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    let end = read().unwrap_or_default();
    end.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("").to_owned()
}
