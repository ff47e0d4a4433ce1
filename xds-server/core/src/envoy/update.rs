//! Brings the snapshot of a Gateway up to date where the Gateway changed, and leaves the rest alone.

use std::sync::Arc;

use crate::ir::{self, Host, PartsDelta};
use crate::snapshot::{Changed, Resource, ResourceType, Snapshot};

use super::route_table::{Form, Table};
use super::{Surroundings, cluster, secret, wasm, without_keys};

/// The snapshot becomes what [`without_keys`] makes, which a property test holds against this. Notes what changed in it.
pub fn update(
    snapshot: &mut Snapshot,
    (gateway, ir): (&ir::Gateway, &ir::Ir),
    delta: &PartsDelta,
    surroundings: &Surroundings,
    changed: &mut Changed,
) {
    let had_filter = snapshot.of(ResourceType::ExtensionConfig).next().is_some();
    let other_form = |table: Table<'_>| table.form(surroundings.route_tables) != table.form_in(snapshot);
    // A filter that comes or goes is named in every listener, and so is the form of a table.
    if had_filter != wasm::is_needed(&gateway.catalog) || Table::all(gateway).any(other_form) {
        snapshot.update(&without_keys(gateway, ir, surroundings), changed);
        return;
    }
    let mut updating = Updating { snapshot, changed };
    updating.backends(gateway, delta);
    updating.services(gateway, delta);
    if delta.classes || !delta.pools.is_empty() || !delta.backends.is_empty() {
        updating
            .kind(ResourceType::ExtensionConfig, |made| wasm::add(made, &gateway.catalog, ir, &surroundings.filter));
    }
    for table in Table::all(gateway) {
        updating.table(gateway, &table, delta, table.form(surroundings.route_tables));
    }
}

struct Updating<'a> {
    snapshot: &'a mut Snapshot,
    changed: &'a mut Changed,
}

// === impl Updating ===

impl Updating<'_> {
    /// What is there now under this name. None: nothing is.
    fn set(&mut self, kind: ResourceType, name: &str, resource: Option<Resource>) {
        let name: Arc<str> = name.into();
        match resource {
            Some(resource) => self.snapshot.put(kind, &name, Arc::new(resource), self.changed),
            None => self.snapshot.remove(kind, &name, self.changed),
        }
    }

    /// Everything of one type is made anew.
    fn kind(&mut self, kind: ResourceType, add: impl FnOnce(&mut Snapshot)) {
        let mut made = Snapshot::default();
        add(&mut made);
        self.snapshot.update_kind(kind, &made, self.changed);
    }

    fn backends(&mut self, gateway: &ir::Gateway, delta: &PartsDelta) {
        if delta.backends.is_empty() {
            return;
        }
        // Backends share secrets.
        self.kind(ResourceType::Secret, |made| secret::add(made, gateway));
        for name in &delta.backends {
            let backend = gateway.catalog.backends.get(name).map(|backend| cluster::backend(gateway, backend));
            self.set(ResourceType::Cluster, name, backend);
        }
    }

    fn services(&mut self, gateway: &ir::Gateway, delta: &PartsDelta) {
        for name in &delta.services {
            let service = gateway.services.get(name);
            let made = service.map(|service| cluster::service(gateway, service)).unwrap_or_default();
            let is_gone = |(kind, name): &(_, String)| !made.iter().any(|(other, now, _)| (other, now) == (kind, name));
            for (kind, name) in cluster::names_of_service(gateway, name).into_iter().filter(is_gone) {
                self.set(kind, &name, None);
            }
            for (kind, name, resource) in made {
                self.set(kind, &name, Some(resource));
            }
            let authority = service.and_then(|service| secret::of_service(service));
            self.set(ResourceType::Secret, &secret::authority_name(name), authority);
        }
    }

    fn table(&mut self, gateway: &ir::Gateway, table: &Table<'_>, delta: &PartsDelta, form: Form) {
        let site = |host: &Host| table.sites.iter().find(|site| site.name == host.listener);
        let hosts = delta.hosts.iter().filter_map(|host| Some((site(host)?, &host.domain)));
        let (wildcards, exact): (Vec<_>, Vec<_>) = hosts.partition(|(_, domain)| domain.is_wildcard());
        match form {
            Form::OneTable if !(wildcards.is_empty() && exact.is_empty()) => {
                self.set(ResourceType::Route, &table.name, Some(table.one_table(gateway)));
            }
            Form::OneTable => {}
            Form::Scoped => {
                for (site, domain) in exact {
                    let host = site.virtual_hosts.get(domain);
                    let scope = host.map(|host| table.host_scope(gateway, site, host));
                    self.set(ResourceType::ScopedRoute, &table.scope_of(domain), scope);
                }
                if !wildcards.is_empty() {
                    let scope = table.wildcard_scope(gateway);
                    self.set(ResourceType::ScopedRoute, &table.scope_of_wildcards(), Some(scope));
                }
            }
        }
    }
}
