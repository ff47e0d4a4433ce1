//! The options of `tollgate serve` for the sidecars of a mesh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tollgate_core::envoy::{
    ControlCluster, FilterCode, FilterSetup, HostTooLong, IstioCluster, RequestFields, Runtime,
};
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::Key;
use tollgate_core::placement::{Setting, Sidecars};

use super::super::stages::listen;
use super::code_place::CodePlace;
use super::place;
use crate::serve::sidecars::Ports;

/// Who tells agents of the filter's code.
pub const TELLER: &str = "tollgate";

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "In an Istio mesh")]
pub struct SidecarArgs {
    /// Sidecars act on the policies whose target is a Service and on the ModelPools whose parent is one, too. The filter in
    /// them asks here for the keys of its workload and calls the ledger (gRPC, the mesh's TLS)
    #[arg(long, value_name = "IP:PORT", requires = "mesh_certificates")]
    sidecars: Option<String>,
    /// Where their agents fetch the filter's code (HTTP)
    #[arg(long, value_name = "IP:PORT", requires = "sidecars")]
    sidecar_code: Option<String>,
    /// The folder where Istio's agent keeps the certificate of this control plane, with the same names
    /// [default: that of --mesh-certificates]
    #[arg(long, value_name = "DIR", requires = "sidecars")]
    own_mesh_certificates: Option<PathBuf>,
    /// Keep the EnvoyFilters and HTTPRoutes by which istiod programs sidecars. It needs the role for sidecars (manifests/rbac),
    /// and --sidecar-code
    #[arg(long, requires_all = ["source", "sidecar_code"])]
    envoy_filters: bool,
    #[command(flatten)]
    place: SidecarPlace,
}

/// Where sidecars find the control plane. The ports of its Service are those that it listens on.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "In an Istio mesh")]
pub struct SidecarPlace {
    /// The Service of the control plane as sidecars know it [default: tollgate.NAMESPACE.svc.CLUSTER-DOMAIN]
    #[arg(long, value_name = "HOST")]
    sidecar_control_plane: Option<String>,
    /// Agents fetch the filter's code there and not at the control plane: the URL of a file (http:// or https://) with exactly
    /// the code of this version, or an image with it, by its digest (oci://REGISTRY/IMAGE@sha256:HEX)
    #[arg(long, value_name = "URL")]
    sidecar_code_url: Option<CodePlace>,
    /// The service account of proxies of Gateways, beyond those that this control plane provides: sidecars believe them about
    /// what a request is charged to already; may be given again
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = place)]
    gateway_account: Vec<Key>,
}

// === impl SidecarPlace ===

impl SidecarPlace {
    /// What the filter is told. `namespace` is the control plane's, and `teller` is for agents ([`FilterCode::ByAgent`]).
    ///
    /// # Errors
    /// When the host is too long.
    pub fn setup(
        &self,
        namespace: &str,
        mesh: &Mesh,
        at: At,
        sha256: &str,
        teller: String,
    ) -> Result<FilterSetup, HostTooLong> {
        let host = self.sidecar_control_plane.clone();
        let host = host.unwrap_or_else(|| format!("tollgate.{namespace}.svc.{}", mesh.cluster_domain));
        let (uri, sha256) = match &self.sidecar_code_url {
            Some(place) => place.fetched(sha256),
            None => (format!("http://{host}:{}/code/{sha256}.wasm", at.code), sha256.to_owned()),
        };
        let control_cluster = ControlCluster::Istio(IstioCluster::new(host, at.keys)?);
        let code = FilterCode::ByAgent { sha256, uri, teller };
        let gateways = self.gateway_account.iter().flat_map(|account| mesh.identities_of(account)).collect();
        Ok(FilterSetup { code, runtime: Runtime::Wasm, control_cluster, gateways, fields: RequestFields::Kept })
    }
}

/// The ports for sidecars.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Keys and the ledger.
    pub keys: u16,
    /// The filter's code.
    pub code: u16,
}

// === impl SidecarArgs ===

impl SidecarArgs {
    /// What is translated for sidecars besides.
    pub fn setting(&self, setting: Setting) -> Setting {
        let sidecars = if self.sidecars.is_some() { Sidecars::Both } else { Sidecars::None };
        Setting { sidecars, ..setting }
    }

    /// What EnvoyFilters are made of. None: they are not kept.
    ///
    /// # Errors
    /// When the host is too long, or a port has no address.
    pub fn envoy_filters(
        &self,
        namespace: &str,
        mesh: Option<&Arc<Mesh>>,
        ports: Option<&Ports>,
        code: &str,
    ) -> anyhow::Result<Option<FilterSetup>> {
        let Some((mesh, ports)) = mesh.zip(ports).filter(|_| self.envoy_filters) else { return Ok(None) };
        let Some(of_code) = &ports.code else { return Ok(None) };
        let at = At { keys: ports.listener.local_addr()?.port(), code: of_code.local_addr()?.port() };
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Some(self.place.setup(namespace, mesh, at, code, format!("{TELLER} since {start}"))?))
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
