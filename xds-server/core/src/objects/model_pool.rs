//! ModelPool: which models there are, and who serves each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelPoolWire {
    #[serde(default)]
    access: Access,
    #[serde(default)]
    allowed_consumers: AllowedConsumersWire,
    #[serde(default)]
    models: Vec<ModelWire>,
    runners: Option<RunnersWire>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct AllowedConsumersWire {
    namespaces: Option<NamespacesWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelWire {
    name: String,
    targets: Vec<TargetWire>,
    retries: Option<i64>,
    #[serde(default)]
    affinity: Affinity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetWire {
    backend_ref: BackendRefWire,
    model: Option<String>,
    weight: Option<i64>,
    priority: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BackendRefWire {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunnersWire {
    #[serde(rename = "selector")]
    _selector: Value,
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
    Some(ModelPool { access: wire.access, allowed_consumers, models, runners: wire.runners.is_some() })
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
