//! Which Pods carry the filter for a policy whose target is a Service: its Pods as the cluster has them, joined with those
//! whose sidecars have asked for their keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::terms::Key;

use super::{Condition, ConditionType, Reason};

/// Whether a Pod is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Membership {
    Member,
    Outside,
}

/// So many Pods are named that do not carry it.
const NAMED: usize = 5;

/// By this the sidecars of a Service are known among what is heard. It has one part more than the name of a Gateway.
pub fn heard_as(service: &Key) -> String {
    format!("service/{service}")
}

/// The Pod that a sidecar is in, by its node id: `sidecar~IP~POD.NAMESPACE~DOMAIN` (Istio).
pub fn pod_of(node: &str) -> Option<&str> {
    let mut parts = node.split('~');
    let (kind, pod) = (parts.next()?, parts.nth(1)?);
    // A name of a Pod may have dots, and that of a namespace has none.
    pod.rsplit_once('.').filter(|_| kind == "sidecar").map(|(name, _)| name)
}

/// `carriers` are the Pods whose filters have their keys.
pub fn programmed(pods: &BTreeMap<String, Membership>, carriers: &BTreeSet<String>) -> Condition {
    const ABOUT: ConditionType = ConditionType::Programmed;
    let without: Vec<String> = pods
        .iter()
        .filter(|(pod, _)| !carriers.contains(*pod))
        .map(|(pod, membership)| match membership {
            Membership::Member => format!("{pod} has not asked for its keys"),
            Membership::Outside => format!("{pod} is not in the mesh"),
        })
        .collect();
    let all = pods.len();
    match (all, without.len()) {
        (0, _) => Condition::bad(ABOUT, Reason::Pending, "the Service has no Pods"),
        (_, 0) => Condition { message: format!("{all} of {all} Pods carry the filter"), ..good() },
        (_, missing) => {
            let named = without.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
            let rest = missing.saturating_sub(NAMED);
            let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
            let message = format!("{} of {all} Pods carry the filter: {named}{rest}", all - missing);
            Condition::bad(ABOUT, Reason::Pending, message)
        }
    }
}

fn good() -> Condition {
    Condition::good(ConditionType::Programmed, Reason::Programmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Verdict;

    #[test]
    fn the_node_id_of_a_sidecar_names_its_pod() {
        assert_eq!(pod_of("sidecar~10.1.2.3~runner-1.models~models.svc.cluster.local"), Some("runner-1"));
        assert_eq!(pod_of("sidecar~10.1.2.3~a.b.models~models.svc.cluster.local"), Some("a.b"));
        for other in ["router~10.1.2.3~gw.models~x", "default/llm", "sidecar~10.1.2.3", "sidecar~10.1.2.3~runner", ""] {
            assert_eq!(pod_of(other), None, "{other}");
        }
    }

    #[test]
    fn it_says_who_carries_it_and_who_does_not() {
        let pods = |names: &[(&str, Membership)]| -> BTreeMap<String, Membership> {
            names.iter().map(|(name, membership)| ((*name).to_owned(), *membership)).collect()
        };
        let said = |pods: &BTreeMap<String, Membership>, carriers: &[&str]| {
            let condition = programmed(pods, &carriers.iter().map(|name| (*name).to_owned()).collect());
            (condition.verdict, condition.message)
        };
        let three = pods(&[("a", Membership::Member), ("b", Membership::Member), ("c", Membership::Outside)]);
        assert_eq!(said(&three, &["a", "b", "c"]), (Verdict::True, "3 of 3 Pods carry the filter".to_owned()));
        let some = "1 of 3 Pods carry the filter: b has not asked for its keys; c is not in the mesh";
        assert_eq!(said(&three, &["a", "gone"]), (Verdict::False, some.to_owned()));
        assert_eq!(said(&pods(&[]), &["a"]).0, Verdict::False);
        let many: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
        let many: Vec<(&str, Membership)> = many.iter().map(|name| (name.as_str(), Membership::Member)).collect();
        let (_, message) = said(&pods(&many), &[]);
        assert!(message.starts_with("0 of 8") && message.ends_with("; and 3 more"), "{message}");
        let (_, message) = said(&pods(&many), &["p0", "p1", "p2"]);
        assert!(!message.contains("more"), "{message}");
    }
}
