//! What the configuration means, free of Kubernetes and of Envoy. Every value is valid and carries its origin.

mod catalog;
mod delta;
mod domain;
mod gateway;
mod model;
mod route;
mod workload;

pub use catalog::Catalog;
pub use delta::{Delta, GatewayDelta, Host, PartsDelta};
pub use domain::Domain;
pub use gateway::{Certificate, Gateway, Listener, Site, VirtualHost};
pub use model::{
    Access, Authority, BACKEND_PREFIX, Backend, ConsumerNamespaces, Credential, Endpoint, Model, Pool, Schema, Service,
    Target, Timeouts, Tls,
};
pub use route::{
    Action, Class, Edits, HeaderEdits, HeaderMatch, Match, PathMatch, PathRewrite, Redirect, Rewrite, Route, TextMatch,
    WeightedService,
};
pub use workload::Workload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tollgate_proto::v1::CountWeights;

use crate::objects::Key as Name;
use crate::status::Origin;

/// A credential. Debug, Display and Serialize show only that there is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretText(String);

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ir {
    #[serde(serialize_with = "values")]
    pub gateways: BTreeMap<Name, Gateway>,
    /// By Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "values")]
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// By SHA-256.
    #[serde(serialize_with = "values")]
    pub keys: BTreeMap<String, Arc<Key>>,
    /// By id.
    #[serde(serialize_with = "values")]
    pub limits: BTreeMap<String, Arc<Limit>>,
}

/// One key of one Consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    pub origin: Origin,
    /// Lowercase hex SHA-256 of the key; 64 characters.
    pub sha256: String,
    /// Display name of the Consumer.
    pub consumer: String,
    pub labels: BTreeMap<String, String>,
    /// Unix seconds after which it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    pub models: AllowedModels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum AllowedModels {
    All,
    /// Names; a trailing `*` matches a prefix.
    Only(Vec<String>),
}

/// One limit of one TokenPolicy, as the filter and the ledger both know it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    pub origin: Origin,
    /// `namespace/policy/limit`.
    pub id: String,
    /// Display name of the policy.
    pub policy: String,
    pub name: String,
    pub tokens: u64,
    pub window: Window,
    pub scope: Vec<ScopePart>,
    #[serde(serialize_with = "count_as_text")]
    pub count: CountWeights,
    pub mode: Mode,
    pub on_ledger_unavailable: OnLedgerUnavailable,
    pub on_early_end: OnEarlyEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Window {
    /// Fixed windows of this length from the UTC epoch.
    Fixed(#[serde(serialize_with = "duration_as_text")] Duration),
    /// Calendar windows; the time zone is an IANA name that was checked.
    Calendar { unit: CalendarUnit, time_zone: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CalendarUnit {
    Day,
    /// From Monday (ISO 8601).
    Week,
    Month,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ScopePart {
    Consumer,
    Model,
    Route,
    /// The value of this label of the Consumer.
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mode {
    Enforce,
    Shadow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OnLedgerUnavailable {
    Deny,
    Allow,
}

/// What a client pays if it leaves before the usage is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OnEarlyEnd {
    /// The estimate of its usage.
    Estimate,
    /// At least the whole reservation.
    Reservation,
}

// === impl SecretText ===

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself, for the one place that sends it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// A map as the list of its values, which have their names in themselves.
fn values<K, V: Serialize, S: serde::Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

fn count_as_text<S: serde::Serializer>(count: &CountWeights, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!(
        "{} + {}*input + {}*output + {}*cached + {}*reasoning",
        count.constant, count.input, count.output, count.cached, count.reasoning
    ))
}

/// `1h30m`, as users write it.
pub fn duration_as_text<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let (mut seconds, mut text) = (duration.as_secs(), String::new());
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
        if seconds >= unit {
            text.push_str(&format!("{}{name}", seconds / unit));
            seconds %= unit;
        }
    }
    match duration.subsec_millis() {
        0 if text.is_empty() => text.push_str("0s"),
        0 => {}
        millis => text.push_str(&format!("{millis}ms")),
    }
    serializer.serialize_str(&text)
}

/// The same for a duration that may be absent.
pub fn optional_duration<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_as_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}
