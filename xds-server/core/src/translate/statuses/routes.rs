//! HTTPRoutes and GRPCRoutes, at each of their parents.

use std::collections::BTreeSet;

use crate::ir::Action;
use crate::objects::CONTROLLER_NAME;
use crate::status::{Brief, Condition, ConditionType, Finding, ParentStatus, Reason, Status};
use crate::translate::given::GivenRoute;
use crate::translate::parents::ParentRef;
use crate::translate::routes::AttachedRoute;

use super::verdicts::{Verdicts, condition, texts};

pub const PARENTS: &str = "spec.parentRefs";
const RULES: &str = "spec.rules";

/// How much of a route is refused for values that are not served.
enum Refused<'a> {
    Nothing,
    /// Some rules, or parts of them.
    Rules(Vec<&'a Finding>),
    All(Vec<&'a Finding>),
}

pub fn route(route: GivenRoute<'_>, attached: &AttachedRoute, verdicts: &Verdicts<'_>) -> (Brief, Status) {
    let refused = refused(route, attached, verdicts);
    let resolved = verdicts.about(ConditionType::ResolvedRefs);
    let resolved = condition(ConditionType::ResolvedRefs, &resolved, Reason::ResolvedRefs);
    let parents = route.spec.parent_refs.iter().flatten().enumerate();
    let parents = parents.filter(|(index, _)| attached.parents.contains(index)).map(|(index, parent)| {
        let mut errors = verdicts.about(ConditionType::Accepted);
        errors.retain(|finding| finding.entry_of(PARENTS) == Some(index));
        let mut partial = None;
        match &refused {
            Refused::Nothing => {}
            Refused::All(findings) => errors.extend(findings),
            Refused::Rules(findings) => partial = Some(partially_invalid(findings)),
        }
        let accepted = condition(ConditionType::Accepted, &errors, Reason::Accepted);
        at_parent(parent.into(), [accepted, resolved.clone()].into_iter().chain(partial))
    });
    let status = Status { parents: Some(parents.collect()), ..Status::default() };
    (Brief::Route { hostnames: route.spec.hostnames.clone().unwrap_or_default() }, status)
}

/// What is said of a route at one of its parents.
pub fn at_parent(parent: ParentRef<'_>, conditions: impl Iterator<Item = Condition>) -> ParentStatus {
    let conditions = conditions.collect();
    ParentStatus { parent_ref: parent.shown(), controller_name: CONTROLLER_NAME, conditions }
}

fn refused<'a>(route: GivenRoute<'_>, attached: &AttachedRoute, verdicts: &Verdicts<'a>) -> Refused<'a> {
    let mut errors = verdicts.about(ConditionType::Accepted);
    errors.retain(|finding| finding.entry_of(PARENTS).is_none());
    if errors.iter().any(|finding| finding.entry_of(RULES).is_none()) {
        return Refused::All(errors);
    }
    let refused: BTreeSet<usize> = errors.iter().filter_map(|finding| finding.entry_of(RULES)).collect();
    // A rule may be refused in a part, and the rest of it works.
    let works = |rule: usize| {
        let routes = attached.routes.somewhere().iter().filter(|route| route.place.0 == rule);
        !refused.contains(&rule) || routes.into_iter().any(|route| !matches!(route.action, Action::Fail { .. }))
    };
    let count = route.spec.rules.len();
    match errors.is_empty() {
        true => Refused::Nothing,
        false if (0..count).any(works) => Refused::Rules(errors),
        false => Refused::All(errors),
    }
}

/// The message begins as the Gateway API wants it.
fn partially_invalid(findings: &[&Finding]) -> Condition {
    let message = format!("Dropped Rule: {}", texts(findings));
    Condition::bad(ConditionType::PartiallyInvalid, Reason::UnsupportedValue, message)
}
