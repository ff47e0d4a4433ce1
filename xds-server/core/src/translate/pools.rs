//! ModelPools with their backends resolved.

use crate::ir::{self, ConsumerNamespaces};
use crate::objects::{Affinity, Key, Model, ModelBackend, ModelPool, Namespace, Namespaces, Object, Shown};
use crate::placement::Feature;
use crate::status::{Finding, Reason, Severity};

use super::refs::{MODEL_BACKEND, MODEL_POOL, Reference};
use super::view::View;

pub fn pool(view: View<'_>, pool: &Object<ModelPool>, findings: &mut Vec<Finding>) -> ir::Pool {
    findings.extend(pool.refused.findings().cloned());
    if pool.spec.runners {
        findings.extend(view.lack(Feature::Runners, &pool.meta, "spec.runners"));
    }
    let models = pool.spec.models.iter().enumerate();
    ir::Pool {
        origin: pool.meta.origin.clone(),
        name: pool.meta.key().to_string(),
        access: pool.spec.access,
        consumers: consumers(view, pool),
        models: models.map(|(index, model)| self::model(view, pool, index, model, findings)).collect(),
    }
}

/// The namespaces whose Consumers the pool accepts. A known namespace is listed whether it has a Consumer or not, so
/// that its first Consumer changes nothing but its key.
fn consumers(view: View<'_>, pool: &Object<ModelPool>) -> ConsumerNamespaces {
    let selector = match &pool.spec.allowed_consumers {
        Namespaces::All => return ConsumerNamespaces::All,
        Namespaces::Same => return ConsumerNamespaces::Only([pool.meta.namespace().to_owned()].into()),
        Namespaces::Selector(selector) => selector,
    };
    let selected = view.known_namespaces().filter(|name| {
        selector.selects(name, view.object::<Namespace>("", name).map(|namespace| &namespace.meta.labels))
    });
    ConsumerNamespaces::Only(selected.map(str::to_owned).collect())
}

/// A target that cannot be used is left out, and the others serve the model. A model without any target stays, so that
/// clients get 503 and are not told that the model does not exist.
fn model(
    view: View<'_>,
    pool: &Object<ModelPool>,
    index: usize,
    model: &Model,
    findings: &mut Vec<Finding>,
) -> ir::Model {
    let field = format!("spec.models[{index}]");
    if model.affinity == Affinity::PromptPrefix {
        findings.extend(view.lack(Feature::PromptAffinity, &pool.meta, format_args!("{field}.affinity")));
    }
    let mut targets = Vec::new();
    let mut schemas = Vec::new();
    for (index, target) in model.targets.iter().enumerate() {
        let field = format!("{field}.targets[{index}]");
        if pool.refused.of(&field).is_some() {
            continue;
        }
        let field = format!("{field}.backendRef");
        let namespace = target.backend_namespace.as_deref().unwrap_or(pool.meta.namespace());
        let reference = Reference {
            from: &pool.meta,
            from_kind: MODEL_POOL,
            to_kind: MODEL_BACKEND,
            namespace,
            name: &target.backend_name,
            field: &field,
        };
        if !reference.is_permitted(view) {
            findings.push(reference.not_permitted());
            continue;
        }
        if let Some((cluster, schema)) = view.backend(&Key::new(namespace, target.backend_name.clone())) {
            schemas.push(schema == ir::Schema::Anthropic);
            targets.push(ir::Target {
                backend: cluster.to_owned(),
                model: target.model.clone(),
                weight: target.weight,
                priority: target.priority,
            });
        } else if view.object::<ModelBackend>(namespace, &target.backend_name).is_some() {
            let message = format!("{} is refused", reference.target());
            findings.push(reference.finding(Reason::BackendNotFound, &message, "see the findings on it"));
        } else {
            findings.push(reference.not_found::<ModelBackend>(Reason::BackendNotFound, view));
        }
    }
    if targets.is_empty() {
        let message = format!("model {} has no target left: its requests are answered with 503", Shown(&model.name));
        findings.push(pool.meta.finding(Severity::Error, Reason::NoTarget, &field, message, ""));
    }
    if schemas.windows(2).any(|pair| matches!(pair, [a, b] if a != b)) {
        findings.push(pool.meta.finding(
            Severity::Warning,
            Reason::MixedSchemas,
            format!("{field}.targets"),
            "the backends speak different APIs and requests are not translated between them",
            "targets of one model should have the same schema",
        ));
    }
    let name = model.name.strip_suffix('*');
    ir::Model { name: name.unwrap_or(&model.name).to_owned(), prefix: name.is_some(), targets, retries: model.retries }
}
