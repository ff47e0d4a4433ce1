//! What one Gateway or workload serves, as the ledger is to know it. A change costs what it touches.

use std::collections::BTreeSet;

use tollgate_core::ir::{Catalog, ConsumerNamespaces, PartsDelta, Workload};
use tollgate_core::ledger::{Thing, Things};
use tollgate_core::objects::{ANONYMOUS, Key};
use tollgate_core::status::display_name;
use tollgate_core::world::World;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Serves {
    limits: Things,
    routes: Things,
    /// Everybody who has a key or needs none.
    consumers: Things,
}

/// Whose consumers are others.
pub(super) enum Consumers<'a> {
    /// Those of other namespaces.
    Of(&'a ConsumerNamespaces),
    /// These of the same namespaces.
    Same(&'a ConsumerNamespaces, &'a BTreeSet<Key>),
}

// === impl Serves ===

impl Serves {
    /// What it serves now. `parts`: what is another in it; none: everything may be.
    pub(super) fn update(
        &mut self,
        (world, gateway): (&World, &Key),
        catalog: &Catalog,
        parts: Option<&PartsDelta>,
        consumers: &Consumers<'_>,
    ) {
        if parts.is_none_or(|parts| parts.classes) {
            self.limits = catalog.limits().map(Thing::limit).collect();
        }
        match parts {
            Some(parts) => {
                let is_attached = |route: &Key| world.is_attached(gateway, route);
                self.routes.change(parts.attached.iter().map(|route| (self::route(route), is_attached(route))));
            }
            None => self.routes = world.attached(gateway).map(route).collect(),
        }
        self.update_consumers(world, consumers);
    }

    /// The same of a workload. It has one route, which is named after its Service.
    pub(super) fn update_workload(&mut self, world: &World, workload: &Workload, consumers: &Consumers<'_>) {
        self.limits = workload.catalog.limits().map(Thing::limit).collect();
        self.routes = [Thing::route(&workload.route())].into_iter().collect();
        self.update_consumers(world, consumers);
    }

    fn update_consumers(&mut self, world: &World, consumers: &Consumers<'_>) {
        match consumers {
            Consumers::Of(namespaces) => {
                let keys = world.ir().keys.values().filter(|key| namespaces.include(&key.origin.namespace));
                let named = keys.map(|key| Thing::consumer(&key.consumer));
                self.consumers = named.chain([Thing::consumer(ANONYMOUS)]).collect();
            }
            Consumers::Same(namespaces, others) => {
                let others = others.iter().filter(|consumer| namespaces.include(&consumer.namespace));
                self.consumers.change(others.map(|consumer| (self::consumer(consumer), world.has_key(consumer))));
            }
        }
    }

    pub fn things(&self) -> Vec<Things> {
        [&self.limits, &self.routes, &self.consumers].map(Clone::clone).into()
    }
}

fn route(route: &Key) -> Thing {
    Thing::route(&display_name(&route.namespace, &route.name))
}

fn consumer(consumer: &Key) -> Thing {
    Thing::consumer(&display_name(&consumer.namespace, &consumer.name))
}
