//! GatewayClasses, Gateways and their listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;
use gateway_api::apis::standard::gateways::GatewayListeners;

use crate::objects::{CONTROLLER_NAME, GATEWAY_GROUP, Gateway, Object, plain};
use crate::status::{
    Brief, Condition, ConditionType, Conditions, Finding, ListenerStatus, Reason, RouteKind, Status, StatusKind,
    Verdict,
};
use crate::translate::listeners::{OpenListeners, takes_http_routes};

use super::verdicts::{Verdicts, condition, texts};

const LISTENERS: &str = "spec.listeners";
/// What is said before any proxy has said anything.
const NO_ENVOY: &str = "no Envoy has taken its present configuration yet";

/// None: the class is of another controller.
pub fn class(object: &Object<GatewayClassSpec>, verdicts: &Verdicts<'_>) -> Option<(Brief, Status)> {
    if object.spec.controller_name != CONTROLLER_NAME {
        return None;
    }
    let accepted = condition(ConditionType::Accepted, &verdicts.about(ConditionType::Accepted), Reason::Accepted);
    let status = Status { conditions: [accepted].into_iter().collect(), ..Status::default() };
    Some((Brief::GatewayClass { controller: object.spec.controller_name.clone() }, status))
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
    let listeners = object.spec.listeners.iter().enumerate().map(|(index, spec)| {
        let is_open = open.open.iter().any(|listener| listener.index == index);
        ListenerStatus {
            name: spec.name.clone(),
            attached_routes: attached.get(spec.name.as_str()).copied().unwrap_or_default(),
            supported_kinds: supported_kinds(spec),
            conditions: listener(index, is_open, verdicts),
        }
    });
    let conditions = conditions(object, open, verdicts);
    Some((brief, Status { conditions, listeners: Some(listeners.collect()), ..Status::default() }))
}

fn conditions(object: &Object<Gateway>, open: &OpenListeners, verdicts: &Verdicts<'_>) -> Conditions {
    let mut errors = verdicts.about(ConditionType::Accepted);
    errors.retain(|finding| finding.entry_of(LISTENERS).is_none());
    let listeners = object.spec.listeners.iter().enumerate();
    let closed = listeners.filter(|(index, _)| !open.open.iter().any(|listener| listener.index == *index));
    let closed: Vec<&str> = closed.map(|(_, spec)| spec.name.as_str()).collect();
    let accepted = if !errors.is_empty() || closed.is_empty() {
        condition(ConditionType::Accepted, &errors, Reason::Accepted)
    } else {
        // GatewayReasonListenersNotValid is for both: some listeners can be opened, or none.
        let verdict = if open.open.is_empty() { Verdict::False } else { Verdict::True };
        let message = format!("not open: {}", closed.join(", "));
        Condition::new(ConditionType::Accepted, verdict, Reason::ListenersNotValid, message)
    };
    let programmed = if accepted.verdict == Verdict::True {
        Condition::bad(ConditionType::Programmed, Reason::Pending, NO_ENVOY)
    } else {
        Condition::bad(ConditionType::Programmed, Reason::Invalid, "")
    };
    [accepted, programmed].into_iter().collect()
}

fn listener(index: usize, is_open: bool, verdicts: &Verdicts<'_>) -> Conditions {
    let errors = |about| {
        let mut errors = verdicts.about(about);
        errors.retain(|finding| finding.entry_of(LISTENERS) == Some(index));
        errors
    };
    let conflicts = errors(ConditionType::Conflicted);
    // A listener in conflict is not accepted, for the same reason.
    let accepted: Vec<&Finding> = conflicts.iter().copied().chain(errors(ConditionType::Accepted)).collect();
    let references = errors(ConditionType::ResolvedRefs);
    let resolved = match references.first() {
        Some(first) => Condition::bad(ConditionType::ResolvedRefs, as_of_listener(first.reason), texts(&references)),
        None => Condition::good(ConditionType::ResolvedRefs, Reason::ResolvedRefs),
    };
    let programmed = if is_open {
        Condition::bad(ConditionType::Programmed, Reason::Pending, NO_ENVOY)
    } else {
        Condition::bad(ConditionType::Programmed, Reason::Invalid, "")
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

/// The only references of a listener are to certificates.
fn as_of_listener(reason: Reason) -> Reason {
    match reason {
        Reason::SecretNotFound | Reason::InvalidSecret => Reason::InvalidCertificateRef,
        other => other,
    }
}

fn supported_kinds(spec: &GatewayListeners) -> Vec<RouteKind> {
    let kind = RouteKind { group: GATEWAY_GROUP, kind: StatusKind::HttpRoute };
    if takes_http_routes(spec) { vec![kind] } else { Vec::new() }
}
