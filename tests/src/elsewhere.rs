//! `tollgate serve`, and an Envoy that only shares the bootstrap's files with it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::admin::Admin;
use crate::cli::tollgate;
use crate::client::Client;
use crate::config::Folder;
use crate::filter::Form;
use crate::poll;
use crate::process::{self, Process};
use crate::tools::Tools;

/// Control plane and Envoy in folders of their own.
pub struct Elsewhere {
    pub tools: Tools,
    pub home: PathBuf,
    pub conf: Folder,
    /// A socket's path must be short.
    sockets: tempfile::TempDir,
    xds: u16,
    admin: u16,
}

// === impl Elsewhere ===

impl Elsewhere {
    /// Its folder has this name.
    pub fn new(tools: &Tools, name: &str) -> anyhow::Result<Self> {
        let home = tools.logs.join(name);
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        let conf = Folder::new(&home.join("config"))?;
        Ok(Self {
            tools: tools.clone(),
            home,
            conf,
            sockets: tempfile::tempdir()?,
            xds: process::free_port()?,
            admin: process::free_port()?,
        })
    }

    pub fn serve(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let any = "127.0.0.1:0";
        Process::start(
            Command::new(&self.tools.tollgate)
                .args(["serve", "--bind", "127.0.0.1", "--metrics", any, "--probes", any])
                .args(["--xds", &local(self.xds), "--admin", &local(self.admin)])
                .arg("--source")
                .arg(self.conf.path())
                .arg("--state")
                .arg(self.home.join("state"))
                .args(Form::chosen().arguments())
                .args(arguments)
                .env("RUST_LOG", "debug,h2=info,hyper=info"),
            &self.home.join("tollgate.log"),
        )
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.admin)
    }

    /// Makes a certificate in a folder that the control plane does not know of, and writes Envoy's bootstrap.
    pub fn bootstrap(&self, lifetime: &str) -> anyhow::Result<()> {
        let path = |name: &str| self.home.join(name).display().to_string();
        let (state, out, server) = (path("state"), path("certificates"), local(self.xds));
        let arguments = ["bootstrap", "--state", &state, "--gateway", "default/llm", "--server", &server];
        let admin = self.sockets.path().join("admin.sock").display().to_string();
        let made = tollgate(
            &self.tools,
            &[&arguments[..], &["--out", &out, "--certificate-lifetime", lifetime, "--envoy-admin", &admin]].concat(),
        )?;
        std::fs::write(path("envoy.json"), made.success()?.out)?;
        Ok(())
    }

    pub fn envoy(&self, workers: u32) -> anyhow::Result<Process> {
        self.envoy_with(workers, &[])
    }

    /// With further arguments of Envoy.
    pub fn envoy_with(&self, workers: u32, arguments: &[&str]) -> anyhow::Result<Process> {
        let bootstrap = self.home.join("envoy.json");
        let mut command = Command::new(&self.tools.envoy);
        command.arg("--config-path").arg(bootstrap).args([
            "--use-dynamic-base-id",
            "--concurrency",
            &workers.to_string(),
        ]);
        command.args(arguments);
        Process::start(&mut command, &self.home.join("envoy.log"))
    }

    /// When the certificate was made that was made last.
    pub fn certified(&self) -> anyhow::Result<Duration> {
        let written = std::fs::metadata(self.home.join("certificates/proxy_default_llm.pem"))?.modified()?;
        Ok(written.duration_since(UNIX_EPOCH)?)
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Waits until the gateway answers this key.
pub async fn answers(url: &str, key: &str) -> anyhow::Result<()> {
    let client = Client::new(url, Some(key));
    poll::until("the gateway answers", || async {
        client.chat("smol").await?.expect(200)?;
        Ok(())
    })
    .await
}
