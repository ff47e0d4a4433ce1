//! What stays when new input is broken: the last good version, object by object.

use std::collections::BTreeSet;

use super::{Objects, Store};
use crate::status::Origin;

// === impl Objects ===

impl Objects {
    /// Takes over from `last` what the new input lost by mistake and not on purpose: objects of files that
    /// can no longer be read, and objects that are still there but are now refused.
    pub fn keep_last_good(&mut self, last: &Self, broken_files: &BTreeSet<String>) {
        let Self {
            gateway_classes,
            gateways,
            http_routes,
            reference_grants,
            namespaces,
            services,
            endpoint_slices,
            secrets,
            model_pools,
            model_backends,
            consumers,
            token_policies,
            refused,
        } = self;
        keep(gateway_classes, &last.gateway_classes, refused, broken_files);
        keep(gateways, &last.gateways, refused, broken_files);
        keep(http_routes, &last.http_routes, refused, broken_files);
        keep(reference_grants, &last.reference_grants, refused, broken_files);
        keep(namespaces, &last.namespaces, refused, broken_files);
        keep(services, &last.services, refused, broken_files);
        keep(endpoint_slices, &last.endpoint_slices, refused, broken_files);
        keep(secrets, &last.secrets, refused, broken_files);
        keep(model_pools, &last.model_pools, refused, broken_files);
        keep(model_backends, &last.model_backends, refused, broken_files);
        keep(consumers, &last.consumers, refused, broken_files);
        keep(token_policies, &last.token_policies, refused, broken_files);
    }
}

fn keep<T: Clone>(
    new: &mut Store<T>,
    last: &Store<T>,
    refused: &mut BTreeSet<Origin>,
    broken_files: &BTreeSet<String>,
) {
    for object in last.iter() {
        let meta = &object.meta;
        let lost = broken_files.contains(&meta.file) || refused.contains(&meta.origin);
        if lost && new.get(meta.namespace(), meta.name()).is_none() {
            refused.remove(&meta.origin);
            new.insert(object.clone());
        }
    }
}
