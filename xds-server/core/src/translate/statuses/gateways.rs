//! GatewayClasses, Gateways and their listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;
use gateway_api::apis::standard::gateways::GatewayListeners;

use crate::objects::{
    CONTROLLER_NAME, GATEWAY_GROUP, Gateway, Key, Object, client_certificate, client_validations, plain,
};
use crate::placement::Placement;
use crate::status::{
    Brief, Condition, ConditionType, Conditions, Finding, ListenerStatus, Reason, RouteKind, Status, Verdict,
};
use crate::translate::addresses::Reach;
use crate::translate::listeners::OpenListeners;
use crate::translate::{listener, route_kinds};

use super::verdicts::{Verdicts, condition, texts};

const LISTENERS: &str = "spec.listeners";
/// What is said before any proxy has said anything.
pub const NO_ENVOY: &str = "no Envoy has taken its present configuration yet";

/// None: the class is of another controller.
pub fn class(
    object: &Object<GatewayClassSpec>,
    placement: &Placement,
    verdicts: &Verdicts<'_>,
) -> Option<(Brief, Status)> {
    if object.spec.controller_name != CONTROLLER_NAME {
        return None;
    }
    let accepted = condition(ConditionType::Accepted, &verdicts.about(ConditionType::Accepted), Reason::Accepted);
    let status = Status { conditions: [accepted].into_iter().collect(), ..Status::default() };
    let has_own_proxies = *placement == Placement::ProxyPerGateway;
    Some((Brief::GatewayClass { controller: object.spec.controller_name.clone(), has_own_proxies }, status))
}

/// None: the Gateway is not ours.
pub fn gateway(
    object: &Object<Gateway>,
    open: Option<&OpenListeners>,
    attached: &BTreeMap<Arc<str>, usize>,
    verdicts: &Verdicts<'_>,
) -> Option<(Brief, Status)> {
    let brief = Brief::Gateway { class: plain(&object.spec.gateway_class_name) };
    let Some(open) = open else {
        // In a cluster it may be waiting for another controller.
        object.meta.file()?;
        // It waits for a controller, as the CRD says of every new Gateway.
        let remark = verdicts.has_remark(Reason::UnknownClass)?;
        let unknown = |about| Condition::new(about, Verdict::Unknown, Reason::Pending, remark.text());
        let conditions = [ConditionType::Accepted, ConditionType::Programmed].map(unknown).into_iter().collect();
        return Some((brief, Status { conditions, ..Status::default() }));
    };
    let listeners = Listeners { specs: &object.spec.listeners, set: None, open, verdicts };
    let errors = listeners.errors_of_all();
    let accepted = if errors.is_empty() {
        listeners.accepted()
    } else {
        condition(ConditionType::Accepted, &errors, Reason::Accepted)
    };
    let programmed = match (accepted.verdict, open.reach.as_ref().and_then(Reach::trouble)) {
        (Verdict::True, Some((reason, message))) => Condition::bad(ConditionType::Programmed, reason, message),
        (Verdict::True, None) => Condition::bad(ConditionType::Programmed, Reason::Pending, NO_ENVOY),
        _ => Condition::bad(ConditionType::Programmed, Reason::Invalid, ""),
    };
    let is_insecure = client_validations(&object.spec).any(|validation| validation.is_optional);
    let insecure = is_insecure.then(|| {
        let about = ConditionType::InsecureFrontendValidationMode;
        Condition::bad(about, Reason::ConfigurationChanged, "clients are let in whose certificates are not checked")
    });
    let statuses = listeners.statuses(attached);
    let resolved = client_certificate(&object.spec).map(|_| listeners.resolved(&statuses));
    let status = Status {
        addresses: open.reach.as_ref().map(|reach| reach.addresses.clone()).unwrap_or_default(),
        conditions: [accepted, programmed].into_iter().chain(resolved).chain(insecure).collect(),
        attached_listener_sets: open.sets().len(),
        listeners: Some(statuses),
        ..Status::default()
    };
    Some((brief, status))
}

/// The listeners of a Gateway or of a ListenerSet.
pub struct Listeners<'a> {
    pub specs: &'a [GatewayListeners],
    pub set: Option<&'a Key>,
    pub open: &'a OpenListeners,
    pub verdicts: &'a Verdicts<'a>,
}

// === impl Listeners ===

impl<'a> Listeners<'a> {
    /// The errors that are about no single listener.
    pub fn errors_of_all(&self) -> Vec<&'a Finding> {
        let mut errors = self.verdicts.about(ConditionType::Accepted);
        errors.retain(|finding| finding.entry_of(LISTENERS).is_none());
        errors
    }

    /// Whether some of them can be opened.
    pub fn accepted(&self) -> Condition {
        let closed = self.specs.iter().enumerate().filter(|(index, _)| !self.is_open(*index));
        let closed: Vec<&str> = closed.map(|(_, spec)| spec.name.as_str()).collect();
        if closed.is_empty() {
            return Condition::good(ConditionType::Accepted, Reason::Accepted);
        }
        // ListenersNotValid is for both: some listeners can be opened, or none.
        let verdict = if closed.len() == self.specs.len() { Verdict::False } else { Verdict::True };
        let message = format!("not open: {}", closed.join(", "));
        Condition::new(ConditionType::Accepted, verdict, Reason::ListenersNotValid, message)
    }

    /// Whether what the Gateway itself refers to can be used, and then whether what its listeners refer to can.
    fn resolved(&self, statuses: &[ListenerStatus]) -> Condition {
        const ABOUT: ConditionType = ConditionType::ResolvedRefs;
        let mut errors = self.verdicts.about(ABOUT);
        errors.retain(|finding| finding.entry_of(LISTENERS).is_none());
        let is_bad = |listener: &&ListenerStatus| {
            listener.conditions.get(ABOUT).is_some_and(|condition| condition.verdict != ABOUT.good())
        };
        let unresolved: Vec<&str> = statuses.iter().filter(is_bad).map(|listener| listener.name.as_str()).collect();
        if errors.is_empty() && !unresolved.is_empty() {
            return Condition::bad(ABOUT, Reason::ListenersNotResolved, unresolved.join(", "));
        }
        condition(ABOUT, &errors, Reason::ResolvedRefs)
    }

    pub fn statuses(&self, attached: &BTreeMap<Arc<str>, usize>) -> Vec<ListenerStatus> {
        let listeners = self.specs.iter().enumerate().map(|(index, spec)| ListenerStatus {
            name: spec.name.clone(),
            attached_routes: attached.get(&*listener::name(self.set, &spec.name)).copied().unwrap_or_default(),
            supported_kinds: supported_kinds(spec),
            conditions: self.conditions(index),
        });
        listeners.collect()
    }

    fn is_open(&self, index: usize) -> bool {
        self.open.served().any(|listener| listener.index == index && listener.set.as_ref() == self.set)
    }

    fn conditions(&self, index: usize) -> Conditions {
        let errors = |about| {
            let mut errors = self.verdicts.about(about);
            errors.retain(|finding| finding.entry_of(LISTENERS) == Some(index));
            errors
        };
        let conflicts = errors(ConditionType::Conflicted);
        // A listener in conflict is not accepted, for the same reason.
        let accepted: Vec<&Finding> = conflicts.iter().copied().chain(errors(ConditionType::Accepted)).collect();
        let references = errors(ConditionType::ResolvedRefs);
        let resolved = match references.first() {
            Some(first) => {
                Condition::bad(ConditionType::ResolvedRefs, as_of_listener(first.reason), texts(&references))
            }
            None => Condition::good(ConditionType::ResolvedRefs, Reason::ResolvedRefs),
        };
        let programmed = if self.is_open(index) {
            Condition::bad(ConditionType::Programmed, Reason::Pending, NO_ENVOY)
        } else {
            let reason = conflicts.first().map_or(Reason::Invalid, |first| first.reason);
            Condition::bad(ConditionType::Programmed, reason, "")
        };
        [
            condition(ConditionType::Accepted, &accepted, Reason::Accepted),
            resolved,
            condition(ConditionType::Conflicted, &conflicts, Reason::NoConflicts),
            programmed,
        ]
        .into_iter()
        .collect()
    }
}

/// The only references of a listener are to certificates.
fn as_of_listener(reason: Reason) -> Reason {
    match reason {
        Reason::SecretNotFound | Reason::InvalidSecret => Reason::InvalidCertificateRef,
        other => other,
    }
}

fn supported_kinds(spec: &GatewayListeners) -> Vec<RouteKind> {
    route_kinds::allowed(spec).into_iter().map(|kind| RouteKind { group: GATEWAY_GROUP, kind }).collect()
}
