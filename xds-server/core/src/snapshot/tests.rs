//! What is noted as changed is what a comparison of everything finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Changed, Resource, ResourceType, Resources, Snapshot, Version};
use crate::ir::ConsumerNamespaces;
use crate::status::Origin;

const KINDS: [ResourceType; 3] = [ResourceType::Cluster, ResourceType::Route, ResourceType::ApiKey];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NAMESPACES: [&str; 3] = ["team-0", "team-1", "team-2"];

fn resource(version: u8, namespace: &str) -> Arc<Resource> {
    let origin = Origin::new("Consumer", namespace, "x");
    // A key's namespace is part of its message.
    let version = Version::of(format!("{version}/{namespace}").as_bytes());
    Arc::new(Resource { version, content: Vec::new().into(), origins: [origin].into() })
}

fn namespaces() -> impl Strategy<Value = ConsumerNamespaces> {
    let only = prop::collection::btree_set(prop::sample::select(NAMESPACES.to_vec()), 0..3);
    prop_oneof![
        Just(ConsumerNamespaces::All),
        only.prop_map(|names| ConsumerNamespaces::Only(names.into_iter().map(str::to_owned).collect())),
    ]
}

fn some_resource() -> impl Strategy<Value = Arc<Resource>> {
    (0_u8..3, prop::sample::select(NAMESPACES.to_vec())).prop_map(|(version, namespace)| resource(version, namespace))
}

fn resources() -> impl Strategy<Value = Vec<(Arc<str>, Arc<Resource>)>> {
    let name = prop::sample::select(NAMES.to_vec()).prop_map(Arc::from);
    prop::collection::btree_map(name, some_resource(), 0..4).prop_map(|all| all.into_iter().collect())
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let of_kind = |kind| resources().prop_map(move |all| (kind, all));
    (of_kind(ResourceType::Cluster), of_kind(ResourceType::Route), of_kind(ResourceType::ApiKey), namespaces())
        .prop_map(|(clusters, routes, keys, served)| {
            let mut snapshot = Snapshot::default();
            for (kind, all) in [clusters, routes, keys] {
                for (name, resource) in all {
                    snapshot.insert(kind, name, Resource::clone(&resource));
                }
            }
            snapshot.served = served;
            snapshot
        })
}

/// The definition: another version, new, or gone.
fn compared(old: &Snapshot, new: &Snapshot) -> Changed {
    let mut changed = Changed::default();
    for kind in ResourceType::ALL {
        let version = |snapshot: &Snapshot, name: &str| snapshot.get(kind, name).map(|found| found.version);
        for (name, _) in old.shared_of(kind).chain(new.shared_of(kind)) {
            if version(old, name) != version(new, name) {
                changed.add(kind, Arc::clone(name));
            }
        }
    }
    changed
}

proptest! {
    #[test]
    fn between_finds_what_differs(old in snapshot(), new in snapshot()) {
        let changed = Changed::between(&old, &new);
        prop_assert_eq!(&changed, &compared(&old, &new));
        prop_assert_eq!(changed.is_empty(), changed.iter().next().is_none());
        prop_assert_eq!(changed.len(), changed.iter().count());
    }

    #[test]
    fn single_changes_are_noted(
        old in snapshot(),
        changes in prop::collection::vec(
            (prop::sample::select(KINDS.to_vec()), prop::sample::select(NAMES.to_vec()), prop::option::of(some_resource())),
            0..10,
        ),
    ) {
        let old = Snapshot { served: ConsumerNamespaces::All, ..old };
        let mut new = old.clone();
        for (kind, name, resource) in changes {
            let mut changed = Changed::default();
            let before = new.clone();
            let name = Arc::from(name);
            match resource {
                Some(resource) => new.put(kind, &name, resource, &mut changed),
                None => new.remove(kind, &name, &mut changed),
            }
            prop_assert_eq!(changed, compared(&before, &new));
        }
    }

    /// It is the same as to begin with the new one, and what did not change is still the very same.
    #[test]
    fn an_update_changes_what_differs(old in snapshot(), next in snapshot(), keys in resources(), served in namespaces()) {
        let mut all_keys = old.resources.get(&ResourceType::ApiKey).cloned().unwrap_or_default();
        let touched = all_keys.update(&keys.iter().cloned().collect());
        let mut new = old.clone();
        let mut changed = Changed::default();
        new.update(&next, &mut changed);
        new.serve_keys(&all_keys, &touched, served.clone(), &mut changed);

        let mut expected = next;
        expected.serve_keys(&keys.into_iter().collect(), &BTreeSet::new(), served, &mut Changed::default());
        prop_assert!(compared(&new, &expected).is_empty());
        prop_assert_eq!(new.digest(), expected.digest());
        let only_keys = compared(&old, &new).iter().all(|(kind, _)| kind == ResourceType::ApiKey);
        prop_assert_eq!(new.digest() == old.digest(), only_keys);
        prop_assert_eq!(&changed, &compared(&old, &new));
        for kind in ResourceType::ALL {
            for (name, resource) in new.shared_of(kind) {
                prop_assert_eq!(&expected.get(kind, name).unwrap().origins, &resource.origins);
                if let Some(before) = old.shared(kind, name) {
                    prop_assert_eq!(Arc::ptr_eq(before, resource), before.version == resource.version);
                }
            }
        }
    }

    #[test]
    fn a_merge_has_both(one in snapshot(), other in snapshot(), keys in resources()) {
        let keys: Resources = keys.into_iter().collect();
        let [one, other] = [one, other].map(|mut snapshot| {
            snapshot.resources.insert(ResourceType::ApiKey, keys.clone());
            snapshot
        });
        let mut both = one.clone();
        both.merge(&other);
        for kind in ResourceType::ALL {
            let names: BTreeSet<_> = one.of(kind).chain(other.of(kind)).map(|(name, _)| name).collect();
            prop_assert_eq!(both.of(kind).map(|(name, _)| name).collect::<BTreeSet<_>>(), names);
            for (name, resource) in other.of(kind) {
                prop_assert_eq!(both.get(kind, name), Some(resource));
            }
        }
    }
}

/// The bytes are the same, so nothing is sent, but a refusal ends on the object of now.
#[test]
fn another_origin_is_no_change_for_clients() {
    let name = Arc::from("a");
    let mut snapshot = Snapshot::default();
    snapshot.insert(ResourceType::Route, "a", Resource::clone(&resource(1, "team-0")));
    let moved = Resource { version: resource(1, "team-0").version, ..Resource::clone(&resource(1, "team-1")) };
    let mut changed = Changed::default();
    snapshot.put(ResourceType::Route, &name, Arc::new(moved), &mut changed);
    assert!(changed.is_empty());
    assert_eq!(snapshot.get(ResourceType::Route, "a").unwrap().origins[0].namespace.as_ref(), "team-1");
}
