//! ListenerSets: their own conditions, and those of their listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{ListenerSet, Object, gateway_of};
use crate::status::{Brief, Condition, ConditionType, Reason, Status, Verdict};
use crate::translate::listeners::OpenListeners;

use super::gateways::{Listeners, NO_ENVOY};
use super::verdicts::{Verdicts, condition};

/// None: its Gateway is not ours.
pub fn listener_set(
    object: &Object<ListenerSet>,
    open: Option<&OpenListeners>,
    attached: &BTreeMap<Arc<str>, usize>,
    verdicts: &Verdicts<'_>,
) -> Option<(Brief, Status)> {
    let key = object.meta.key();
    let listeners = Listeners { specs: &object.spec.listeners, set: Some(&key), open: open?, verdicts };
    let errors = listeners.errors_of_all();
    let is_taken = errors.is_empty();
    let accepted =
        if is_taken { listeners.accepted() } else { condition(ConditionType::Accepted, &errors, Reason::Accepted) };
    let programmed = match accepted.verdict {
        Verdict::True => Condition::bad(ConditionType::Programmed, Reason::Pending, NO_ENVOY),
        _ => Condition::bad(ConditionType::Programmed, accepted.reason, ""),
    };
    // Nothing was made of the listeners of one that is not taken.
    let of_listeners = if is_taken { listeners.statuses(attached) } else { Vec::new() };
    let status = Status {
        conditions: [accepted, programmed].into_iter().collect(),
        listeners: Some(of_listeners),
        ..Status::default()
    };
    Some((Brief::ListenerSet { gateway: gateway_of(object).to_string() }, status))
}
