//! InferencePool of the Gateway API Inference Extension: Pods that serve models, and who picks one of them for a request.
//! No crate has the type, so it is here, held to the rules of its CRD.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::{is_label_key, is_label_value};

pub const INFERENCE_GROUP: &str = "inference.networking.k8s.io";

const MAX_LABELS: usize = 64;
const MAX_PORTS: usize = 8;

#[derive(Debug, Clone)]
pub struct InferencePool {
    /// It is of the Pods of its namespace that have all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Each port of each Pod is an endpoint of its own.
    pub ports: Vec<u16>,
    pub protocol: AppProtocol,
    /// None: the gateway chooses.
    pub picker: Option<PickerRef>,
}

/// What the endpoints speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum AppProtocol {
    #[default]
    #[serde(rename = "http")]
    Http1,
    #[serde(rename = "kubernetes.io/h2c")]
    Http2,
}

/// The endpoint picker of a pool. It is in the pool's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickerRef {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub port: Option<u16>,
    pub on_failure: OnPickerFailure,
}

/// What becomes of a request for which the picker picks nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnPickerFailure {
    /// The gateway chooses.
    FailOpen,
    /// It is refused.
    #[default]
    FailClose,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolWire {
    selector: SelectorWire,
    #[serde(default)]
    target_ports: Vec<PortWire>,
    #[serde(default)]
    app_protocol: AppProtocol,
    endpoint_picker_ref: Option<PickerWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectorWire {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct PortWire {
    number: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PickerWire {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    port: Option<PortWire>,
    #[serde(default)]
    failure_mode: OnPickerFailure,
}

pub fn inference_pool(wire: InferencePoolWire, check: &mut Check<'_>) -> Option<InferencePool> {
    let labels = wire.selector.match_labels;
    check.number("spec.selector.matchLabels", count(labels.len()), 1, count(MAX_LABELS));
    for (key, value) in labels.iter().filter(|(key, value)| !is_label_key(key) || !is_label_value(value)) {
        let message = format!("{}={} is no label", Shown(key), Shown(value));
        check.error("spec.selector.matchLabels", message, "at most 63 letters, digits, `-`, `_` and `.`");
    }
    check.number("spec.targetPorts", count(wire.target_ports.len()), 1, count(MAX_PORTS));
    let mut ports: Vec<u16> = Vec::new();
    for (index, port) in wire.target_ports.iter().enumerate().take(MAX_PORTS) {
        let field = format!("spec.targetPorts[{index}].number");
        let port = check.port(&field, port.number);
        if ports.contains(&port) {
            check.error(field, format_args!("port {port} is listed twice"), "each port once");
        }
        ports.push(port);
    }
    let picker = wire.endpoint_picker_ref.map(|picker| self::picker(picker, check));
    Some(InferencePool { labels, ports, protocol: wire.app_protocol, picker })
}

fn picker(wire: PickerWire, check: &mut Check<'_>) -> PickerRef {
    const FIELD: &str = "spec.endpointPickerRef";
    let kind = wire.kind.unwrap_or_else(|| "Service".to_owned());
    if kind == "Service" && wire.port.is_none() {
        check.error(format_args!("{FIELD}.port"), "a Service needs a port", "port: {number: 9002}");
    }
    check.name(format_args!("{FIELD}.name"), &wire.name);
    let port = wire.port.map(|port| check.port(format_args!("{FIELD}.port.number"), port.number));
    let group = wire.group.unwrap_or_default();
    PickerRef { group, kind, name: wire.name, port, on_failure: wire.failure_mode }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
