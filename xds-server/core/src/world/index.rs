//! What is known of objects before any unit is asked: which belong together, and which namespaces there are.

use crate::objects::{
    BackendSlice, Changes, Consumer, Kind as _, ListenerSet, Namespace, Objects, RequestAuthentication, gateway_of,
};
use crate::sets::take_out;
use crate::translate::made::{gateways_of, issuers_of};
use crate::translate::services::service_of;
use crate::translate::view::Fact;

use super::World;
use super::memo::Dirty;

// === impl World ===

impl World {
    /// Notes which Service has which slices, which Gateway which ListenerSets, and which namespaces there are. The objects
    /// are still those of before.
    pub(super) fn index(&mut self, changes: &Changes, dirty: &mut Dirty) {
        let Changes { set, gone, .. } = changes;
        let gone_of = |kind: &'static str| gone.iter().filter(move |(other, _)| *other == kind).map(|(_, key)| key);
        let slices = &self.objects.endpoint_slices;
        let set_slices = || set.endpoint_slices.iter().map(|slice| slice.meta.key());
        for key in set_slices().chain(gone_of(BackendSlice::NAME).cloned()) {
            if let Some(service) = slices.get(&key.namespace, &key.name).and_then(service_of) {
                dirty.facts.insert(Fact::slices(&service));
                take_out(&mut self.made.slices, &service, &key);
            }
        }
        for slice in set.endpoint_slices.iter() {
            if let Some(service) = service_of(slice) {
                dirty.facts.insert(Fact::slices(&service));
                self.made.slices.entry(service).or_default().insert(slice.meta.key());
            }
        }
        let before = &self.objects.listener_sets;
        for key in set.listener_sets.iter().map(|set| set.meta.key()).chain(gone_of(ListenerSet::NAME).cloned()) {
            if let Some(gateway) = before.get(&key.namespace, &key.name).map(gateway_of) {
                dirty.facts.insert(Fact::listener_sets(&gateway));
                take_out(&mut self.made.listener_sets, &gateway, &key);
            }
        }
        for set in set.listener_sets.iter() {
            let gateway = gateway_of(set);
            dirty.facts.insert(Fact::listener_sets(&gateway));
            self.made.listener_sets.entry(gateway).or_default().insert(set.meta.key());
        }
        self.index_request_authentications(changes, dirty);
        let Objects { namespaces, consumers, .. } = &self.objects;
        let new = set.namespaces.iter().filter(|object| namespaces.get("", object.meta.name()).is_none());
        let new = new.map(|object| object.meta.name());
        let owned = set.consumers.iter().map(|object| &object.meta);
        let owned = owned.filter(|meta| consumers.get(meta.namespace(), meta.name()).is_none());
        for name in new.chain(owned.map(|meta| meta.namespace())) {
            if self.made.namespaces.add(name.to_owned()) {
                dirty.facts.insert(Fact::known_namespaces());
            }
        }
        let lost = gone_of(Namespace::NAME).filter(|key| namespaces.get("", &key.name).is_some()).map(|key| &*key.name);
        let left = gone_of(Consumer::NAME).filter(|key| consumers.get(&key.namespace, &key.name).is_some());
        for name in lost.chain(left.map(|key| &*key.namespace)) {
            if self.made.namespaces.remove(name) {
                dirty.facts.insert(Fact::known_namespaces());
            }
        }
    }

    /// Notes which Gateway has which RequestAuthentications, and whose JWTs these have verified.
    fn index_request_authentications(&mut self, changes: &Changes, dirty: &mut Dirty) {
        let gone = changes.gone.iter().filter(|(kind, _)| *kind == RequestAuthentication::NAME).map(|(_, key)| key);
        let set = &changes.set.request_authentications;
        for key in set.iter().map(|object| object.meta.key()).chain(gone.cloned()) {
            let Some(before) = self.objects.request_authentications.get(&key.namespace, &key.name) else { continue };
            for gateway in gateways_of(before) {
                dirty.facts.insert(Fact::request_authentications(&gateway));
                take_out(&mut self.made.request_authentications, &gateway, &key);
            }
            if issuers_of(before).filter(|issuer| self.made.issuers.remove(issuer.as_str())).count() > 0 {
                dirty.facts.insert(Fact::issuers());
            }
        }
        for object in set.iter() {
            for gateway in gateways_of(object) {
                dirty.facts.insert(Fact::request_authentications(&gateway));
                self.made.request_authentications.entry(gateway).or_default().insert(object.meta.key());
            }
            if issuers_of(object).filter(|issuer| self.made.issuers.add((*issuer).clone())).count() > 0 {
                dirty.facts.insert(Fact::issuers());
            }
        }
    }
}
