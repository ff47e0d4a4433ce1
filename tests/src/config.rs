//! Configuration folders, written as a user writes them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::Digest;

/// A folder of YAML files that a test changes while it is watched.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A target of a model: backend, its model name, weight, priority.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub backend: &'a str,
    pub model: Option<&'a str>,
    pub weight: u32,
    pub priority: u32,
}

// === impl Target ===

impl<'a> Target<'a> {
    pub fn new(backend: &'a str) -> Self {
        Self { backend, model: None, weight: 1, priority: 0 }
    }

    pub fn model(self, model: &'a str) -> Self {
        Self { model: Some(model), ..self }
    }

    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub fn priority(self, priority: u32) -> Self {
        Self { priority, ..self }
    }
}

// === impl Folder ===

impl Folder {
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file as editors do: written beside it, then renamed.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let beside = self.path.join(format!(".{name}.new"));
        std::fs::write(&beside, text)?;
        std::fs::rename(beside, self.path.join(name))?;
        Ok(())
    }

    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.path.join(name))?)
    }
}

/// A Gateway `llm` with one listener on this port.
pub fn gateway(port: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  listeners:
  - {{name: http, port: {port}, protocol: HTTP}}
"
    )
}

/// The [`gateway`] and an HTTPRoute `chat` from /v1 to the pool `chat`.
pub fn entry(port: u16) -> String {
    const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs:
  - {name: llm}
  rules:
  - matches:
    - path: {type: PathPrefix, value: /v1}
    backendRefs:
    - {group: tollgate.dev, kind: ModelPool, name: chat}
";
    documents(&[gateway(port), ROUTE.to_owned()])
}

/// A Service `app` with port 80, of which this port is the one endpoint.
pub fn service(port: u16) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{port: {port}}}]
"
    )
}

/// The ModelPool `chat`; `access` is Required or Anonymous. Each model: name, targets, retries.
pub fn pool(access: &str, models: &[(&str, &[Target<'_>], Option<u32>)]) -> String {
    let mut text = format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {{name: chat}}
spec:
  access: {access}
  models:
"
    );
    for (name, targets, retries) in models {
        let _ = writeln!(text, "  - name: \"{name}\"");
        if let Some(retries) = retries {
            let _ = writeln!(text, "    retries: {retries}");
        }
        text.push_str("    targets:\n");
        for target in *targets {
            let _ = writeln!(text, "    - backendRef: {{name: {}}}", target.backend);
            if let Some(model) = target.model {
                let _ = writeln!(text, "      model: {model}");
            }
            let _ = writeln!(text, "      weight: {}", target.weight);
            let _ = writeln!(text, "      priority: {}", target.priority);
        }
    }
    text
}

/// A ModelBackend on a port of this machine. `more` are further lines of its spec.
pub fn backend(name: &str, schema: &str, port: u16, more: &str) -> String {
    let mut text = format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  schema: {schema}
  endpoint: {{hostname: 127.0.0.1, port: {port}}}
"
    );
    for line in more.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// A Secret with the key `apiKey`.
pub fn secret(name: &str, value: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{apiKey: {value}}}
"
    )
}

/// A Consumer with one key, of which the file holds the hash only. `more` are further lines of its spec.
pub fn consumer(name: &str, key: &str, more: &str) -> String {
    let hash = sha256_hex(key);
    let mut text = format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: {name}, labels: {{team: {name}-team}}}}
spec:
  keys:
  - sha256: {hash}
"
    );
    for line in more.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// A TokenPolicy `budget` on the route `chat` with one limit per consumer, in a window that does not
/// end during a test.
pub fn budget(tokens: u64, more: &str) -> String {
    let mut text = format!(
        "\
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: budget}}
spec:
  targetRefs:
  - {{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}}
  limits:
  - name: total
    tokens: {tokens}
    window: 3650d
    scope: [Consumer]
    count: Total
"
    );
    for line in more.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Several documents in one file.
pub fn documents(parts: &[String]) -> String {
    parts.join("---\n")
}

pub fn sha256_hex(key: &str) -> String {
    hex::encode(sha2::Sha256::digest(key.as_bytes()))
}
