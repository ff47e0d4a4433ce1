//! Services to workloads: what the filter in their sidecars must know.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::ir::{AskedModel, Catalog, Class, ConsumerNamespaces, Workload};
use crate::mesh::Mesh;
use crate::objects::{Key, Names, Object, Pod, RefusedPolicy, Service, TargetKind};
use crate::placement::Direction;
use crate::scope::Scope;
use crate::status::Membership;

use super::services;
use super::view::View;

/// None: no policy is for the Service, or it selects no Pods. Then there is no filter in sidecars for it.
pub fn workload(view: View<'_>, direction: Direction, service: &Object<Service>) -> Option<Workload> {
    let key = service.meta.key();
    let limits: BTreeSet<&String> = view.limits(TargetKind::Service, &key).collect();
    let refused = view.refused_policies();
    if !is_named(view, service) {
        return None;
    }
    let selector = service.spec.spec.selector.clone().unwrap_or_default();
    let class = Class {
        pool: None,
        limits: limits.into_iter().cloned().collect(),
        closed_by: refused.iter().find(|policy| closes(policy, &key)).map(RefusedPolicy::label),
    };
    let consumers = ConsumerNamespaces::Only([key.namespace.to_string()].into());
    let claim_sets = view.claim_sets(&key.namespace);
    let models = models(view, &key);
    let (ports, identities, pods) = (ports(view, service), services::identities_of(view, &key), pods(view, &key));
    let mut catalog = Catalog::new(Scope::Workload { service: key, direction });
    catalog.classes.insert(class);
    catalog.claim_sets = claim_sets;
    let origin = service.meta.origin.clone();
    Some(Workload { origin, catalog, consumers, models, selector, ports, identities, pods })
}

/// Whether the sidecars of the workload behind a Service have the filter.
pub fn has_filter(view: View<'_>, service: &Key) -> bool {
    view.opens_workloads()
        && view.object::<Service>(&service.namespace, &service.name).is_some_and(|service| is_named(view, service))
}

/// Whether a policy names it, and it has Pods.
fn is_named(view: View<'_>, service: &Object<Service>) -> bool {
    let key = service.meta.key();
    let selects = service.spec.spec.selector.as_ref().is_some_and(|labels| !labels.is_empty());
    let by_policy = || view.limits(TargetKind::Service, &key).next().is_some();
    selects && (by_policy() || view.refused_policies().iter().any(|policy| names(policy, &key)))
}

/// What pools call the models that they ask it for. The first pool by name decides. Where all call all the same, any other
/// name counts for it too, because a runner of one model answers to every name.
fn models(view: View<'_>, service: &Key) -> Vec<AskedModel> {
    let mut models: BTreeMap<(&str, bool), &str> = BTreeMap::new();
    for model in view.asked(service) {
        models.entry((&model.name, model.prefix)).or_insert(&model.counts_as);
    }
    let all: BTreeSet<&str> = models.values().copied().collect();
    if let Some(only) = all.first().filter(|_| all.len() == 1) {
        models.entry(("", true)).or_insert(only);
    }
    let model = |((name, prefix), counts_as): ((&str, bool), &str)| AskedModel {
        name: name.to_owned(),
        prefix,
        counts_as: counts_as.to_owned(),
    };
    models.into_iter().map(model).collect()
}

/// The Pods behind it, ready or not.
fn pods(view: View<'_>, service: &Key) -> BTreeMap<String, Membership> {
    let slices = view.slices(service);
    let pods = slices.iter().flat_map(|slice| &slice.spec.endpoints).filter_map(|endpoint| {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let name = target.name.as_deref()?;
        let is_member = view.object::<Pod>(&service.namespace, name).is_some_and(|pod| Mesh::has(&pod.meta));
        Some((name.to_owned(), if is_member { Membership::Member } else { Membership::Outside }))
    });
    pods.collect()
}

/// The ports of its Pods (ServicePort.targetPort). What a name of a port means, EndpointSlices say.
fn ports(view: View<'_>, service: &Object<Service>) -> BTreeSet<u16> {
    let slices = view.slices(&service.meta.key());
    let of_port = |port: &k8s_openapi::api::core::v1::ServicePort| -> Vec<i32> {
        match &port.target_port {
            None => vec![port.port],
            Some(IntOrString::Int(number)) => vec![*number],
            Some(IntOrString::String(_)) => {
                let named = slices.iter().flat_map(|slice| &slice.spec.ports);
                let named = named.filter(|of_slice| {
                    of_slice.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                });
                named.filter_map(|of_slice| of_slice.port).collect()
            }
        }
    };
    let ports = service.spec.spec.ports.iter().flatten().filter(|port| speaks_tcp(port));
    ports.flat_map(of_port).filter_map(|number| u16::try_from(number).ok().filter(|number| *number > 0)).collect()
}

pub(super) fn speaks_tcp(port: &k8s_openapi::api::core::v1::ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// Whether a refused policy closes a workload. Of one whose targets cannot be read, nobody knows whether it was for a
/// Service. It closes those that have a filter by another policy, and leaves the rest of the mesh alone.
pub fn closes(policy: &RefusedPolicy, service: &Key) -> bool {
    match &policy.names {
        Names::Everything => true,
        Names::AllOfItsNamespace => *service.namespace == *policy.meta.namespace(),
        Names::Targets(_) => names(policy, service),
    }
}

/// Whether it names this Service.
fn names(policy: &RefusedPolicy, service: &Key) -> bool {
    let Names::Targets(targets) = &policy.names else { return false };
    let is_it = |name: &str| (policy.meta.namespace(), name) == (&*service.namespace, &*service.name);
    targets.iter().any(|target| target.kind == TargetKind::Service && is_it(&target.name))
}
