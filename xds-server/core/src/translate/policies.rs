//! TokenPolicies to limits, and which of them hold for a request.

use crate::ir::Limit;
use crate::objects::{Objects, PolicyTarget, TargetKind};
use crate::status::{Finding, Severity};

use super::refs::{GATEWAY, GroupKind, HTTP_ROUTE, MODEL_POOL, Reference};

#[derive(Debug, Default)]
pub struct Policies {
    pub limits: Vec<Limit>,
    targets: Vec<Attachment>,
}

/// One limit for one object.
#[derive(Debug)]
struct Attachment {
    kind: TargetKind,
    namespace: String,
    name: String,
    limit: String,
}

pub fn policies(objects: &Objects, findings: &mut Vec<Finding>) -> Policies {
    let mut policies = Policies::default();
    for policy in objects.token_policies.iter() {
        let ids: Vec<String> = policy
            .spec
            .limits
            .iter()
            .map(|limit| format!("{}/{}/{}", policy.meta.namespace(), policy.meta.name(), limit.name))
            .collect();
        for (limit, id) in policy.spec.limits.iter().zip(&ids) {
            policies.limits.push(Limit {
                origin: policy.meta.origin.section(&limit.name),
                id: id.clone(),
                policy: policy.meta.origin.display_name(),
                name: limit.name.clone(),
                tokens: limit.tokens,
                window: limit.window.clone(),
                scope: limit.scope.clone(),
                count: limit.count,
                mode: policy.spec.mode,
                on_ledger_unavailable: policy.spec.on_ledger_unavailable,
            });
        }
        for (index, target) in policy.spec.targets.iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            let reference = |to_kind: GroupKind| Reference {
                from: &policy.meta,
                from_kind: ("tollgate.dev", "TokenPolicy"),
                to_kind,
                namespace: policy.meta.namespace(),
                name: &target.name,
                field: &field,
            };
            match check(objects, target, policy.meta.namespace(), reference) {
                None => {}
                Some(finding) => {
                    findings.push(finding);
                    continue;
                }
            }
            if target.kind == TargetKind::Service {
                findings.push(policy.meta.finding(
                    Severity::Warning,
                    "NotActedOn",
                    &field,
                    "a Service as target has an effect in sidecars only",
                    "target the Gateway, HTTPRoute or ModelPool",
                ));
                continue;
            }
            for id in &ids {
                policies.targets.push(Attachment {
                    kind: target.kind,
                    namespace: policy.meta.namespace().to_owned(),
                    name: target.name.clone(),
                    limit: id.clone(),
                });
            }
        }
    }
    policies
}

/// Whether the target exists.
fn check<'a>(
    objects: &Objects,
    target: &PolicyTarget,
    namespace: &str,
    reference: impl Fn(GroupKind) -> Reference<'a>,
) -> Option<Finding> {
    let reason = "TargetNotFound";
    match target.kind {
        TargetKind::Gateway if objects.gateways.get(namespace, &target.name).is_none() => {
            Some(reference(GATEWAY).not_found(reason, objects, &objects.gateways))
        }
        TargetKind::HttpRoute if objects.http_routes.get(namespace, &target.name).is_none() => {
            Some(reference(HTTP_ROUTE).not_found(reason, objects, &objects.http_routes))
        }
        TargetKind::ModelPool if objects.model_pools.get(namespace, &target.name).is_none() => {
            Some(reference(MODEL_POOL).not_found(reason, objects, &objects.model_pools))
        }
        _ => None,
    }
}

// === impl Policies ===

impl Policies {
    /// Ids of all limits that hold for a request on this way, each once.
    pub fn of(&self, gateway: (&str, &str), route: (&str, &str), pool: &str) -> Vec<String> {
        let mut ids: Vec<String> = self
            .targets
            .iter()
            .filter(|target| {
                let name = (target.namespace.as_str(), target.name.as_str());
                match target.kind {
                    TargetKind::Gateway => name == gateway,
                    TargetKind::HttpRoute => name == route,
                    TargetKind::ModelPool => pool.split_once('/') == Some(name),
                    TargetKind::Service => false,
                }
            })
            .map(|target| target.limit.clone())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }
}
