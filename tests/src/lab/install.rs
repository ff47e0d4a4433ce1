//! What is installed into a lab before Tollgate is tested there: the Gateway API, then Tollgate.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;

use super::{Lab, PATIENCE, WAIT};
use crate::poll;

/// The class of the Gateways that are Tollgate's.
pub const GATEWAY_CLASS: &str = "tollgate";
/// Where Tollgate runs.
pub const NAMESPACE: &str = "tollgate-system";
/// Which Pods there are the control plane's.
pub const CONTROL_PLANE: &str = "app.kubernetes.io/name=tollgate";
const RELEASE: &str = "tollgate";

/// The images of the lab, no volume (a lab has none), and one proxy for each Gateway, because all are on one machine.
pub const VALUES: [&str; 4] = [
    "image.repository=tollgate",
    "proxies.image.repository=tollgate-proxy",
    "ledger.persistence.enabled=false",
    "proxies.replicas=1",
];

/// The books of [`Lab::install_books`], which outlive a Pod. The later of two values counts.
pub const LASTING: [&str; 2] = ["ledger.persistence.enabled=true", "ledger.persistence.existingClaim=books"];

/// Two replicas with these books. The later of two values counts.
pub const TWO_REPLICAS: [&str; 3] = ["replicas=2", LASTING[0], LASTING[1]];

/// What replicas of the control plane share.
const BOOKS: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: books}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: ''
  hostPath: {path: FOLDER}
  claimRef: {namespace: tollgate-system, name: books}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: books, namespace: tollgate-system}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ''
  volumeName: books
  resources: {requests: {storage: 1Gi}}
";

/// No Pod in it may do more than the restricted Pod Security Standard allows.
const RESTRICTED: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: tollgate-system
  labels: {pod-security.kubernetes.io/enforce: restricted}
";

// === impl Lab ===

impl Lab {
    /// Installs the Gateway API, of the version that the conformance suite has.
    pub async fn install_gateway_api(&self) -> anyhow::Result<()> {
        self.install_api("gateway-api").await
    }

    /// Installs the Inference Extension, of the version that its conformance suite has.
    pub async fn install_inference_extension(&self) -> anyhow::Result<()> {
        self.install_api("inference-extension").await
    }

    /// Installs the definitions of Istio's kinds. No istiod is there to act on objects of them.
    pub async fn install_istio(&self) -> anyhow::Result<()> {
        self.install_api("istio").await
    }

    /// Installs the definition of one of them alone: in a cluster without Istio, Gateways may verify JWTs.
    pub async fn install_request_authentications(&self) -> anyhow::Result<()> {
        const NAME: &str = "requestauthentications.security.istio.io";
        let all = self.tools.lab_program("istio").join("customresourcedefinitions.gen.yaml");
        let all = std::fs::read_to_string(all)?;
        let is_it = |definition: &&str| definition.contains(&format!("\n  name: {NAME}\n"));
        self.apply(all.split("\n---\n").find(is_it).with_context(|| format!("no {NAME}"))?).await?;
        self.definitions_are_known().await
    }

    /// Installs the definition of an ExternalSecret. Nobody is there to act on one.
    pub async fn install_external_secrets(&self) -> anyhow::Result<()> {
        self.install_api("external-secrets").await
    }

    /// Takes it away again.
    pub async fn remove_external_secrets(&self) -> anyhow::Result<()> {
        self.remove_api("external-secrets").await
    }

    pub(super) async fn remove_api(&self, folder: &str) -> anyhow::Result<()> {
        let definitions = self.tools.lab_program(folder);
        let definitions = definitions.to_str().context("a path in UTF-8")?;
        self.kubectl(&["delete", WAIT, "-f", definitions]).await?.success()?;
        Ok(())
    }

    pub(super) async fn install_api(&self, folder: &str) -> anyhow::Result<()> {
        let definitions = self.tools.lab_program(folder);
        let definitions = definitions.to_str().context("a path in UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", definitions]).await?.success()?;
        self.definitions_are_known().await
    }

    /// Waits until the API server serves all kinds that are defined, and says so.
    async fn definitions_are_known(&self) -> anyhow::Result<()> {
        let definitions = ["wait", "--for=condition=Established", WAIT, "crd", "--all"];
        self.kubectl(&definitions).await?.success()?;
        let defined = self.field(&["crd"], "{.items[*].metadata.name}").await?;
        poll::until("the new kinds are known", || async {
            let known = self.kubectl(&["api-resources", "-o", "name"]).await?.success()?.out;
            let known: BTreeSet<&str> = known.lines().collect();
            let missing: Vec<&str> = defined.split(' ').filter(|name| !known.contains(name)).collect();
            anyhow::ensure!(missing.is_empty(), "{missing:?}");
            Ok(())
        })
        .await
    }

    /// Installs the definitions of Tollgate's kinds, and waits until the API server has them.
    pub async fn install_definitions(&self) -> anyhow::Result<()> {
        let definitions = self.tools.tests.with_file_name("manifests").join("crds");
        let definitions = definitions.to_str().context("a path in UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", definitions]).await?.success()?;
        self.definitions_are_known().await
    }

    /// Installs Tollgate by its chart, as a user would, into a namespace of its own, and waits until it runs.
    pub async fn install_tollgate(&self) -> anyhow::Result<()> {
        self.apply(RESTRICTED).await?;
        self.helm("upgrade", &["--install", "--wait", WAIT], &VALUES).await
    }

    /// The volume that replicas share.
    pub async fn install_books(&self) -> anyhow::Result<()> {
        let folder = self.home().join("books");
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        self.apply(&BOOKS.replace("FOLDER", folder.to_str().context("a path in UTF-8")?)).await
    }

    /// Gives the release these values beside those of [`VALUES`], the later of two counts. Waits until its control plane
    /// runs, and until the Pods from before are gone: helm does not, and a test would ask one that ends.
    pub async fn upgrade(&self, further: &[&str]) -> anyhow::Result<()> {
        self.helm("upgrade", &["--wait", WAIT], &[&VALUES, further].concat()).await?;
        let replicas: usize =
            self.field(&["-n", NAMESPACE, "deployment", "tollgate"], "{.spec.replicas}").await?.parse()?;
        let pods = ["-n", NAMESPACE, "get", "pods", "-l", CONTROL_PLANE, "-o", "name"];
        poll::within(PATIENCE, "the control plane from before is gone", || async {
            let found = self.kubectl(&pods).await?.success()?.out;
            anyhow::ensure!(found.lines().count() == replicas, "{found}");
            Ok(())
        })
        .await
    }

    /// The Pod of the control plane that leads.
    pub async fn leader(&self) -> anyhow::Result<String> {
        self.field(&["-n", NAMESPACE, "lease", "tollgate-controller"], "{.spec.holderIdentity}").await
    }

    /// Runs helm on the release, with the chart and these values.
    pub async fn helm(&self, command: &str, options: &[&str], values: &[&str]) -> anyhow::Result<()> {
        self.helm_chart(&self.chart(), command, options, values).await
    }

    /// The same with another chart.
    pub async fn helm_chart(
        &self,
        chart: &Path,
        command: &str,
        options: &[&str],
        values: &[&str],
    ) -> anyhow::Result<()> {
        self.chart_output(chart, command, options, values).await.map(drop)
    }

    /// What these templates of the chart make of these values, as YAML.
    pub async fn render(&self, templates: &[&str], values: &[&str]) -> anyhow::Result<String> {
        let only = templates.iter().flat_map(|template| ["--show-only", template]);
        // It asks no cluster, so the oldest that the chart takes is as good as any.
        let options: Vec<&str> = ["--kube-version", "1.30"].into_iter().chain(only).collect();
        self.chart_output(&self.chart(), "template", &options, values).await
    }

    async fn chart_output(
        &self,
        chart: &Path,
        command: &str,
        options: &[&str],
        values: &[&str],
    ) -> anyhow::Result<String> {
        let chart = chart.to_str().context("a path in UTF-8")?;
        // The API server of a lab has a port of its own, and what Pods send to it is held to their policies.
        let port = format!("networkPolicies.apiServer.ports={{{}}}", self.port);
        let values: Vec<&str> = [&port]
            .into_iter()
            .map(String::as_str)
            .chain(values.iter().copied())
            .flat_map(|value| ["--set", value])
            .collect();
        self.helm_output(command, &[&[chart][..], options, &values].concat()).await
    }

    /// The folder of the chart.
    pub fn chart(&self) -> PathBuf {
        self.tools.tests.with_file_name("manifests").join("chart")
    }

    /// Uninstalls Tollgate. What people have made of its kinds stays.
    pub async fn uninstall(&self) -> anyhow::Result<()> {
        self.run_helm("uninstall", &["--wait", WAIT]).await
    }

    /// Runs helm on the release, with no chart.
    pub async fn run_helm(&self, command: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.helm_output(command, arguments).await.map(drop)
    }

    async fn helm_output(&self, command: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut helm = tokio::process::Command::new(self.tools.lab_program("helm"));
        helm.args([command, RELEASE, "--namespace", NAMESPACE]).args(arguments);
        let output = helm.env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null()).output().await?;
        anyhow::ensure!(output.status.success(), "helm {command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}
