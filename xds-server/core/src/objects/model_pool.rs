//! ModelPool: which models there are, and who serves each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::status::Reason;

use super::TOLLGATE_GROUP;
use super::check::Check;
use super::namespaces::{Namespaces, NamespacesWire};
use super::redact::Shown;

#[derive(Debug, Clone)]
pub struct ModelPool {
    pub access: Access,
    /// Whose Consumers count here.
    pub allowed_consumers: Namespaces,
    pub models: Vec<Model>,
    /// Services with a label become backends; acted on only where Services are discovered.
    pub runners: bool,
    /// The Services of its namespace at which callers in the mesh ask for its models.
    pub parents: Vec<ParentService>,
}

/// A Service as the parent of a pool, in the pool's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentService {
    pub name: String,
    /// None: all its ports.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Access {
    #[default]
    Required,
    Anonymous,
}

#[derive(Debug, Clone)]
pub struct Model {
    /// What clients ask for; a trailing `*` matches a prefix.
    pub name: String,
    pub targets: Vec<Target>,
    /// Attempts after the first.
    pub retries: u32,
    pub affinity: Affinity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Affinity {
    #[default]
    None,
    PromptPrefix,
}

#[derive(Debug, Clone)]
pub struct Target {
    /// Absent: the pool's own.
    pub backend_namespace: Option<String>,
    pub backend_name: String,
    /// What the backend calls the model; absent: as asked.
    pub model: Option<String>,
    pub weight: u32,
    pub priority: u32,
}

/// Which models there are, and who serves each.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.runners) || (has(self.models) && size(self.models) > 0)", "message": "the pool has no models"}])))]
pub struct ModelPoolWire {
    /// Required: callers need a key or an identity. Anonymous: all callers are the consumer `anonymous`.
    #[serde(default)]
    access: Access,
    /// Whose Consumers count here. Default: those of the namespace of the pool.
    #[serde(default)]
    allowed_consumers: AllowedConsumersWire,
    /// The models, each with a name of its own.
    #[cfg_attr(feature = "schema", schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    #[serde(default)]
    models: Vec<ModelWire>,
    /// Services with a label become backends by themselves.
    runners: Option<RunnersWire>,
    /// The Services at which callers in the mesh ask for these models, in the pool's namespace. Their sidecars choose the
    /// backend by the model. The callers are those of the namespaces of allowedConsumers.
    #[cfg_attr(feature = "schema", schemars(length(max = 8)))]
    #[serde(default)]
    parent_refs: Vec<ParentRefWire>,
}

/// A Service at which callers ask for models.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "(!has(self.group) || self.group in ['', 'core']) && (!has(self.kind) || self.kind == 'Service')", "message": "a parent is a Service"}])))]
struct ParentRefWire {
    /// Default: the core group.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    group: Option<String>,
    /// Default: Service.
    #[cfg_attr(feature = "schema", schemars(length(max = 63)))]
    kind: Option<String>,
    /// The name of the Service.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// Default: all its ports.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65535)))]
    port: Option<i64>,
}

/// Whose Consumers count in the pool.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct AllowedConsumersWire {
    /// The namespaces whose Consumers count.
    namespaces: Option<NamespacesWire>,
}

/// One model that clients may ask for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ModelWire {
    /// What clients ask for. A trailing `*` matches a prefix, and the longest match wins.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[^*\x00-\x1f\x7f]*[*]?$"), length(min = 1, max = 256)))]
    name: String,
    /// Who serves the model.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 32)))]
    targets: Vec<TargetWire>,
    /// Attempts after the first. Default: one less than there are targets, and at least 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 10)))]
    retries: Option<i64>,
    /// PromptPrefix: prompts with the same beginning go to the same runner.
    #[serde(default)]
    affinity: Affinity,
}

/// One backend that serves the model.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TargetWire {
    /// The ModelBackend.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "(!has(self.group) || self.group == 'tollgate.dev') && (!has(self.kind) || self.kind == 'ModelBackend')", "message": "a target is a ModelBackend of group tollgate.dev"}])))]
    backend_ref: BackendRefWire,
    /// What the backend calls the model. Default: as asked.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[^\x00-\x1f\x7f]+$"), length(min = 1, max = 256)))]
    model: Option<String>,
    /// Share among targets of the same priority; 0 takes none. Default: 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1_000_000)))]
    weight: Option<i64>,
    /// Targets of the next priority take over when those before fail. Default: 0.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 100)))]
    priority: Option<i64>,
}

/// A ModelBackend.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct BackendRefWire {
    /// Default: tollgate.dev.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    group: Option<String>,
    /// Default: ModelBackend.
    #[cfg_attr(feature = "schema", schemars(length(max = 63)))]
    kind: Option<String>,
    /// The name of the backend.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"),
            length(max = 253)
        )
    )]
    name: String,
    /// Default: the namespace of the pool.
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    namespace: Option<String>,
}

/// Services that become backends by themselves.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RunnersWire {
    /// Selects Services by their labels.
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::any_object"))]
    #[serde(rename = "selector")]
    _selector: Map<String, Value>,
}

const MAX_RETRIES: i64 = 10;
const MAX_PRIORITY: i64 = 100;

pub fn model_pool(wire: ModelPoolWire, check: &mut Check<'_>) -> Option<ModelPool> {
    if wire.models.is_empty() && wire.runners.is_none() {
        check.error("spec.models", "the pool has no models", "list at least one");
    }
    let allowed_consumers = match wire.allowed_consumers.namespaces {
        Some(namespaces) => namespaces.parse("spec.allowedConsumers.namespaces", check),
        None => Namespaces::default(),
    };
    let mut names = BTreeSet::new();
    let models = wire
        .models
        .into_iter()
        .enumerate()
        .map(|(index, model)| {
            let field = format!("spec.models[{index}]");
            if !names.insert(model.name.clone()) {
                check.error(
                    format_args!("{field}.name"),
                    format_args!("model {} is listed twice", Shown(&model.name)),
                    "",
                );
            }
            self::model(model, &field, check)
        })
        .collect();
    let parents = wire.parent_refs.into_iter().enumerate();
    let parents =
        parents.filter_map(|(index, parent)| self::parent(parent, &format!("spec.parentRefs[{index}]"), check));
    let parents = parents.collect();
    Some(ModelPool { access: wire.access, allowed_consumers, models, runners: wire.runners.is_some(), parents })
}

fn parent(wire: ParentRefWire, field: &str, check: &mut Check<'_>) -> Option<ParentService> {
    check.name(format_args!("{field}.name"), &wire.name);
    let (group, kind) = (wire.group.as_deref().unwrap_or_default(), wire.kind.as_deref().unwrap_or("Service"));
    if !matches!((group, kind), ("" | "core", "Service")) {
        let message = format_args!("{} of group {} is no parent of a pool", Shown(kind), Shown(group)).to_string();
        check.error(field, message, "a Service; routes of Gateways name the pool in their backendRefs");
        return None;
    }
    let port = wire.port.map(|port| check.port(format_args!("{field}.port"), port));
    Some(ParentService { name: wire.name, port })
}

fn model(wire: ModelWire, field: &str, check: &mut Check<'_>) -> Model {
    check.model_pattern(format_args!("{field}.name"), &wire.name);
    if wire.targets.is_empty() {
        check.error(format_args!("{field}.targets"), "the model has no targets", "list at least one");
    }
    let targets: Vec<_> = wire
        .targets
        .into_iter()
        .enumerate()
        .map(|(index, target)| self::target(target, &format!("{field}.targets[{index}]"), check))
        .collect();
    if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
        check.warning(
            Reason::NoTarget,
            format_args!("{field}.targets"),
            "every target has weight 0: requests for this model are answered with 503",
            "",
        );
    }
    // By default each target gets one try, and a single one a second.
    let retries = match wire.retries {
        Some(retries) => check.number(format_args!("{field}.retries"), retries, 0, MAX_RETRIES),
        None => u32::try_from(targets.len().saturating_sub(1)).unwrap_or(1).clamp(1, 10),
    };
    // Nobody knows which of the targets would be meant.
    let targets = if check.has_refused(&format!("{field}.affinity")) { Vec::new() } else { targets };
    Model { name: wire.name, targets, retries, affinity: wire.affinity }
}

fn target(wire: TargetWire, field: &str, check: &mut Check<'_>) -> Target {
    let reference = wire.backend_ref;
    let group = reference.group.as_deref().unwrap_or(TOLLGATE_GROUP);
    let kind = reference.kind.as_deref().unwrap_or("ModelBackend");
    if (group, kind) != (TOLLGATE_GROUP, "ModelBackend") {
        check.error(
            format_args!("{field}.backendRef"),
            format_args!("a target cannot be a {} of group {}", Shown(kind), Shown(group)),
            "only kind ModelBackend of group tollgate.dev",
        );
    }
    check.name(format_args!("{field}.backendRef.name"), &reference.name);
    if wire.model.as_deref().is_some_and(|model| model.is_empty() || model.contains(char::is_control)) {
        check.error(format_args!("{field}.model"), "not a model's name", "leave it out to send the name as asked");
    }
    Target {
        backend_namespace: reference.namespace,
        backend_name: reference.name,
        model: wire.model,
        weight: check.weight(format_args!("{field}.weight"), wire.weight),
        priority: check.number(format_args!("{field}.priority"), wire.priority.unwrap_or(0), 0, MAX_PRIORITY),
    }
}
