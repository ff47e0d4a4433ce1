//! A workload with a sidecar that has the filter, callers with sidecars, and the control plane that the filter asks. Istiod is
//! not needed (`istiod.rs`).

use anyhow::Context;

use crate::config;
use crate::elsewhere::Elsewhere;
use crate::istiod::{CONTROL_PLANE, GATEWAY, Istiod, Ports};
use crate::mesh::{Authority, Holds, Sidecar, folder, identity};
use crate::poll;
use crate::process::{Process, free_port};
use crate::tools::Tools;

pub const KEY: &str = "planted-key-of-keyed";
pub const FOREIGN: &str = "planted-key-of-foreign";

/// A runner with its sidecar, callers, and the control plane that the sidecar asks.
pub struct Meshed {
    pub authority: Authority,
    pub elsewhere: Elsewhere,
    pub istiod: Istiod,
    /// The folder of the control plane's certificate.
    own: String,
}

pub fn policy(tokens: u64) -> String {
    config::budget(tokens, "")
        .replace("{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}", "{kind: Service, name: runner}")
}

/// Where the one Pod is reached.
pub fn endpoints(port: u16) -> String {
    format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: runner-1, labels: {{kubernetes.io/service-name: runner}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: runner-1}}}}]
ports: [{{name: http, port: {port}}}]
"
    )
}

// === impl Meshed ===

impl Meshed {
    /// In front of `app`, a port of this machine. Its sidecar has a certificate of this account.
    pub fn new(tools: &Tools, name: &str, account: &str, app: u16) -> anyhow::Result<Self> {
        let elsewhere = Elsewhere::new(tools, name)?;
        let authority = Authority::new()?;
        let (own, runner) = (folder(&elsewhere.home, "control-plane"), folder(&elsewhere.home, "runner"));
        authority.issue(&own, &identity(CONTROL_PLANE), Holds::Now, &authority)?;
        authority.issue(&runner, &identity(account), Holds::Now, &authority)?;
        let objects = format!(
            "\
apiVersion: v1
kind: Service
metadata: {{name: runner}}
spec: {{selector: {{app: runner}}, ports: [{{name: http, port: 80, targetPort: {app}}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: runner-1, labels: {{app: runner, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: runner, containers: []}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: web}}
spec: {{identities: [spiffe://cluster.local/ns/default/sa/web]}}
---
"
        );
        let foreign =
            config::consumer("foreign", FOREIGN, "").replace("name: foreign,", "name: foreign, namespace: other,");
        elsewhere.conf.write("objects.yaml", &format!("{objects}{foreign}"))?;
        elsewhere.conf.write("keyed.yaml", &config::consumer("keyed", KEY, ""))?;
        elsewhere.conf.write("policy.yaml", &policy(1_000_000))?;
        elsewhere.conf.write("endpoints.yaml", &endpoints(app))?;
        let ports = Ports { sidecars: free_port()?, code: free_port()? };
        let istiod = Istiod::new(tools, elsewhere.conf.path(), &runner, ports);
        let own = own.to_str().context("a path in UTF-8")?.to_owned();
        Ok(Self { authority, elsewhere, istiod, own })
    }

    pub async fn serve(&self) -> anyhow::Result<Process> {
        let Ports { sidecars, code } = self.istiod.ports;
        let [sidecars, code] = [sidecars, code].map(|port| format!("127.0.0.1:{port}"));
        let gateway = folder(&self.elsewhere.home, GATEWAY);
        let gateway = gateway.to_str().context("a path in UTF-8")?;
        let process = self.elsewhere.serve(&[
            "--mesh-certificates",
            gateway,
            "--own-mesh-certificates",
            &self.own,
            "--sidecars",
            &sidecars,
            "--sidecar-code",
            &code,
        ])?;
        poll::until("the control plane serves", || async { self.elsewhere.admin().status().await }).await?;
        Ok(process)
    }

    /// A workload with this service account, which asks the runner.
    pub async fn caller(&self, account: &str, runner: &Sidecar) -> anyhow::Result<Sidecar> {
        let folder = folder(&self.elsewhere.home, account);
        self.authority.issue(&folder, &identity(account), Holds::Now, &self.authority)?;
        Sidecar::lasting(&self.elsewhere.tools, &folder, &identity("runner"), runner.port()).await
    }
}
