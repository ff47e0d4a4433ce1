//! HTTPRoutes: their rules, and the listeners that each is attached to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::{Action, Route};
use crate::objects::{GATEWAY_GROUP, Gateway, HttpRoute, Key, Kind as _, Object, Shown};
use crate::status::{Finding, Origin, Reason, Severity};

use super::attach::{self, Attachment, Parent};
use super::policies::Way;
use super::refs::{GATEWAY, HTTP_ROUTE, Reference};
use super::rules;
use super::view::View;

/// A route of ours, with the listeners that it is attached to.
#[derive(Debug, PartialEq)]
pub struct AttachedRoute {
    /// Unix seconds; the oldest is tried first.
    pub created: i64,
    /// The parentRefs that are for us to answer, by their places in the object. Those of other controllers are not.
    pub parents: Box<[usize]>,
    pub attachments: Box<[Attachment]>,
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

    pub fn gateways(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(gateway, _)| gateway)
    }
}

/// None: the route does not concern us, because its Gateways are of other controllers.
pub fn route(view: View<'_>, object: &Object<HttpRoute>, findings: &mut Vec<Finding>) -> Option<AttachedRoute> {
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut ours: Vec<usize> = Vec::new();
    let mut foreign = false;
    let parents = object.spec.parent_refs.as_deref().unwrap_or_default();
    if parents.is_empty() {
        findings.push(object.meta.finding(
            Severity::Warning,
            Reason::NoMatchingParent,
            "spec.parentRefs",
            "the route has no parent and is not served",
            "parentRefs: [{name: the Gateway}]",
        ));
    }
    for (index, parent) in parents.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        let group = parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if (group, kind) != (GATEWAY_GROUP, "Gateway") {
            findings.push(object.meta.finding(
                Severity::Warning,
                Reason::NotActedOn,
                &field,
                format_args!("a parent of kind {} has no effect here", Shown(kind)),
                "kind: Gateway",
            ));
            continue;
        }
        let namespace = parent.namespace.as_deref().unwrap_or(object.meta.namespace());
        let key = Key::new(namespace, parent.name.clone());
        let Some(gateway) = view.listeners(&key) else {
            if view.object::<Gateway>(namespace, &parent.name).is_some() {
                foreign = true;
            } else {
                let reference = Reference {
                    from: &object.meta,
                    from_kind: HTTP_ROUTE,
                    to_kind: GATEWAY,
                    namespace,
                    name: &parent.name,
                    field: &field,
                };
                let finding = reference.not_found::<Gateway>(Reason::NoMatchingParent, view);
                // In a cluster a Gateway that is not there may be anybody's, and so the route is not ours to answer for.
                if object.meta.file().is_none()
                    && !view.is_refused(&Origin::new(Gateway::NAME, namespace, &*parent.name))
                {
                    let message = format!("Tollgate serves no {}", reference.target());
                    findings.push(Finding { severity: Severity::Warning, message, ..finding });
                    foreign = true;
                } else {
                    findings.push(finding);
                    ours.push(index);
                }
            }
            continue;
        };
        ours.push(index);
        let parent = Parent { section: parent.section_name.as_deref(), port: parent.port };
        match attach::attach(view, object, &parent, gateway) {
            Ok(found) => {
                for attachment in found {
                    if !attachments.contains(&attachment) {
                        attachments.push(attachment);
                    }
                }
            }
            Err(refusal) => {
                findings.push(object.meta.finding(Severity::Error, refusal.reason(), &field, &refusal, refusal.hint()))
            }
        }
    }
    // Routes of other controllers do not concern us.
    if foreign && ours.is_empty() {
        return None;
    }
    findings.extend(object.refused.findings().cloned());
    let rules = rules::rules(view, object, findings);
    let gateways: BTreeSet<&Key> = attachments.iter().map(|attachment| &attachment.gateway).collect();
    let routes = gateways.into_iter().map(|gateway| (gateway.clone(), at(view, object, gateway, &rules))).collect();
    let routes = ByGateway(routes);
    let (parents, attachments) = (ours.into(), attachments.into());
    Some(AttachedRoute { created: object.meta.created.unwrap_or(i64::MAX), parents, attachments, routes })
}

/// The rules at one Gateway, with the limits that hold there.
fn at(view: View<'_>, object: &Object<HttpRoute>, gateway: &Key, rules: &[Arc<Route>]) -> Vec<Arc<Route>> {
    let mut rules = rules.to_vec();
    for route in &mut rules {
        if matches!(route.action, Action::Pool { .. })
            && let Action::Pool { pool, limits, closed_by } = &mut Arc::make_mut(route).action
        {
            let way = Way {
                gateway: (&gateway.namespace, &gateway.name),
                route: (object.meta.namespace(), object.meta.name()),
                pool: pool.split_once('/').unwrap_or_default(),
            };
            *limits = way.limits(view);
            *closed_by = way.closed_by(view.refused_policies());
        }
    }
    rules
}
