//! Whether the status of an object is to be written.
//!
//! With every change a Gateway waits for an Envoy to take it, for milliseconds, and after a restart until its Envoys are
//! back. Nobody is to see that: a Gateway that the cluster knows to be programmed stays so for a while. So does a policy
//! whose filter is in sidecars.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_core::objects::Key;
use tollgate_core::status::{ConditionType, Conditions, Heard, ObjectStatus, Reason, Said, StatusKind};
use tollgate_core::written::{Print, Wanted};

use crate::report::Whose;

/// A Gateway that nothing but an Envoy is missing for is given this long. Envoys come back within it.
const PROGRAMMED: Duration = Duration::from_secs(20);
/// Another one has something new to say, and an Envoy may be about to take it.
const NEW: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Judge {
    /// Since when Gateways wait for an Envoy, and policies for sidecars.
    pending: BTreeMap<Whose, Instant>,
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The cluster says so already, or it is not ours to say.
    Same,
    /// It may mend itself until then.
    Wait(Instant),
    Write(Wanted),
}

// === impl Judge ===

impl Judge {
    /// `status` is that before proxies are heard, and `said` what the cluster says.
    pub fn judge(
        &mut self,
        (object, status): (&Whose, Option<ObjectStatus>),
        said: Option<Print>,
        heard: &Heard,
        now: Instant,
    ) -> Verdict {
        let (kind, key) = object;
        let Some(before) = status else {
            self.pending.remove(object);
            return match Wanted::nothing(*kind) {
                Some(nothing) if said.is_some_and(|said| said != nothing.print()) => Verdict::Write(nothing),
                _ => Verdict::Same,
            };
        };
        let mut status = before.clone();
        status.hear(heard);
        let is_pending = match kind {
            StatusKind::Gateway => is_pending(&status.status.conditions),
            StatusKind::TokenPolicy => {
                status.status.ancestors.iter().flatten().any(|ancestor| is_pending(&ancestor.conditions))
            }
            _ => false,
        };
        let wanted = Wanted::new(&status);
        if !is_pending {
            if matches!(kind, StatusKind::Gateway | StatusKind::TokenPolicy) {
                self.pending.remove(object);
            }
            return if said == Some(wanted.print()) { Verdict::Same } else { Verdict::Write(wanted) };
        }
        let since = *self.pending.entry(object.clone()).or_insert(now);
        if said == Some(wanted.print()) {
            return Verdict::Same;
        }
        let patience = if said == Some(if_taken(before, key, heard)) { PROGRAMMED } else { NEW };
        let until = since + patience;
        if until > now { Verdict::Wait(until) } else { Verdict::Write(wanted) }
    }
}

fn is_pending(conditions: &Conditions) -> bool {
    let programmed = conditions.get(ConditionType::Programmed);
    programmed.is_some_and(|condition| condition.reason == Reason::Pending)
}

/// What would be said if an Envoy took it, or all Pods that can did carry the filter.
fn if_taken(mut status: ObjectStatus, key: &Key, heard: &Heard) -> Print {
    if status.kind == StatusKind::TokenPolicy {
        let carried = status.if_carried();
        status.hear(&carried);
        return Wanted::new(&status).print();
    }
    let name = key.to_string();
    let said = heard.get(&name).cloned().unwrap_or_default();
    status.hear(&Heard::from([(name, Said { taken: true, ..said })]));
    Wanted::new(&status).print()
}

/// Whose statuses may be others because of what is heard now.
pub fn heard_of(before: &Heard, now: &Heard) -> BTreeSet<Whose> {
    let mut due = BTreeSet::new();
    let nothing = Said::default();
    for gateway in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let said = [before, now].map(|heard| heard.get(gateway).unwrap_or(&nothing));
        if said[0] == said[1] {
            continue;
        }
        // Another name is that of a workload.
        if let Some((namespace, name)) = gateway.split_once('/').filter(|(_, name)| !name.contains('/')) {
            due.insert((StatusKind::Gateway, Key::new(namespace, name)));
        }
        due.extend(said.iter().flat_map(|said| &said.policies).map(|policy| (StatusKind::TokenPolicy, policy.clone())));
        let refused = said.into_iter().flat_map(|said| &said.refused);
        let origins = refused.filter_map(|refusal| refusal.origin.as_ref());
        due.extend(origins.filter_map(|origin| Some((StatusKind::parse(&origin.kind)?, origin.key()))));
    }
    due
}

#[cfg(test)]
mod tests {
    use tollgate_core::objects::{NoSecretSource, Objects};
    use tollgate_core::placement::{Direction, Placement};
    use tollgate_core::snapshot::ResourceType;
    use tollgate_core::status::{Origin, Refusal, heard_as};
    use tollgate_core::translate::translate;

    use super::*;

    const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: a, port: 80, protocol: HTTP}]}
";

    fn gateway() -> (Whose, Option<ObjectStatus>) {
        let mut objects = Objects::default();
        assert_eq!(objects.add_yaml("f", GATEWAY, &NoSecretSource), []);
        let status = translate(&objects, Placement::OneHost).statuses(&objects, &[]).swap_remove(0);
        ((StatusKind::Gateway, Key::new("default", "llm")), Some(status))
    }

    fn said(taken: bool) -> Heard {
        Heard::from([("default/llm".to_owned(), Said { taken, ..Said::default() })])
    }

    #[test]
    fn a_gateway_waits_for_its_envoys_and_is_told_of_when_they_stay_away() {
        let (object, status) = gateway();
        let start = Instant::now();
        let mut judge = Judge::default();
        let mut now = |print, heard: &Heard, after| judge.judge((&object, status.clone()), print, heard, start + after);
        // A new one is soon told of, whatever an Envoy does.
        assert_eq!(now(None, &said(false), Duration::ZERO), Verdict::Wait(start + NEW));
        assert!(matches!(now(None, &said(false), NEW), Verdict::Write(_)));
        let Verdict::Write(programmed) = now(None, &said(true), NEW) else { panic!("an Envoy took it") };
        let print = Some(programmed.print());
        assert_eq!(now(print, &said(true), NEW), Verdict::Same);
        // It is taken away after a while only.
        assert_eq!(now(print, &said(false), NEW * 2), Verdict::Wait(start + NEW * 2 + PROGRAMMED));
        assert_eq!(now(print, &said(true), NEW * 3), Verdict::Same);
        assert_eq!(now(print, &said(false), NEW * 4), Verdict::Wait(start + NEW * 4 + PROGRAMMED));
        let Verdict::Write(pending) = now(print, &said(false), NEW * 4 + PROGRAMMED) else { panic!("it is gone") };
        assert_eq!(now(Some(pending.print()), &said(false), NEW * 5 + PROGRAMMED), Verdict::Same);
    }

    const POLICY: &str = "
apiVersion: v1
kind: Service
metadata: {name: runner}
spec: {selector: {app: runner}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: runner-1, labels: {app: runner, security.istio.io/tlsMode: istio}}
spec: {containers: []}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: runner-1, labels: {kubernetes.io/service-name: runner}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: runner-1}}]
ports: [{port: 80}]
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: daily}
spec: {targetRefs: [{kind: Service, name: runner}], limits: [{name: day, tokens: 5, window: day}]}
";

    #[test]
    fn a_policy_waits_for_the_sidecars_of_its_service() {
        let mut objects = Objects::default();
        assert_eq!(objects.add_yaml("f", POLICY, &NoSecretSource), []);
        let statuses = translate(&objects, Placement::Sidecar(Direction::Inbound)).statuses(&objects, &[]);
        let status = statuses.into_iter().find(|status| status.kind == StatusKind::TokenPolicy);
        let object = (StatusKind::TokenPolicy, Key::new("default", "daily"));
        let heard = |carriers: &[&str]| {
            let carriers = carriers.iter().map(|pod| (*pod).to_owned()).collect();
            let said = Said { carriers, policies: [object.1.clone()].into(), ..Said::default() };
            Heard::from([(heard_as(&Key::new("default", "runner")), said)])
        };
        let (nobody, all) = (heard(&[]), heard(&["runner-1"]));
        assert_eq!(heard_of(&nobody, &all), [object.clone()].into());
        assert_eq!(heard_of(&all, &all), [].into());
        let start = Instant::now();
        let mut judge = Judge::default();
        let mut now = |print, heard: &Heard, after| judge.judge((&object, status.clone()), print, heard, start + after);
        assert_eq!(now(None, &nobody, Duration::ZERO), Verdict::Wait(start + NEW));
        let Verdict::Write(carried) = now(None, &all, NEW) else { panic!("its Pod carries the filter") };
        let print = Some(carried.print());
        // While a control plane starts, the sidecars are on their way back.
        assert_eq!(now(print, &nobody, NEW), Verdict::Wait(start + NEW + PROGRAMMED));
        assert_eq!(now(print, &all, NEW * 2), Verdict::Same);
        assert_eq!(now(print, &nobody, NEW * 3), Verdict::Wait(start + NEW * 3 + PROGRAMMED));
        assert!(matches!(now(print, &nobody, NEW * 3 + PROGRAMMED), Verdict::Write(_)));
    }

    #[test]
    fn a_refusal_is_about_the_gateway_and_its_origin_and_nobody_else() {
        let refusal = Refusal {
            node: "e".to_owned(),
            kind: ResourceType::Cluster,
            name: "c".to_owned(),
            origin: Some(Origin::new("ModelBackend", "a", "runner")),
            message: "no".to_owned(),
        };
        let refused = Said { refused: vec![refusal], ..Said::default() };
        let refused = Heard::from([("default/llm".to_owned(), refused)]);
        let gateway = (StatusKind::Gateway, Key::new("default", "llm"));
        let backend = (StatusKind::ModelBackend, Key::new("a", "runner"));
        assert_eq!(heard_of(&said(true), &refused), [gateway.clone(), backend.clone()].into());
        assert_eq!(heard_of(&refused, &Heard::default()), [gateway, backend].into());
        assert_eq!(heard_of(&refused, &refused), BTreeSet::new());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let gone = (StatusKind::Gateway, Key::new("default", "theirs"));
        let print = Print::of(StatusKind::Gateway, Some(&serde_json::json!({"conditions": [{"type": "Accepted"}]})));
        let mut judge = Judge::default();
        assert_eq!(judge.judge((&gone, None), Some(print), &Heard::default(), Instant::now()), Verdict::Same);
        let route = (StatusKind::HttpRoute, Key::new("default", "theirs"));
        let nothing = Print::of(StatusKind::HttpRoute, None);
        assert_eq!(judge.judge((&route, None), Some(nothing), &Heard::default(), Instant::now()), Verdict::Same);
    }
}
