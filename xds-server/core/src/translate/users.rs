//! Who uses which of our objects: routes lead to pools, pools use backends, and Consumers count in pools. It follows one
//! route or pool at a time, and says whose statuses that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{self, Access, Action, ConsumerNamespaces};
use crate::objects::{GATEWAY_GROUP, Key, Kind, ModelPool, TOLLGATE_GROUP};
use crate::sets::take_out;
use crate::status::{ObjectRef, UsedBy};

use super::backing::Backing;
use super::given::RouteId;
use super::routes::AttachedRoute;

#[derive(Debug, Default)]
pub struct Users {
    /// The routes that lead to each pool, where they are attached.
    routes: BTreeMap<Key, BTreeSet<Arc<RouteId>>>,
    /// The pools that use each backend.
    pools: BTreeMap<Key, BTreeSet<Arc<Key>>>,
    /// The pools in which Consumers of any namespace count.
    open: BTreeSet<Arc<Key>>,
    /// The others, by a namespace whose Consumers count there.
    open_to: BTreeMap<String, BTreeSet<Arc<Key>>>,
}

/// Whose Consumers have other pools now.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    OfAll,
    Of(BTreeSet<String>),
}

/// A value before and after a step.
type Step<'a, T> = [Option<&'a T>; 2];

// === impl Users ===

impl Users {
    /// Returns the pools that have other users now.
    pub fn follow_route(&mut self, id: &Arc<RouteId>, [before, after]: Step<'_, AttachedRoute>) -> BTreeSet<Key> {
        let (before, after) = (pools_of(before), pools_of(after));
        for pool in before.difference(&after) {
            take_out(&mut self.routes, pool, id);
        }
        for pool in after.difference(&before) {
            self.routes.entry(pool.clone()).or_default().insert(Arc::clone(id));
        }
        before.symmetric_difference(&after).cloned().collect()
    }

    /// Returns the backends that have other users now.
    pub fn follow_backing(&mut self, pool: &Arc<Key>, [before, after]: Step<'_, Backing>) -> BTreeSet<Key> {
        let none = BTreeSet::new();
        let [before, after] = [before, after].map(|backing| backing.map_or(&none, |backing| &backing.used));
        for backend in before.difference(after) {
            take_out(&mut self.pools, backend, pool);
        }
        for backend in after.difference(before) {
            self.pools.entry(backend.clone()).or_default().insert(Arc::clone(pool));
        }
        before.symmetric_difference(after).cloned().collect()
    }

    /// Returns whose Consumers count in other pools now.
    pub fn follow_pool(&mut self, pool: &Arc<Key>, [before, after]: Step<'_, ir::Pool>) -> Admitted {
        let [before, after] = [before, after].map(admitted);
        if before == after {
            return Admitted::Of(BTreeSet::new());
        }
        match &before {
            Admitted::OfAll => {
                self.open.remove(pool);
            }
            Admitted::Of(names) => names.iter().for_each(|name| {
                take_out(&mut self.open_to, name, pool);
            }),
        }
        match &after {
            Admitted::OfAll => {
                self.open.insert(Arc::clone(pool));
            }
            Admitted::Of(names) => names.iter().for_each(|name| {
                self.open_to.entry(name.clone()).or_default().insert(Arc::clone(pool));
            }),
        }
        match (before, after) {
            (Admitted::Of(before), Admitted::Of(after)) => {
                Admitted::Of(before.symmetric_difference(&after).cloned().collect())
            }
            _ => Admitted::OfAll,
        }
    }

    pub fn of_pool(&self, pool: &Key) -> UsedBy {
        let Some(routes) = self.routes.get(pool) else { return UsedBy::default() };
        let named = routes.iter().take(UsedBy::NAMED);
        let objects = named.map(|id| reference(GATEWAY_GROUP, id.kind.name(), &id.key)).collect();
        UsedBy { total: routes.len(), objects }
    }

    pub fn of_backend(&self, backend: &Key) -> UsedBy {
        self.pools.get(backend).map_or_else(UsedBy::default, |pools| UsedBy {
            total: pools.len(),
            objects: pools.iter().take(UsedBy::NAMED).map(|pool| of_pools(pool)).collect(),
        })
    }

    pub fn of_consumer(&self, namespace: &str) -> UsedBy {
        let open_to = self.open_to.get(namespace);
        // The first of both are among the first of each.
        let of_each = self.open.iter().take(UsedBy::NAMED);
        let first: BTreeSet<&Arc<Key>> = of_each.chain(open_to.into_iter().flatten().take(UsedBy::NAMED)).collect();
        UsedBy {
            total: self.open.len() + open_to.map_or(0, BTreeSet::len),
            objects: first.into_iter().take(UsedBy::NAMED).map(|pool| of_pools(pool)).collect(),
        }
    }
}

fn pools_of(route: Option<&AttachedRoute>) -> BTreeSet<Key> {
    let rules = route.into_iter().flat_map(|route| route.routes.somewhere());
    let pools = rules.filter_map(|rule| match &rule.action {
        Action::Pool { pool, .. } => pool.split_once('/'),
        _ => None,
    });
    pools.map(|(namespace, name)| Key::new(namespace, name)).collect()
}

/// In an anonymous pool no Consumer counts.
fn admitted(pool: Option<&ir::Pool>) -> Admitted {
    match pool.filter(|pool| pool.access == Access::Required).map(|pool| &pool.consumers) {
        None => Admitted::Of(BTreeSet::new()),
        Some(ConsumerNamespaces::All) => Admitted::OfAll,
        Some(ConsumerNamespaces::Only(names)) => Admitted::Of(names.clone()),
    }
}

fn of_pools(pool: &Key) -> ObjectRef {
    reference(TOLLGATE_GROUP, ModelPool::NAME, pool)
}

fn reference(group: &str, kind: &str, key: &Key) -> ObjectRef {
    ObjectRef {
        group: Some(group.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: key.name.to_string(),
        ..ObjectRef::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Arc<Key> {
        Arc::new(Key::new("a", name))
    }

    fn backing(backends: &[&str]) -> Backing {
        Backing { used: backends.iter().map(|name| Key::new("a", *name)).collect(), ..Backing::default() }
    }

    fn names(used: &UsedBy) -> Vec<&str> {
        used.objects.iter().map(|object| object.name.as_str()).collect()
    }

    #[test]
    fn the_first_are_named_and_all_are_counted() {
        let mut users = Users::default();
        for number in 0..40 {
            users.follow_backing(&key(&format!("p{number:02}")), [None, Some(&backing(&["m"]))]);
        }
        let used = users.of_backend(&Key::new("a", "m"));
        let first: Vec<String> = (0..16).map(|number| format!("p{number:02}")).collect();
        assert_eq!((used.total, names(&used)), (40, first.iter().map(String::as_str).collect()));
        // One more changes the number alone.
        users.follow_backing(&key("p40"), [None, Some(&backing(&["m"]))]);
        assert_eq!(users.of_backend(&Key::new("a", "m")), UsedBy { total: 41, ..used });
    }

    #[test]
    fn only_those_are_told_whose_users_are_others() {
        let mut users = Users::default();
        let (both, one) = (backing(&["m", "n"]), backing(&["n"]));
        let told: BTreeSet<Key> = [Key::new("a", "m"), Key::new("a", "n")].into();
        assert_eq!(users.follow_backing(&key("p"), [None, Some(&both)]), told);
        assert_eq!(users.follow_backing(&key("p"), [Some(&both), Some(&one)]), [Key::new("a", "m")].into());
        assert_eq!(users.of_backend(&Key::new("a", "m")), UsedBy::default());
        assert_eq!(names(&users.of_backend(&Key::new("a", "n"))), ["p"]);
    }
}
