//! HTTPRoutes and GRPCRoutes: their rules, and the listeners that each is attached to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::{Action, Route};
use crate::objects::{INFERENCE_GROUP, InferencePool, Key, Kind as _};
use crate::status::Finding;

use super::attach::Attachment;
use super::given::GivenRoute;
use super::parents::{self, Child, ParentRef, Parents};
use super::policies::Way;
use super::refs::{INFERENCE_POOL, Reference};
use super::rules;
use super::view::View;

/// A route of ours, with the listeners that it is attached to.
#[derive(Debug, PartialEq)]
pub struct AttachedRoute {
    /// Unix seconds; the oldest is tried first.
    pub created: i64,
    /// See [`Parents::ours`].
    pub parents: Box<[usize]>,
    pub attachments: Box<[Attachment]>,
    /// The InferencePools that it names, whatever becomes of that.
    pub pools: Box<[Key]>,
    pub routes: ByGateway,
}

/// What each of the Gateways of a route has of it. They differ by the limits that hold there. There are few.
#[derive(Debug, PartialEq)]
pub struct ByGateway(Box<[(Key, Vec<Arc<Route>>)]>);

// === impl ByGateway ===

impl ByGateway {
    pub fn at(&self, gateway: &Key) -> &[Arc<Route>] {
        self.0.iter().find(|(other, _)| other == gateway).map(|(_, rules)| rules.as_slice()).unwrap_or_default()
    }

    /// The same for one of the Gateways, whichever that is.
    pub fn somewhere(&self) -> &[Arc<Route>] {
        self.0.first().map(|(_, rules)| rules.as_slice()).unwrap_or_default()
    }

    /// What some of the Gateways have.
    pub fn only(&self, has: impl Fn(&Key) -> bool) -> Self {
        Self(self.0.iter().filter(|(gateway, _)| has(gateway)).cloned().collect())
    }

    pub fn gateways(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(gateway, _)| gateway)
    }
}

/// None: the route does not concern us, because its Gateways are of other controllers.
pub fn route(view: View<'_>, given: GivenRoute<'_>, findings: &mut Vec<Finding>) -> Option<AttachedRoute> {
    let child = Child { meta: given.meta, kind: given.kind.group_kind(), route: given.into() };
    let references = given.spec.parent_refs.iter().flatten().map(ParentRef::from);
    let Parents { ours, attachments } = parents::parents(view, child, references, findings)?;
    findings.extend(given.refused.findings().cloned());
    let rules = rules::rules(view, given, findings);
    let gateways: BTreeSet<&Key> = attachments.iter().map(|attachment| &attachment.gateway).collect();
    let routes = gateways.into_iter().map(|gateway| (gateway.clone(), at(view, given, gateway, &rules))).collect();
    let routes = ByGateway(routes);
    let (created, pools) = (given.meta.created.unwrap_or(i64::MAX), pools(view, given));
    Some(AttachedRoute { created, parents: ours, attachments, pools, routes })
}

/// A pool of another namespace learns of it only if it permits it.
fn pools(view: View<'_>, given: GivenRoute<'_>) -> Box<[Key]> {
    let backends = given.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let named = backends.filter(|backend| {
        (backend.group.as_deref(), backend.kind.as_deref()) == (Some(INFERENCE_GROUP), Some(InferencePool::NAME))
    });
    let permitted = named.filter_map(|backend| {
        let namespace = backend.namespace.as_deref().unwrap_or(given.meta.namespace());
        let (from_kind, name) = (given.kind.group_kind(), backend.name.as_str());
        let reference = Reference { from: given.meta, from_kind, to_kind: INFERENCE_POOL, namespace, name, field: "" };
        reference.is_permitted(view).then(|| Key::new(namespace, name))
    });
    let pools: BTreeSet<Key> = permitted.collect();
    pools.into_iter().collect()
}

/// The rules at one Gateway, with the limits that hold there.
fn at(view: View<'_>, given: GivenRoute<'_>, gateway: &Key, rules: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let mut rules = rules.to_vec();
    for route in &mut rules {
        if matches!(route.action, Action::Pool { .. })
            && let Action::Pool { pool, limits, closed_by } = &mut Arc::make_mut(route).action
        {
            let way = Way {
                gateway: (&gateway.namespace, &gateway.name),
                route: (given.meta.namespace(), given.meta.name()),
                pool: pool.split_once('/').unwrap_or_default(),
            };
            *limits = way.limits(view);
            *closed_by = way.closed_by(view.refused_policies());
        }
    }
    rules
}
