//! HTTPRoutes: their rules, and the listeners that each is attached to.

use crate::objects::{GATEWAY_GROUP, HttpRoute, Key, Object, Objects, Shown};
use crate::status::{Finding, Severity};

use super::attach::{self, Parent};
use super::listeners::Listeners;
use super::pools::Pools;
use super::refs::{GATEWAY, HTTP_ROUTE, Reference};
use super::rules::{self, RuleRoute};
use super::services::Services;

/// A route that is attached to at least one listener.
#[derive(Debug)]
pub struct AttachedRoute<'a> {
    pub object: &'a Object<HttpRoute>,
    pub routes: Vec<RuleRoute>,
    pub attachments: Vec<Attachment>,
}

/// One listener that a route is attached to, and the hostnames that both are for.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    pub gateway: Key,
    pub listener: String,
    pub hostnames: Vec<String>,
}

pub fn routes<'a>(
    objects: &'a Objects,
    listeners: &Listeners<'_>,
    pools: &Pools,
    services: &Services,
    findings: &mut Vec<Finding>,
) -> Vec<AttachedRoute<'a>> {
    let mut attached = Vec::new();
    for object in objects.http_routes.iter() {
        let mut attachments: Vec<Attachment> = Vec::new();
        let mut foreign = false;
        let parents = object.spec.parent_refs.as_deref().unwrap_or_default();
        if parents.is_empty() {
            findings.push(object.meta.finding(
                Severity::Warning,
                "NoMatchingParent",
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
                    "NotActedOn",
                    &field,
                    format_args!("a parent of kind {} has no effect here", Shown(kind)),
                    "kind: Gateway",
                ));
                continue;
            }
            let namespace = parent.namespace.as_deref().unwrap_or(object.meta.namespace());
            let key = Key::new(namespace, parent.name.clone());
            let Some(gateway) = listeners.get(&key) else {
                if objects.gateways.get(namespace, &parent.name).is_some() {
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
                    findings.push(reference.not_found("NoMatchingParent", objects, &objects.gateways));
                }
                continue;
            };
            let parent = Parent { section: parent.section_name.as_deref(), port: parent.port };
            match attach::attach(objects, object, &parent, gateway) {
                Ok(found) => {
                    for (listener, hostnames) in found {
                        let attachment = Attachment { gateway: key.clone(), listener, hostnames };
                        if !attachments.contains(&attachment) {
                            attachments.push(attachment);
                        }
                    }
                }
                Err(refusal) => findings.push(object.meta.finding(
                    Severity::Error,
                    refusal.reason(),
                    &field,
                    &refusal,
                    refusal.hint(),
                )),
            }
        }
        // Routes of other controllers do not concern us.
        if foreign && attachments.is_empty() {
            continue;
        }
        let routes = rules::rules(objects, object, pools, services, findings);
        attached.push(AttachedRoute { object, routes, attachments });
    }
    attached
}
