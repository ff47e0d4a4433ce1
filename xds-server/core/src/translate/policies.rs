//! TokenPolicies to limits, and which of them hold for a request. A refused policy closes what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{Action, Gateway, Ir, Limit, Route, ScopePart, Workload};
use crate::objects::{
    self, HttpRoute, Key, ModelPool, Names, Object, PolicyTarget, RefusedPolicy, Service, TargetKind, TokenPolicy,
};
use crate::placement::{Feature, Setting};
use crate::status::{Finding, Reason, Severity};

use super::refs::{GATEWAY, GroupKind, HTTP_ROUTE, MODEL_POOL, Reference, SERVICE};
use super::view::View;
use super::workloads;

/// Up to this many routes or Services are named. The others are only counted.
const MAX_NAMED: usize = 5;

/// A policy that is in force.
#[derive(Debug, PartialEq)]
pub struct Policy {
    pub limits: Vec<Arc<Limit>>,
    /// What they hold for.
    pub targets: BTreeSet<(TargetKind, Key)>,
}

/// The way of a request: the namespaces and names of everything on it that a policy can be for.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub gateway: (&'a str, &'a str),
    pub route: (&'a str, &'a str),
    pub pool: (&'a str, &'a str),
}

pub fn policy(view: View<'_>, policy: &Object<TokenPolicy>, findings: &mut Vec<Finding>) -> Policy {
    let targets = targets(view, policy, findings);
    findings.extend(claims_at_gateways(view, policy, &targets));
    Policy {
        limits: limits(policy).map(Arc::new).collect(),
        targets: targets
            .into_iter()
            .map(|target| (target.kind, Key::new(policy.meta.namespace(), target.name.as_str())))
            .collect(),
    }
}

fn limits(policy: &Object<TokenPolicy>) -> impl Iterator<Item = Limit> {
    policy.spec.limits.iter().map(|limit| Limit {
        origin: policy.meta.origin.section(limit.name.as_str()),
        id: format!("{}/{}/{}", policy.meta.namespace(), policy.meta.name(), limit.name),
        policy: policy.meta.origin.display_name(),
        name: limit.name.clone(),
        tokens: limit.tokens,
        window: limit.window.clone(),
        scope: limit.scope.clone(),
        count: limit.count,
        mode: policy.spec.mode,
        on_ledger_unavailable: policy.spec.on_ledger_unavailable,
        on_early_end: policy.spec.on_early_end,
        warn_at: limit.warn_at.clone(),
    })
}

/// The targets that exist and are acted on. The policy stays in force for them even if another target is neither.
fn targets<'a>(view: View<'_>, policy: &'a Object<TokenPolicy>, findings: &mut Vec<Finding>) -> Vec<&'a PolicyTarget> {
    let mut targets = Vec::new();
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
        let lack = || view.lack(Feature::ServiceTarget, &policy.meta, &field);
        let lack = if target.kind == TargetKind::Service { lack() } else { None };
        match lack.or_else(|| check(view, target, policy.meta.namespace(), reference)) {
            Some(finding) => findings.push(finding),
            None => targets.push(target),
        }
    }
    targets
}

/// Where no Gateway verifies JWTs, each request there is one without claims.
fn claims_at_gateways(view: View<'_>, policy: &Object<TokenPolicy>, targets: &[&PolicyTarget]) -> Option<Finding> {
    let mut scopes = policy.spec.limits.iter().map(|limit| &limit.scope);
    let limit = scopes.position(|scope| scope.iter().any(|part| matches!(part, ScopePart::Claim(_))))?;
    targets.iter().find(|target| target.kind != TargetKind::Service)?;
    if view.are_verified(None) {
        return None;
    }
    let field = format!("spec.limits[{limit}].scope");
    let message = "no Gateway verifies JWTs: there, this is one budget for all";
    let hint = "have a RequestAuthentication for the Gateway, or use Consumer or Label/<key of the Consumer>";
    Some(policy.meta.finding(Severity::Warning, Reason::NotActedOn, field, message, hint))
}

/// A finding if the target does not exist.
fn check<'a>(
    view: View<'_>,
    target: &PolicyTarget,
    namespace: &str,
    reference: impl Fn(GroupKind) -> Reference<'a>,
) -> Option<Finding> {
    let reason = Reason::TargetNotFound;
    match target.kind {
        TargetKind::Gateway if view.object::<objects::Gateway>(namespace, &target.name).is_none() => {
            Some(reference(GATEWAY).not_found::<objects::Gateway>(reason, view))
        }
        TargetKind::HttpRoute if view.object::<HttpRoute>(namespace, &target.name).is_none() => {
            Some(reference(HTTP_ROUTE).not_found::<HttpRoute>(reason, view))
        }
        TargetKind::ModelPool if view.object::<ModelPool>(namespace, &target.name).is_none() => {
            Some(reference(MODEL_POOL).not_found::<ModelPool>(reason, view))
        }
        TargetKind::Service if view.object::<Service>(namespace, &target.name).is_none() => {
            Some(reference(SERVICE).not_found::<Service>(reason, view))
        }
        TargetKind::Service if !selects_pods(view, namespace, &target.name) => {
            let reference = reference(SERVICE);
            let message = format!("{} selects no Pods, so it has no sidecars", reference.target());
            Some(reference.finding(reason, &message, "target a Service with spec.selector"))
        }
        TargetKind::Gateway | TargetKind::HttpRoute | TargetKind::ModelPool | TargetKind::Service => None,
    }
}

fn selects_pods(view: View<'_>, namespace: &str, name: &str) -> bool {
    let service = view.object::<Service>(namespace, name);
    service.and_then(|service| service.spec.spec.selector.as_ref()).is_some_and(|labels| !labels.is_empty())
}

/// Says what each refused policy closes, in one finding each. This is known only when it is known what is served.
pub fn closed(setting: &Setting, refused: &[RefusedPolicy], ir: &Ir, findings: &mut Vec<Finding>) {
    let routes = setting.placement.opens_gateways();
    let services = setting.opens_workloads().is_some();
    let what = match (routes, services) {
        (true, false) => "route to a ModelPool",
        (true, true) => "route to a ModelPool and no Service",
        (false, _) => "Service",
    };
    for policy in refused {
        let of_routes = routes.then(|| list("HTTPRoute", &closed_routes(policy, &ir.gateways))).flatten();
        let of_services = services.then(|| list("Service", &closed_services(policy, &ir.workloads))).flatten();
        let closed: Vec<String> = of_routes.into_iter().chain(of_services).collect();
        let why = match policy.names {
            Names::Targets(_) => "",
            Names::AllOfItsNamespace => " (its targets cannot be read, so all of its namespace)",
            Names::Everything => " (nobody can say what it is for, so everything)",
        };
        let (severity, message) = if closed.is_empty() {
            (Severity::Warning, format!("no {what} is meant{why}: nothing is closed"))
        } else {
            let message = format!("what it names is closed{why}: {} answers 503 policy_invalid", closed.join(", "));
            (Severity::Error, message)
        };
        let hint = "until it is mended or removed";
        let finding = policy.meta.finding(severity, Reason::PolicyInvalid, "", message, hint);
        // A policy without a name is identified by its file and line.
        let origin = finding.origin.clone().filter(|_| policy.is_named());
        findings.push(Finding { origin, ..finding });
    }
}

fn closed_routes(policy: &RefusedPolicy, gateways: &BTreeMap<Key, Gateway>) -> BTreeSet<String> {
    let routes = gateways.values().flat_map(|gateway| gateway.routes().map(move |route| (gateway, route)));
    let closed = routes.filter(|(gateway, route)| Way::of(gateway, route).is_some_and(|way| way.is_meant_by(policy)));
    closed.map(|(_, route)| route.origin.display_name()).collect()
}

fn closed_services(policy: &RefusedPolicy, workloads: &BTreeMap<Key, Arc<Workload>>) -> BTreeSet<String> {
    let closed = workloads.iter().filter(|(service, _)| workloads::closes(policy, service));
    closed.map(|(_, workload)| workload.origin.display_name()).collect()
}

/// None: there are none.
fn list(kind: &str, names: &BTreeSet<String>) -> Option<String> {
    let named: Vec<&str> = names.iter().map(String::as_str).take(MAX_NAMED).collect();
    let more = names.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("{kind} {}{more}", named.join(", ")))
}

// === impl Way ===

impl<'a> Way<'a> {
    /// None: the route does not lead to a pool.
    fn of(gateway: &'a Gateway, route: &'a Route) -> Option<Self> {
        let Action::Pool { pool, .. } = &route.action else { return None };
        Some(Self {
            gateway: (&gateway.origin.namespace, &gateway.origin.name),
            route: (&route.origin.namespace, &route.origin.name),
            pool: pool.split_once('/')?,
        })
    }

    /// Ids of all limits that hold for a request on this way, each once.
    pub fn limits(&self, view: View<'_>) -> Vec<String> {
        let targets = [
            (TargetKind::Gateway, self.gateway),
            (TargetKind::HttpRoute, self.route),
            (TargetKind::ModelPool, self.pool),
        ];
        let limits =
            targets.into_iter().flat_map(|(kind, (namespace, name))| view.limits(kind, &Key::new(namespace, name)));
        let ids: BTreeSet<&String> = limits.collect();
        ids.into_iter().cloned().collect()
    }

    /// The first refused policy that was meant for it.
    pub fn closed_by(&self, refused: &[RefusedPolicy]) -> Option<String> {
        refused.iter().find(|policy| self.is_meant_by(policy)).map(RefusedPolicy::label)
    }

    fn is_meant_by(&self, policy: &RefusedPolicy) -> bool {
        policy.names.include(policy.meta.namespace(), self.gateway, self.route, self.pool)
    }
}
