//! The backends that a ModelPool names: which it may use, how many of them could answer now, and what Services behind them
//! are asked for. What is served is in `pools.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::AskedModel;
use crate::objects::{Key, Model, ModelPool, Object, Target};
use crate::status::BackendCount;

use super::refs::{MODEL_BACKEND, MODEL_POOL, Reference};
use super::view::View;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Those that it may use, whether there are such objects or not. Whoever mends a backend that is refused sees here
    /// who waits for it.
    pub used: BTreeSet<Key>,
    pub count: BackendCount,
    /// The models that each Service is asked for, in order.
    pub asked: BTreeMap<Key, Vec<AskedModel>>,
}

pub fn backing(view: View<'_>, pool: &Object<ModelPool>) -> Backing {
    let mut named = BTreeSet::new();
    let mut used = BTreeSet::new();
    let mut asked: BTreeMap<Key, Vec<AskedModel>> = BTreeMap::new();
    for (index, model) in pool.spec.models.iter().enumerate() {
        for (number, target) in model.targets.iter().enumerate() {
            let field = format!("spec.models[{index}].targets[{number}]");
            if pool.refused.of(&field).is_some() {
                continue;
            }
            let namespace = target.backend_namespace.as_deref().unwrap_or(pool.meta.namespace());
            let reference = Reference {
                from: &pool.meta,
                from_kind: MODEL_POOL,
                to_kind: MODEL_BACKEND,
                namespace,
                name: &target.backend_name,
                field: &field,
            };
            let key = Key::new(namespace, target.backend_name.as_str());
            if reference.is_permitted(view) {
                if let Some(service) = view.service_behind(&key) {
                    asked.entry(service).or_default().push(AskedModel::of(model, target));
                }
                used.insert(key.clone());
            }
            named.insert(key);
        }
    }
    let ready = used.iter().filter(|backend| view.is_ready(backend)).count();
    Backing { count: BackendCount { total: named.len(), ready }, used, asked }
}

// === impl AskedModel ===

impl AskedModel {
    /// Of a model that a target renames, no other name reaches it.
    fn of(model: &Model, target: &Target) -> Self {
        let counts_as = model.name.clone();
        let prefix = model.name.strip_suffix('*').filter(|_| target.model.is_none());
        let name = target.model.as_deref().or(prefix).unwrap_or(&model.name);
        Self { name: name.to_owned(), prefix: prefix.is_some(), counts_as }
    }
}
