//! What is installed into a lab before Tollgate is tested there: the Gateway API, then Tollgate.

use anyhow::Context;

use super::Lab;

/// The class of the Gateways that are Tollgate's.
pub const GATEWAY_CLASS: &str = "tollgate";

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tollgate}
spec: {controllerName: tollgate.dev/gateway-controller}
";

// === impl Lab ===

impl Lab {
    /// Installs the Gateway API, of the version that the conformance suite has.
    pub async fn install_gateway_api(&self) -> anyhow::Result<()> {
        let definitions = self.tools.lab_program("gateway-api");
        let definitions = definitions.to_str().context("a path in UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", definitions]).await?.success()?;
        let definitions = ["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"];
        self.kubectl(&definitions).await?.success()?;
        Ok(())
    }

    /// Installs the definitions of Tollgate's kinds, and waits until the API server has them.
    pub async fn install_definitions(&self) -> anyhow::Result<()> {
        let definitions = self.tools.tests.with_file_name("manifests").join("crds");
        let definitions = definitions.to_str().context("a path in UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", definitions]).await?.success()?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", definitions]).await?.success()?;
        Ok(())
    }

    /// Installs Tollgate as the folder manifests/ has it. It does not wait until Tollgate runs, because tests and the suite
    /// wait for what they need. While there is no such folder, this makes a GatewayClass that nobody accepts.
    pub async fn install_tollgate(&self) -> anyhow::Result<()> {
        let manifests = self.tools.tests.with_file_name("manifests");
        if manifests.exists() {
            let manifests = manifests.to_str().context("a path in UTF-8")?;
            self.kubectl(&["apply", "--server-side", "-R", "-f", manifests]).await?.success()?;
        }
        self.apply(CLASS).await
    }
}
