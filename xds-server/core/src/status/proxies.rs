//! Statuses joined with what proxies say: a Gateway is programmed when an Envoy has taken its present configuration, and
//! a refusal ends on the object that the refused resource was made from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    Address, Brief, Condition, ConditionType, Finding, Membership, ObjectRef, ObjectStatus, Origin, Reason, Severity,
    Spot, StatusKind, carriers,
};
use crate::terms::{Key, ResourceType};

/// A resource that an Envoy refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Envoy's node id.
    pub node: String,
    pub kind: ResourceType,
    pub name: String,
    /// What the resource was made from.
    pub origin: Option<Origin>,
    /// Envoy's own message.
    pub message: String,
}

/// What the Envoys of one Gateway say of its present configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// One of them has taken all of it.
    pub taken: bool,
    pub refused: Vec<Refusal>,
    /// Where it listens.
    pub addresses: Vec<Address>,
    /// Of the sidecars of a Service: the Pods whose filters have their keys.
    pub carriers: BTreeSet<String>,
    /// The TokenPolicies that hold for that Service.
    pub policies: BTreeSet<Key>,
}

/// By `namespace/name` of the Gateway, or by what the sidecars of a Service are heard as.
pub type Heard = BTreeMap<String, Said>;

// === impl Refusal ===

impl Refusal {
    /// Envoy's own message, except about a secret, because the message might quote it.
    pub fn words(&self) -> &str {
        match self.kind {
            ResourceType::Secret => "the secret is not usable",
            _ => &self.message,
        }
    }

    /// For example `Listener default/llm/http`.
    pub fn resource(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }

    /// `spot` is where the origin stands.
    pub fn finding(&self, spot: Option<Spot>) -> Finding {
        Finding {
            severity: Severity::Error,
            reason: Reason::Refused,
            origin: self.origin.clone(),
            spot,
            field: String::new(),
            message: self.text(),
            hint: "it goes on with what it took before".to_owned(),
        }
    }

    fn text(&self) -> String {
        format!("Envoy {} refuses {}: {}", self.node, self.resource(), self.words())
    }

    fn is_about(&self, kind: StatusKind, namespace: &str, name: &str) -> bool {
        self.origin.as_ref().is_some_and(|origin| {
            origin.kind == kind.name() && *origin.namespace == *namespace && *origin.name == *name
        })
    }
}

// === impl ObjectStatus ===

impl ObjectStatus {
    /// Adds what the proxies say.
    pub fn hear(&mut self, heard: &Heard) {
        match self.kind {
            StatusKind::Gateway => {
                let Some(said) = heard.get(&format!("{}/{}", self.namespace, self.name)) else { return };
                self.hear_of_listeners(said);
                // Those of its Service lead to all of its Envoys.
                if said.taken && self.status.addresses.is_empty() {
                    self.status.addresses.clone_from(&said.addresses);
                }
            }
            StatusKind::ListenerSet => {
                let Brief::ListenerSet { gateway } = &self.brief else { return };
                let Some(said) = heard.get(gateway) else { return };
                self.hear_of_listeners(said);
            }
            StatusKind::HttpRoute | StatusKind::GrpcRoute | StatusKind::TlsRoute => self.hear_of_route(heard),
            _ => {
                let said = heard.values().flat_map(|said| &said.refused);
                let own = said.filter(|refusal| refusal.is_about(self.kind, &self.namespace, &self.name));
                if let Some(condition) = not_accepted(own) {
                    self.status.each_own(|conditions| conditions.set(condition.clone()));
                }
            }
        }
        if let Brief::TokenPolicy { pods, .. } = &self.brief {
            for ancestor in self.status.ancestors.iter_mut().flatten() {
                // Nobody acts on the others in sidecars.
                let Some(pods) = pods.get(&ancestor.ancestor_ref.name).filter(|_| ancestor.is_of_service()) else {
                    continue;
                };
                let name = carriers::heard_as(&Key::new(self.namespace.as_str(), ancestor.ancestor_ref.name.as_str()));
                let nobody = BTreeSet::new();
                let carriers = heard.get(&name).map_or(&nobody, |said| &said.carriers);
                ancestor.conditions.set(carriers::programmed(pods, carriers));
            }
        }
        self.status.observe();
    }

    /// What would be heard if all Pods that can did carry the filter. Empty: it is for no Service.
    pub fn if_carried(&self) -> Heard {
        let Brief::TokenPolicy { pods, .. } = &self.brief else { return Heard::new() };
        let name = |service: &String| carriers::heard_as(&Key::new(self.namespace.as_str(), service.as_str()));
        let said = |pods: &BTreeMap<String, Membership>| {
            let members = pods.iter().filter(|(_, membership)| **membership == Membership::Member);
            Said { carriers: members.map(|(pod, _)| pod.clone()).collect(), ..Said::default() }
        };
        pods.iter().map(|(service, pods)| (name(service), said(pods))).collect()
    }

    fn hear_of_listeners(&mut self, said: &Said) {
        let kind = self.kind;
        let section = |refusal: &Refusal| -> Option<Arc<str>> {
            let is_own = refusal.is_about(kind, &self.namespace, &self.name);
            refusal.origin.as_ref().filter(|_| is_own).and_then(|origin| origin.section.clone())
        };
        let programmed = |refused: &mut dyn Iterator<Item = &Refusal>| {
            let refused = texts(refused);
            match (said.taken, refused.is_empty()) {
                (true, _) => Some(Condition::good(ConditionType::Programmed, Reason::Programmed)),
                (false, false) => Some(Condition::bad(ConditionType::Programmed, Reason::Invalid, refused)),
                (false, true) => None,
            }
        };
        let of_all = programmed(&mut said.refused.iter());
        let of_listeners: Vec<_> = self
            .status
            .listeners
            .iter()
            .flatten()
            .map(|listener| {
                // What is refused of another listener is not about this one.
                let about = |refusal: &&Refusal| section(refusal).is_none_or(|name| *name == *listener.name);
                programmed(&mut said.refused.iter().filter(about))
            })
            .collect();
        let is_pending = |condition: Option<&Condition>| condition.is_some_and(|old| old.reason == Reason::Pending);
        let conditions = &mut self.status.conditions;
        if is_pending(conditions.get(ConditionType::Programmed)) {
            of_all.into_iter().for_each(|condition| conditions.set(condition));
        }
        for (listener, condition) in self.status.listeners.iter_mut().flatten().zip(of_listeners) {
            if is_pending(listener.conditions.get(ConditionType::Programmed)) {
                condition.into_iter().for_each(|condition| listener.conditions.set(condition));
            }
        }
    }

    fn hear_of_route(&mut self, heard: &Heard) {
        let (kind, namespace, name) = (self.kind, &self.namespace, &self.name);
        for parent in self.status.parents.iter_mut().flatten() {
            let ObjectRef { kind: of_kind, namespace: of_parent, name: gateway, .. } = &parent.parent_ref;
            let gateway = format!("{}/{gateway}", of_parent.as_ref().unwrap_or(namespace));
            // Nothing here says for which Gateway a ListenerSet is.
            let is_set = of_kind.as_deref() == Some(StatusKind::ListenerSet.name());
            let said = heard.iter().filter(|(name, _)| is_set || **name == gateway);
            let refused = said.flat_map(|(_, said)| &said.refused);
            let own = refused.filter(|refusal| refusal.is_about(kind, namespace, name));
            not_accepted(own).into_iter().for_each(|condition| parent.conditions.set(condition));
        }
    }
}

fn not_accepted<'a>(mut refused: impl Iterator<Item = &'a Refusal>) -> Option<Condition> {
    let text = texts(&mut refused);
    (!text.is_empty()).then(|| Condition::bad(ConditionType::Accepted, Reason::Refused, text))
}

/// Several Envoys, or several Gateways of one, may say the same.
fn texts(refused: &mut dyn Iterator<Item = &Refusal>) -> String {
    let texts: BTreeSet<String> = refused.map(Refusal::text).collect();
    texts.into_iter().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{NoSecretSource, Objects};
    use crate::placement::Placement;
    use crate::status::Verdict;
    use crate::translate::translate;

    const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}, {name: c, port: 82, protocol: TCP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat}
spec: {models: [{name: m, targets: [{backendRef: {name: runner}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: runner}
spec: {schema: OpenAI, endpoint: {hostname: 127.0.0.1, port: 80}}
";

    /// `Kind name [listener] Condition=Verdict Reason message`, of the conditions that are not good.
    fn not_well(said: Said) -> Vec<String> {
        let mut objects = Objects::default();
        assert_eq!(objects.add_yaml("f", OBJECTS, &NoSecretSource), []);
        let heard = Heard::from([("default/llm".to_owned(), said)]);
        let mut lines = Vec::new();
        for mut object in translate(&objects, Placement::OneHost).statuses(&objects, &[]) {
            object.hear(&heard);
            let mut add = |part: &str, conditions: &crate::status::Conditions| {
                for condition in conditions.iter().filter(|condition| condition.verdict != condition.about.good()) {
                    let Condition { about, verdict, reason, message, .. } = condition;
                    lines.push(format!("{} {part}{about:?}={verdict:?} {reason}: {message}", object.kind.name()));
                }
            };
            add("", &object.status.conditions);
            let listeners = object.status.listeners.iter().flatten();
            listeners.filter(|listener| listener.name != "c").for_each(|listener| {
                add(&format!("{} ", listener.name), &listener.conditions);
            });
            object.status.parents.iter().flatten().for_each(|parent| add("", &parent.conditions));
        }
        lines
    }

    fn refused(kind: ResourceType, origin: Origin) -> Said {
        let refusal = Refusal {
            node: "e".to_owned(),
            kind,
            name: "x".to_owned(),
            origin: Some(origin),
            message: "no".to_owned(),
        };
        Said { refused: vec![refusal], ..Said::default() }
    }

    #[test]
    fn a_gateway_is_programmed_when_an_envoy_has_taken_it() {
        let pending = "Programmed=False Pending: no Envoy has taken its present configuration yet";
        assert_eq!(
            not_well(Said::default()),
            [format!("Gateway {pending}"), format!("Gateway a {pending}"), format!("Gateway b {pending}")]
        );
        assert_eq!(not_well(Said { taken: true, ..Said::default() }), Vec::<String>::new());
    }

    #[test]
    fn a_refused_listener_is_invalid_and_the_others_wait() {
        let origin = Origin::new("Gateway", "default", "llm").section("b");
        assert_eq!(
            not_well(refused(ResourceType::Listener, origin)),
            [
                "Gateway Programmed=False Invalid: Envoy e refuses Listener x: no",
                "Gateway a Programmed=False Pending: no Envoy has taken its present configuration yet",
                "Gateway b Programmed=False Invalid: Envoy e refuses Listener x: no",
            ]
        );
    }

    #[test]
    fn a_refusal_ends_on_the_object_that_it_is_about() {
        let of = |kind: &'static str, name: &str| {
            let lines = not_well(refused(ResourceType::Cluster, Origin::new(kind, "default", name)));
            lines.into_iter().filter(|line| line.contains("Accepted")).collect::<Vec<_>>()
        };
        assert_eq!(of("HTTPRoute", "chat"), ["HTTPRoute Accepted=False Refused: Envoy e refuses Cluster x: no"]);
        assert_eq!(
            of("ModelBackend", "runner"),
            ["ModelBackend Accepted=False Refused: Envoy e refuses Cluster x: no"]
        );
        assert_eq!(of("ModelBackend", "other"), Vec::<String>::new());
    }

    #[test]
    fn what_envoy_says_of_a_secret_is_not_quoted() {
        let said = refused(ResourceType::Secret, Origin::new("ModelBackend", "default", "runner"));
        assert!(not_well(said).iter().all(|line| !line.ends_with(": no")), "a secret is quoted");
    }

    #[test]
    fn a_listener_that_is_not_open_is_never_programmed() {
        let mut objects = Objects::default();
        objects.add_yaml("f", OBJECTS, &NoSecretSource);
        let mut gateway = translate(&objects, Placement::OneHost).statuses(&objects, &[]).swap_remove(0);
        gateway.hear(&Heard::from([("default/llm".to_owned(), Said { taken: true, ..Said::default() })]));
        let listeners = gateway.status.listeners.unwrap();
        let programmed = |index: usize| listeners[index].conditions.get(ConditionType::Programmed).unwrap().verdict;
        assert_eq!([0, 1, 2].map(programmed), [Verdict::True, Verdict::True, Verdict::False]);
    }
}
