//! The real cert-manager in a lab (`tests/lab/cert-manager/`): its definitions, and its controller as a process of this machine
//! with the administrator's rights. Its webhook is not there.

use std::process::Command;

use anyhow::Context;

use super::Lab;
use crate::process::Process;

/// The namespace of the Secrets of ClusterIssuers.
pub const NAMESPACE: &str = "cert-manager";

const DEFINITIONS: &str = "cert-manager-definitions";

/// A controller that runs. It ends when this value is dropped.
pub struct CertManager {
    _process: Process,
}

// === impl CertManager ===

impl CertManager {
    /// Starts it. [`Lab::install_cert_manager`] comes before.
    pub fn start(lab: &Lab) -> anyhow::Result<Self> {
        let program = lab.tools.lab_program("cert-manager");
        anyhow::ensure!(program.exists(), "{} is missing: `cargo xtask test` builds it", program.display());
        // A test that is killed drops nothing.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).arg("-kubeconfig").arg(lab.kubeconfig());
        command.args(["-namespace", NAMESPACE]);
        let process = Process::start(&mut command, &lab.home().join("logs/cert-manager.log"));
        Ok(Self { _process: process.context("cert-manager does not start")? })
    }
}

// === impl Lab ===

impl Lab {
    /// Installs the definitions of cert-manager's kinds, and nobody who acts on objects of them.
    pub async fn install_cert_manager(&self) -> anyhow::Result<()> {
        self.install_api(DEFINITIONS).await
    }

    /// Takes them away again, and all objects with them.
    pub async fn remove_cert_manager(&self) -> anyhow::Result<()> {
        self.remove_api(DEFINITIONS).await
    }
}
