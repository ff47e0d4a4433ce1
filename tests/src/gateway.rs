//! The gateway under test: the real binary `tollgate run` with the real Envoy as its child.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::admin::Admin;
use crate::client::Client;
use crate::config::Folder;
use crate::envoy_admin::EnvoyAdmin;
use crate::filter::Form;
use crate::poll;
use crate::process::{self, Process};
use crate::tools::Tools;

/// How to start it.
pub struct Setup {
    tools: Tools,
    home: PathBuf,
    folder: Folder,
    source: Source,
    port: u16,
    arguments: Vec<String>,
    umask: &'static str,
    admin_token: Option<String>,
    /// The name of the state directory.
    state: String,
    /// A folder for temporary files, in place of the machine's.
    temporary: Option<PathBuf>,
}

/// Where its configuration comes from.
enum Source {
    Folder,
    /// The cluster of this kubeconfig.
    Cluster(PathBuf),
}

pub struct RunningGateway {
    setup: Setup,
    process: Process,
    admin_port: u16,
    admin: Admin,
}

// === impl Setup ===

impl Setup {
    /// With a folder of its own for configuration, state and logs, named after the test.
    pub fn new(tools: &Tools, test: &str) -> anyhow::Result<Self> {
        let home = tools.logs.join(test);
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        let folder = Folder::new(&home.join("config"))?;
        Ok(Self {
            tools: tools.clone(),
            home,
            folder,
            source: Source::Folder,
            port: process::free_port()?,
            arguments: Vec::new(),
            umask: "022",
            admin_token: None,
            state: "state".to_owned(),
            temporary: None,
        })
    }

    /// The port that the configuration's Gateway listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Writes one file of the configuration.
    pub fn file(self, name: &str, text: &str) -> anyhow::Result<Self> {
        self.folder.write(name, text)?;
        Ok(self)
    }

    /// It reads a cluster, and no folder.
    pub fn cluster(self, kubeconfig: &Path) -> Self {
        Self { source: Source::Cluster(kubeconfig.to_owned()), ..self }
    }

    /// Further arguments of `tollgate run`.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// The umask that it is started under, in place of the usual one.
    pub fn umask(self, umask: &'static str) -> Self {
        Self { umask, ..self }
    }

    /// Its state directory has this name.
    pub fn state_named(self, name: &str) -> Self {
        Self { state: name.to_owned(), ..self }
    }

    /// Its temporary files are in this folder.
    pub fn temporary(self, folder: &Path) -> Self {
        Self { temporary: Some(folder.to_owned()), ..self }
    }

    /// The admin port wants this token.
    pub fn admin_token(self, token: &str) -> anyhow::Result<Self> {
        let file = self.home.join("admin-token");
        std::fs::write(&file, token)?;
        let file = file.to_str().context("a path in UTF-8")?.to_owned();
        let setup = self.arguments(&["--admin-token-file", &file]);
        Ok(Self { admin_token: Some(token.to_owned()), ..setup })
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> anyhow::Result<RunningGateway> {
        let admin_port = process::free_port()?;
        let process = self.spawn(admin_port)?;
        let admin = Admin::new(admin_port);
        let admin = self.admin_token.as_deref().map_or(admin.clone(), |token| admin.with_token(token));
        let mut gateway = RunningGateway { setup: self, process, admin_port, admin };
        gateway.ready().await?;
        Ok(gateway)
    }

    fn spawn(&self, admin_port: u16) -> anyhow::Result<Process> {
        let source = match &self.source {
            Source::Folder => [OsStr::new("-f"), self.folder.path().as_os_str()].to_vec(),
            Source::Cluster(kubeconfig) => ["--source", "kubernetes", "--kubeconfig"]
                .map(OsStr::new)
                .into_iter()
                .chain([kubeconfig.as_os_str()])
                .collect(),
        };
        Process::start(
            Command::new("sh")
                .args(["-c", &format!("umask {} && exec \"$0\" \"$@\"", self.umask)])
                .arg(&self.tools.tollgate)
                .arg("run")
                .args(source)
                .arg("--envoy")
                .arg(&self.tools.envoy)
                .args(["--bind", "127.0.0.1"])
                .args(["--admin", &format!("127.0.0.1:{admin_port}")])
                .arg("--state")
                .arg(self.state())
                .args(Form::chosen().arguments())
                .args(&self.arguments)
                .envs(self.temporary.iter().map(|folder| ("TMPDIR", folder)))
                // The most talkative logs are the ones to search for secrets.
                .env("RUST_LOG", "debug,h2=info,hyper=info"),
            &self.home.join("tollgate.log"),
        )
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.home.join(&self.state)
    }
}

// === impl RunningGateway ===

impl RunningGateway {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.setup.port)
    }

    pub fn client(&self, key: &str) -> Client {
        Client::new(&self.url(), Some(key))
    }

    pub fn without_key(&self) -> Client {
        Client::new(&self.url(), None)
    }

    /// The port that clients use.
    pub fn port(&self) -> u16 {
        self.setup.port
    }

    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    pub fn folder(&self) -> &Folder {
        &self.setup.folder
    }

    pub fn home(&self) -> &Path {
        &self.setup.home
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.setup.state()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything that control plane and Envoy have logged.
    pub fn logs(&self) -> anyhow::Result<String> {
        let mut all = self.process.log();
        collect(&self.setup.state(), &mut all)?;
        Ok(all)
    }

    /// Starts the control plane again, on the same ports and state.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.setup.spawn(self.admin_port)?;
        self.ready().await
    }

    /// Waits until the control plane says that it is ready.
    async fn ready(&mut self) -> anyhow::Result<()> {
        poll::until("the gateway is ready", || {
            // An end is final: no use in waiting on.
            let running = self.process.ensure_running();
            let admin = self.admin.clone();
            async move {
                if let Err(ended) = running {
                    return Ok(Err(ended));
                }
                let status = admin.status().await?;
                anyhow::ensure!(status.get("ready") == Some(&Value::Bool(true)), "{status}");
                Ok(Ok(()))
            }
        })
        .await?
    }

    /// The status as /api/status says it, once `seen` is content with it.
    pub async fn status_when(&self, what: &str, seen: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        poll::until(what, || async {
            let status = self.admin.status().await?;
            anyhow::ensure!(seen(&status), "{status}");
            Ok(status)
        })
        .await
    }

    /// Envoy's own admin interface.
    pub fn envoy(&self) -> anyhow::Result<EnvoyAdmin> {
        EnvoyAdmin::of(self.envoy_id()?)
    }

    /// Envoy's process id.
    pub fn envoy_id(&self) -> anyhow::Result<u32> {
        self.envoys()?.next().context("no Envoy runs on this state folder")
    }

    fn envoys(&self) -> anyhow::Result<impl Iterator<Item = u32>> {
        let state = self.setup.state().canonicalize()?;
        let state = state.to_str().context("a path in UTF-8")?.to_owned();
        // By what it was started with, because a second control plane adopts the first one's Envoy.
        let found = std::fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(move |id| {
                let of_envoy =
                    std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|program| program.ends_with("envoy"));
                let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                of_envoy && String::from_utf8_lossy(&arguments).contains(&state)
            });
        Ok(found)
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        // A control plane that was killed, here or by the test, leaves its Envoy, which is ours to end.
        self.process.end();
        for id in self.envoys().into_iter().flatten() {
            let _ = process::signal_process(id, rustix::process::Signal::KILL);
        }
    }
}

/// The text files of a folder and those below it, one after the other.
fn collect(folder: &Path, all: &mut String) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, all)?;
        } else if path.extension().is_some_and(|ending| ending == "log") {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(&path)?));
        }
    }
    Ok(())
}
