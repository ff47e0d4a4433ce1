//! The backends that a ModelPool names: which it may use, and how many of them could answer now. Only its status tells of
//! it. What is served is in `pools.rs`.

use std::collections::BTreeSet;

use crate::objects::{Key, ModelPool, Object};
use crate::status::BackendCount;

use super::refs::{MODEL_BACKEND, MODEL_POOL, Reference};
use super::view::View;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Those that it may use, whether there are such objects or not. Whoever mends a backend that is refused sees here
    /// who waits for it.
    pub used: BTreeSet<Key>,
    pub count: BackendCount,
}

pub fn backing(view: View<'_>, pool: &Object<ModelPool>) -> Backing {
    let mut named = BTreeSet::new();
    let mut used = BTreeSet::new();
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
                used.insert(key.clone());
            }
            named.insert(key);
        }
    }
    let ready = used.iter().filter(|backend| view.is_ready(backend)).count();
    Backing { count: BackendCount { total: named.len(), ready }, used }
}
