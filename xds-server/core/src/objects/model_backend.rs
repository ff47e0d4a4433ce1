//! ModelBackend: one runner or provider.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::Reason;
use crate::terms::duration::duration_as_text;

use super::check::Check;
use super::redact::Shown;
use super::secret_ref::{SecretRef, SecretRefWire};

#[derive(Debug, Clone)]
pub struct ModelBackend {
    pub schema: Schema,
    pub endpoint: Endpoint,
    pub tls: Tls,
    pub path_prefix: String,
    pub credential: Option<Credential>,
    pub timeouts: Timeouts,
}

/// Which API it speaks, and with that how it wants its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Schema {
    OpenAI,
    Anthropic,
    AzureOpenAI,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Address { ip: IpAddr, port: u16 },
    Hostname { hostname: String, port: u16 },
    Service { namespace: Option<String>, name: String, port: u16 },
    InferencePool { namespace: Option<String>, name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Nothing is said: the mesh's where both sides are in it, else none.
    Default,
    None,
    Simple {
        sni: Option<String>,
        ca: Option<SecretRef>,
    },
    Istio {
        sans: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub secret: SecretRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    #[serde(serialize_with = "duration_as_text")]
    pub connect: Duration,
    /// Until the answer begins; for an answer that is not streamed, that is when it is complete.
    #[serde(serialize_with = "duration_as_text")]
    pub first_token: Duration,
    /// Longest silence within an answer.
    #[serde(serialize_with = "duration_as_text")]
    pub idle: Duration,
}

/// One runner or provider.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.endpoint) != has(self.service)", "message": "either endpoint or service"}, {"rule": "!has(self.endpoint) || !has(self.endpoint.inferencePool) || !has(self.tls) || self.tls.mode != 'Simple' || has(self.tls.sni)", "message": "TLS to an InferencePool needs tls.sni"}, {"rule": "has(self.service) || !has(self.endpoint) || !has(self.endpoint.hostname) || !has(self.tls) || self.tls.mode != 'Istio' || (has(self.tls.sans) && self.tls.sans.size() > 0)", "message": "who has a hostname is not known to the mesh: tls.sans are needed"}])))]
pub struct ModelBackendWire {
    /// Which API it speaks: OpenAI, Anthropic or AzureOpenAI.
    schema: Schema,
    /// Where it is.
    endpoint: Option<EndpointWire>,
    /// The same as endpoint.service.
    service: Option<ServiceWire>,
    /// Default: mutual TLS of the mesh to the Pods of a Service or InferencePool that are in the mesh, where the proxies are
    /// in it too; else plain text.
    tls: Option<TlsWire>,
    /// Where the paths below /v1 are. Default: /v1, for AzureOpenAI /openai/v1.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^/*$|^(/[A-Za-z0-9._~%-]+)+/*$"), length(max = 1024), extend("x-kubernetes-validations" = [{"rule": "!self.split('/').exists(segment, segment == '.' || segment == '..')", "message": "the path has no segment . or .."}])))]
    path_prefix: Option<String>,
    /// Sent as the API wants it.
    credential: Option<CredentialWire>,
    /// How long it may take.
    #[serde(default)]
    timeouts: TimeoutsWire,
}

/// A hostname with a port, a Service, or an InferencePool.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.service) ? !has(self.hostname) && !has(self.port) && !has(self.inferencePool) : has(self.inferencePool) ? !has(self.hostname) && !has(self.port) : has(self.hostname) && has(self.port)", "message": "either hostname and port, or service, or inferencePool"}])))]
struct EndpointWire {
    /// A name or an IP address.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(
                pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"
            ),
            length(max = 253)
        )
    )]
    hostname: Option<String>,
    /// The port of the hostname.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65535)))]
    port: Option<i64>,
    /// A Service instead of a hostname.
    service: Option<ServiceWire>,
    /// An InferencePool instead of a hostname: its Pods that are ready. The one with the fewest requests is taken, and no
    /// endpoint picker is asked.
    inference_pool: Option<InferencePoolWire>,
}

/// An InferencePool.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct InferencePoolWire {
    /// The name of the InferencePool.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// Default: the namespace of the backend.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    namespace: Option<String>,
}

/// A port of a Service.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ServiceWire {
    /// The name of the Service.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// Default: the namespace of the backend.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    namespace: Option<String>,
    /// The port of the Service.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65535)))]
    port: i64,
}

/// How the backend is connected to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "self.mode == 'Simple' || (!has(self.sni) && !has(self.caRef))", "message": "sni and caRef are of mode Simple"}, {"rule": "self.mode == 'Istio' || !has(self.sans)", "message": "sans are of mode Istio"}])))]
struct TlsWire {
    /// None: plain text. Simple: TLS. Istio: mutual TLS of the mesh.
    mode: TlsMode,
    /// The name that its certificate must have. Default: the hostname.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    sni: Option<String>,
    /// Who signs its certificate. Default: the authorities of the system.
    ca_ref: Option<SecretRefWire>,
    /// The identities that it may have. Default: those of the Pods of the Service or InferencePool.
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 32),
            inner(length(max = 2048), regex(pattern = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"))
        )
    )]
    sans: Option<Vec<String>>,
}

#[derive(Deserialize, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum TlsMode {
    None,
    Simple,
    Istio,
}

/// What the backend wants to see.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CredentialWire {
    /// The Secret that holds the credential.
    secret_ref: SecretRefWire,
}

/// How long the backend may take, each at most a day.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TimeoutsWire {
    /// Until there is a connection. Default: 2s.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^([0-9]{1,5}(ms|s|m|h|d)){1,5}$"), length(max = 40)))]
    connect: Option<String>,
    /// Until the answer begins. Default: 300s.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^([0-9]{1,5}(ms|s|m|h|d)){1,5}$"), length(max = 40)))]
    first_token: Option<String>,
    /// Longest silence within an answer. Default: 60s.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^([0-9]{1,5}(ms|s|m|h|d)){1,5}$"), length(max = 40)))]
    idle: Option<String>,
}

const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    // An answer that is not streamed comes as a whole, and long ones take their time.
    first_token: Duration::from_secs(300),
    idle: Duration::from_secs(60),
};

// === impl Schema ===

impl Schema {
    /// Where the paths below the client's `/v1` are at the usual provider.
    pub fn default_path_prefix(self) -> &'static str {
        match self {
            Self::OpenAI | Self::Anthropic => "/v1",
            Self::AzureOpenAI => "/openai/v1",
        }
    }

    /// OpenTelemetry's name of who speaks it (`gen_ai.provider.name`). A runner that speaks another one's API counts as that.
    pub fn provider(self) -> &'static str {
        match self {
            Self::OpenAI => "openai",
            Self::Anthropic => "anthropic",
            Self::AzureOpenAI => "azure.ai.openai",
        }
    }
}

pub fn model_backend(wire: ModelBackendWire, check: &mut Check<'_>) -> Option<ModelBackend> {
    let endpoint = endpoint(wire.endpoint, wire.service, check);
    let tls = tls(wire.tls, check);
    let is_plain = matches!(tls, Tls::Default | Tls::None);
    let has_workloads = matches!(endpoint, Some(Endpoint::Service { .. } | Endpoint::InferencePool { .. }) | None);
    if !has_workloads && matches!(&tls, Tls::Istio { sans } if sans.is_empty()) {
        let message = "who has this hostname is not known to the mesh";
        check.error("spec.tls.sans", message, "name the identities that it may have");
    }
    if matches!(endpoint, Some(Endpoint::InferencePool { .. })) && matches!(tls, Tls::Simple { sni: None, .. }) {
        let message = "the Pods of an InferencePool have no name that their certificate could be for";
        check.error("spec.tls.sni", message, "give the name");
    }
    if is_plain && endpoint.as_ref().is_some_and(|endpoint| endpoint.port() == Some(443)) {
        check.warning(
            Reason::Plaintext,
            "spec.tls",
            "port 443 without TLS",
            "tls: {mode: Simple} for a provider on the internet",
        );
    }
    if wire.credential.is_some() && is_plain && matches!(endpoint, Some(Endpoint::Hostname { .. })) {
        check.warning(
            Reason::Plaintext,
            "spec.credential",
            "the credential is sent without TLS",
            "tls: {mode: Simple} unless the network is trusted",
        );
    }
    let path_prefix = wire.path_prefix.unwrap_or_else(|| wire.schema.default_path_prefix().to_owned());
    let path_prefix = path_prefix.trim_end_matches('/').to_owned();
    if !(path_prefix.is_empty() || path_prefix.starts_with('/'))
        || !path_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte))
        || path_prefix.contains("//")
        || path_prefix.split('/').any(|segment| segment == "." || segment == "..")
    {
        check.error("spec.pathPrefix", format_args!("{} is not a path", Shown(&path_prefix)), "for example /v1");
    }
    let mut duration = |name: &str, text: Option<String>, default: Duration| match text {
        Some(text) => check.timeout(format_args!("spec.timeouts.{name}"), &text).unwrap_or(default),
        None => default,
    };
    let timeouts = Timeouts {
        connect: duration("connect", wire.timeouts.connect, DEFAULT_TIMEOUTS.connect),
        first_token: duration("firstToken", wire.timeouts.first_token, DEFAULT_TIMEOUTS.first_token),
        idle: duration("idle", wire.timeouts.idle, DEFAULT_TIMEOUTS.idle),
    };
    let credential = wire.credential.map(|credential| Credential {
        secret: credential.secret_ref.parse("spec.credential.secretRef", "apiKey", check),
    });
    Some(ModelBackend { schema: wire.schema, endpoint: endpoint?, tls, path_prefix, credential, timeouts })
}

fn endpoint(endpoint: Option<EndpointWire>, service: Option<ServiceWire>, check: &mut Check<'_>) -> Option<Endpoint> {
    let EndpointWire { hostname, port, service: inner_service, inference_pool } =
        endpoint.unwrap_or(EndpointWire { hostname: None, port: None, service: None, inference_pool: None });
    let hint = "endpoint: {hostname: 127.0.0.1, port: 8081} or endpoint: {service: {name: runner, port: 80}}";
    let service = service.or(inner_service);
    if let Some(pool) = inference_pool {
        if hostname.is_some() || port.is_some() || service.is_some() {
            check.error("spec.endpoint", "an InferencePool beside a hostname or a service", "only one of them");
            return None;
        }
        check.name("spec.endpoint.inferencePool.name", &pool.name);
        return Some(Endpoint::InferencePool { namespace: pool.namespace, name: pool.name });
    }
    match (hostname, port, service) {
        (Some(hostname), Some(port), None) => {
            let port = check.port("spec.endpoint.port", port);
            if let Ok(ip) = hostname.parse() {
                return Some(Endpoint::Address { ip, port });
            }
            check.hostname("spec.endpoint.hostname", &hostname);
            Some(Endpoint::Hostname { hostname, port })
        }
        (None, None, Some(service)) => {
            let port = check.port("spec.endpoint.service.port", service.port);
            check.name("spec.endpoint.service.name", &service.name);
            Some(Endpoint::Service { namespace: service.namespace, name: service.name, port })
        }
        (Some(_), None, None) => {
            check.error("spec.endpoint", "missing field `port`", hint);
            None
        }
        (None, Some(_), None) => {
            check.error("spec.endpoint", "missing field `hostname`", hint);
            None
        }
        (None, None, None) => {
            check.error("spec.endpoint", "the backend has no endpoint", hint);
            None
        }
        (_, _, Some(_)) => {
            check.error("spec.endpoint", "both a hostname and a service", "only one of them");
            None
        }
    }
}

fn tls(wire: Option<TlsWire>, check: &mut Check<'_>) -> Tls {
    let Some(TlsWire { mode, sni, ca_ref, sans }) = wire else {
        return Tls::Default;
    };
    if mode != TlsMode::Simple && (sni.is_some() || ca_ref.is_some()) {
        check.error("spec.tls", "sni and caRef are of mode Simple", "remove them or set mode: Simple");
    }
    if mode != TlsMode::Istio && sans.is_some() {
        check.error("spec.tls.sans", "sans are of mode Istio", "remove them or set mode: Istio");
    }
    match mode {
        TlsMode::None => Tls::None,
        TlsMode::Simple => {
            if let Some(sni) = &sni {
                check.hostname("spec.tls.sni", sni);
            }
            Tls::Simple { sni, ca: ca_ref.map(|wire| wire.parse("spec.tls.caRef", "ca.crt", check)) }
        }
        TlsMode::Istio => {
            let sans = sans.unwrap_or_default();
            for (index, san) in sans.iter().enumerate() {
                check.spiffe_id(&format!("spec.tls.sans[{index}]"), san);
            }
            Tls::Istio { sans }
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// None: each Pod of a pool has ports of its own.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Address { port, .. } | Self::Hostname { port, .. } | Self::Service { port, .. } => Some(*port),
            Self::InferencePool { .. } => None,
        }
    }
}
