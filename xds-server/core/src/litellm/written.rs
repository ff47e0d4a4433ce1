//! The objects as YAML, in the fields and the order in which people write them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::objects::Schema;
use crate::terms::duration::optional_duration;

use super::access::Consumers;
use super::deployment::Backend;
use super::pool;
use super::secrets::Secrets;

/// A file of YAML documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub name: &'static str,
    pub text: String,
}

/// All there is to write.
pub(super) struct Objects<'a> {
    pub(super) port: u16,
    pub(super) models: Vec<pool::Model>,
    pub(super) backends: &'a [Backend],
    pub(super) consumers: Consumers,
    pub(super) limits: Vec<Limit>,
    pub(super) secrets: Secrets,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) key: KeyEntry,
    pub(super) models: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_ref: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
}

/// Of a TokenPolicy, for each Consumer.
#[derive(Debug, Serialize)]
pub(super) struct Limit {
    name: &'static str,
    tokens: u64,
    window: &'static str,
    scope: [&'static str; 1],
}

#[derive(Debug, Serialize)]
struct Name {
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    #[serde(flatten)]
    content: S,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Spec<S> {
    spec: S,
}

#[derive(Serialize)]
struct OfEnvironment {
    env: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct ModelsSpec {
    models: Vec<ModelEntry>,
}

#[derive(Serialize)]
struct ModelEntry {
    name: String,
    targets: Vec<TargetEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetEntry {
    backend_ref: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "is_one")]
    weight: u32,
    #[serde(skip_serializing_if = "is_zero")]
    priority: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendSpec {
    schema: Schema,
    endpoint: Address,
    tls: Mode,
    path_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<SecretRef>,
    #[serde(skip_serializing_if = "Timeouts::is_empty")]
    timeouts: Timeouts,
}

#[derive(Serialize)]
struct Address {
    hostname: String,
    port: u16,
}

#[derive(Serialize)]
struct Mode {
    mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretRef {
    secret_ref: Name,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeouts {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_duration")]
    first_token: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_duration")]
    idle: Option<Duration>,
}

#[derive(Serialize)]
struct ConsumerSpec {
    keys: Vec<KeyEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicySpec {
    target_refs: [TargetRef; 1],
    limits: Vec<Limit>,
}

#[derive(Serialize)]
struct TargetRef {
    group: &'static str,
    kind: &'static str,
    name: &'static str,
}

const TOLLGATE: &str = "tollgate.dev/v1alpha1";
const POOL: &str = "models";
const HEADER: &str = "# Made of LiteLLM's configuration by `tollgate import litellm`.\n";

// === impl Consumer ===

impl Consumer {
    pub(super) fn new(name: String, key: KeyEntry) -> Self {
        Self { name, labels: Vec::new(), key, models: None }
    }
}

// === impl KeyEntry ===

impl KeyEntry {
    pub(super) fn secret(name: String) -> Self {
        Self { secret_ref: Some(Name { name }), sha256: None, not_after: None }
    }

    pub(super) fn sha256(sha256: String, not_after: Option<String>) -> Self {
        Self { secret_ref: None, sha256: Some(sha256), not_after }
    }
}

// === impl Limit ===

impl Limit {
    pub(super) fn per_minute(tokens: u64) -> Self {
        Self { name: "per-minute", tokens, window: "1m", scope: ["Consumer"] }
    }
}

// === impl Timeouts ===

impl Timeouts {
    fn is_empty(&self) -> bool {
        self.first_token.is_none() && self.idle.is_none()
    }
}

/// Without a model there is nothing to serve.
pub(super) fn files(objects: Objects<'_>) -> Vec<Written> {
    let Objects { port, models, backends, consumers, limits, secrets } = objects;
    if models.is_empty() {
        return Vec::new();
    }
    let mut files = vec![
        Written { name: "gateway.yaml", text: gateway(port) },
        file("models.yaml", [pool_object(models, backends)]),
        file("backends.yaml", backends.iter().map(backend)),
        file("secrets.yaml", secrets.all().map(secret)),
        file("consumers.yaml", consumers.list.into_iter().map(consumer)),
    ];
    if !limits.is_empty() {
        files.push(file("limits.yaml", [policy(limits)]));
    }
    files.retain(|file| !file.text.is_empty());
    files
}

/// It is the same for everybody but the port.
fn gateway(port: u16) -> String {
    format!(
        "\
{HEADER}apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: llm
spec:
  gatewayClassName: tollgate
  listeners:
  - name: http
    port: {port}
    protocol: HTTP
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: llm
spec:
  parentRefs:
  - name: llm
  rules:
  - backendRefs:
    - group: tollgate.dev
      kind: ModelPool
      name: {POOL}
"
    )
}

fn file(name: &'static str, documents: impl IntoIterator<Item = String>) -> Written {
    let documents: Vec<String> = documents.into_iter().collect();
    Written { name, text: documents.join("---\n") }
}

/// Our own types are always YAML.
fn yaml<S: Serialize>(object: &S) -> String {
    serde_saphyr::to_string(object).unwrap_or_default()
}

fn object<S: Serialize>(api_version: &'static str, kind: &'static str, name: String, content: S) -> String {
    yaml(&Object { api_version, kind, metadata: Metadata { name, labels: BTreeMap::new() }, content })
}

fn pool_object(models: Vec<pool::Model>, backends: &[Backend]) -> String {
    let target = |target: pool::Target| {
        let name = backends.get(target.backend).map(|backend| backend.name.clone()).unwrap_or_default();
        TargetEntry {
            backend_ref: Name { name },
            model: target.model,
            weight: target.weight,
            priority: target.priority,
        }
    };
    let models = models.into_iter().map(|model| ModelEntry {
        name: model.name,
        targets: model.targets.into_iter().map(target).collect(),
        retries: model.retries,
    });
    object(TOLLGATE, "ModelPool", POOL.to_owned(), Spec { spec: ModelsSpec { models: models.collect() } })
}

fn backend(backend: &Backend) -> String {
    let of = &backend.of;
    let spec = BackendSpec {
        schema: of.schema,
        endpoint: Address { hostname: of.endpoint.hostname.clone(), port: of.endpoint.port },
        tls: Mode { mode: if of.endpoint.tls { "Simple" } else { "None" } },
        path_prefix: if of.endpoint.path.is_empty() { "/".to_owned() } else { of.endpoint.path.clone() },
        credential: of.credential.clone().map(|name| SecretRef { secret_ref: Name { name } }),
        timeouts: Timeouts { first_token: of.timeouts.first_token(), idle: of.timeouts.idle() },
    };
    object(TOLLGATE, "ModelBackend", backend.name.clone(), Spec { spec })
}

fn secret((name, variable): (&str, &str)) -> String {
    let env = BTreeMap::from([("apiKey", variable.to_owned())]);
    object("v1", "Secret", name.to_owned(), OfEnvironment { env })
}

fn consumer(consumer: Consumer) -> String {
    let Consumer { name, labels, key, models } = consumer;
    let metadata = Metadata { name, labels: labels.into_iter().collect() };
    let content = Spec { spec: ConsumerSpec { keys: vec![key], models } };
    yaml(&Object { api_version: TOLLGATE, kind: "Consumer", metadata, content })
}

fn policy(limits: Vec<Limit>) -> String {
    let target_refs = [TargetRef { group: "tollgate.dev", kind: "ModelPool", name: POOL }];
    object(TOLLGATE, "TokenPolicy", POOL.to_owned(), Spec { spec: PolicySpec { target_refs, limits } })
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(priority: &u32) -> bool {
    *priority == 0
}
