//! The options of `tollgate serve` for the sidecars of a mesh.

use std::path::PathBuf;
use std::sync::Arc;

use tollgate_core::mesh::Mesh;
use tollgate_core::placement::{Setting, Sidecars};

use super::super::stages::listen;
use crate::serve::sidecars::Ports;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "In an Istio mesh")]
pub struct SidecarArgs {
    /// Sidecars act on the policies whose target is a Service, too. The filter in them asks here for the keys of its
    /// workload and calls the ledger (gRPC, the mesh's TLS)
    #[arg(long, value_name = "IP:PORT", requires = "mesh_certificates")]
    sidecars: Option<String>,
    /// Where their agents fetch the filter's code (HTTP)
    #[arg(long, value_name = "IP:PORT", requires = "sidecars")]
    sidecar_code: Option<String>,
    /// The folder where Istio's agent keeps the certificate of this control plane, with the same names
    /// [default: that of --mesh-certificates]
    #[arg(long, value_name = "DIR", requires = "sidecars")]
    own_mesh_certificates: Option<PathBuf>,
}

// === impl SidecarArgs ===

impl SidecarArgs {
    /// What is translated for sidecars besides.
    pub fn setting(&self, setting: Setting) -> Setting {
        let sidecars = if self.sidecars.is_some() { Sidecars::Inbound } else { Sidecars::None };
        Setting { sidecars, ..setting }
    }

    /// Opens the ports. None: sidecars are not served.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn ports(&self, mesh: Option<&Arc<Mesh>>) -> anyhow::Result<Option<Ports>> {
        let Some((address, mesh)) = self.sidecars.as_deref().zip(mesh) else { return Ok(None) };
        let certificates = self.own_mesh_certificates.clone().unwrap_or_else(|| (&mesh.certificates).into());
        let code = match &self.sidecar_code {
            Some(address) => Some(listen(address, "--sidecar-code").await?),
            None => None,
        };
        let listener = listen(address, "--sidecars").await?;
        Ok(Some(Ports { listener, code, mesh: Arc::clone(mesh), certificates }))
    }
}
