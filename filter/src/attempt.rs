//! The upstream stage: each attempt is rewritten for its own backend. Envoy gives every attempt the original body but
//! the headers of the attempt before. So path, authority and credentials are set or removed every time, and nothing
//! of attempt 1 is left in attempt 2.
//!
//! An attempt also notes how it failed, for the request's bill. The downstream filter sees only the last attempt.

use prost::Message;

use crate::{
    body::rewrite::Edit,
    config::{AttemptStage, Backend},
};

/// What the downstream filter leaves for the attempts, in filter state.
#[derive(Clone, PartialEq, Message)]
pub struct AttemptPlan {
    /// The path below the client's `/v1`, with the query.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Where the model's name stands in the body.
    #[prost(uint64, tag = "2")]
    pub model_start: u64,
    #[prost(uint64, tag = "3")]
    pub model_len: u64,
    /// In order. The body names the model of the first. After the last one, further attempts repeat it.
    #[prost(message, repeated, tag = "4")]
    pub attempts: Vec<Attempt>,
    /// The size of the body, with the model of the first attempt in it.
    #[prost(uint64, tag = "5")]
    pub body_len: u64,
    /// What the backends are told that something is handed over to.
    #[prost(string, tag = "6")]
    pub handover: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attempt {
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// The model as it is to stand in the body, with quotes.
    #[prost(bytes = "vec", tag = "2")]
    pub model: Vec<u8>,
}

/// Whose an attempt is.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The plan has it. It is rewritten for its backend.
    Mine(Rewritten),
    /// There is no plan: the downstream filter has rewritten the request for its one backend.
    NotMine,
    /// The plan or this configuration does not know it. The request was made out under another configuration, for
    /// another backend, so the attempt ends here.
    Foreign,
}

/// What the host is to do with the headers of an attempt, and with its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Its place in the plan.
    pub place: u8,
    pub path: String,
    /// None: the backend's configuration has none.
    pub authority: Option<String>,
    /// Where the attempt after this one goes, if that is elsewhere.
    pub next_target: Option<String>,
    pub handover: Told,
    /// Of a request whose attempts have bodies of their own. The header that is there may be of the attempt before.
    pub content_length: Option<u64>,
    pub body: Body,
}

/// What the sidecar in front of a backend is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    This(String),
    /// Nothing. The attempt before may have told its own sidecar.
    NotHere,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    AsItIs,
    Rename { edit: Edit },
}

/// Decides about an attempt. Its credentials have been removed before, whatever is decided here. `number` gives which
/// attempt it is, from 1 on; it is called only where that matters.
pub fn decide(
    plan: Option<&AttemptPlan>,
    stage: &AttemptStage,
    number: impl FnOnce() -> u64,
    cluster: &str,
) -> Decision {
    let Some(plan) = plan else {
        return Decision::NotMine;
    };
    let backend = stage.backends.get(cluster);
    backend.and_then(|backend| rewritten(plan, backend, number, cluster)).map_or(Decision::Foreign, Decision::Mine)
}

fn rewritten(plan: &AttemptPlan, backend: &Backend, number: impl FnOnce() -> u64, cluster: &str) -> Option<Rewritten> {
    let place = place(plan, number, cluster)?;
    let (first, attempt) = (plan.attempts.first()?, plan.attempts.get(place)?);
    let next = plan.attempts.get(place + 1).filter(|next| next.cluster != cluster);
    let (content_length, body) = if attempt.model == first.model {
        (plan.body_len, Body::AsItIs)
    } else {
        let start = usize::try_from(plan.model_start).ok()?;
        let end = start.checked_add(usize::try_from(plan.model_len).ok()?)?;
        let without = plan.body_len.saturating_sub(plan.model_len);
        (
            without.saturating_add(attempt.model.len() as u64),
            Body::Rename { edit: Edit::new(start..end, attempt.model.clone()) },
        )
    };
    let bodies_differ = plan.attempts.iter().any(|other| other.model != first.model);
    Some(Rewritten {
        place: u8::try_from(place).unwrap_or(u8::MAX),
        path: backend_path(backend, &plan.path),
        authority: Some(backend.authority.clone()).filter(|authority| !authority.is_empty()),
        next_target: next.map(|next| next.cluster.clone()),
        handover: match (plan.handover.as_str(), backend.hands_over) {
            ("", _) => Told::Nothing,
            (handover, true) => Told::This(handover.to_owned()),
            (_, false) => Told::NotHere,
        },
        content_length: bodies_differ.then_some(content_length),
        body,
    })
}

/// Where in the plan an attempt stands. The cluster that Envoy chose is the truth; the number tells which of several
/// equal ones.
fn place(plan: &AttemptPlan, number: impl FnOnce() -> u64, cluster: &str) -> Option<usize> {
    let mut places = plan.attempts.iter().enumerate().filter(|(_, attempt)| attempt.cluster == cluster);
    let (first, _) = places.next()?;
    let last = plan.attempts.len() - 1;
    let Some(_) = places.next() else { return Some(first) };
    let counted = usize::try_from(number().saturating_sub(1)).unwrap_or(last).min(last);
    let is_there = plan.attempts.get(counted).is_some_and(|attempt| attempt.cluster == cluster);
    Some(if is_there { counted } else { first })
}

/// The backend's path, from what stands below the client's `/v1`.
pub fn backend_path(backend: &Backend, below: &str) -> String {
    let mut path = String::with_capacity(backend.path_prefix.len() + below.len() + 1);
    path.push_str(backend.path_prefix.trim_end_matches('/'));
    if !below.is_empty() && !below.starts_with(['/', '?']) {
        path.push('/');
    }
    path.push_str(below);
    if path.is_empty() || path.starts_with('?') {
        path.insert(0, '/');
    }
    path
}

/// How an attempt failed. A backend that answered with an error is owed nothing; one that never answered
/// may have worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Unanswered,
    Refused,
}

/// An attempt that a backend had and never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// Its place in the plan.
    pub place: u8,
}

/// What the attempts of a request note in its filter state: of each its number, its place and its failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures(Vec<[u8; 3]>);

// === impl Failures ===

impl Failures {
    pub fn decoded(state: &[u8]) -> Self {
        Self(state.as_chunks::<3>().0.to_vec())
    }

    pub fn encoded(&self) -> Vec<u8> {
        self.0.concat()
    }

    #[must_use]
    pub fn with(mut self, number: u64, place: u8, failure: Failure) -> Self {
        self.0.push([u8::try_from(number).unwrap_or(u8::MAX), place, u8::from(failure == Failure::Refused)]);
        self
    }

    /// What is noted of the attempt with this number.
    pub fn of(&self, number: u64) -> Option<Failure> {
        let noted = self.0.iter().find(|[noted, ..]| u64::from(*noted) == number)?;
        Some(if noted[2] == 0 { Failure::Unanswered } else { Failure::Refused })
    }

    /// The attempts before this number that were never answered.
    pub fn unanswered_before(&self, number: u64) -> Vec<Unanswered> {
        let earlier = self.0.iter().filter(|[noted, _, refused]| u64::from(*noted) < number && *refused == 0);
        earlier.map(|[_, place, _]| Unanswered { place: *place }).collect()
    }
}

// === impl AttemptPlan ===

impl AttemptPlan {
    pub fn encoded(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub fn decoded(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::{
        body::rewrite::apply,
        config::{ByName, Rewrite},
    };

    fn stage() -> AttemptStage {
        let backend = |name: &str| {
            let cluster = format!("backend/default/{name}");
            let backend = Backend {
                name: name.into(),
                cluster: cluster.as_str().into(),
                path_prefix: format!("/{name}/v1"),
                authority: format!("{name}.example"),
                rewrite: Rewrite::PerAttempt,
                hands_over: false,
            };
            (cluster, Rc::new(backend))
        };
        AttemptStage { backends: ByName::new("cluster", vec![backend("a"), backend("b")]).unwrap() }
    }

    fn plan() -> AttemptPlan {
        let attempt = |name: &str, model: &str| Attempt {
            cluster: format!("backend/default/{name}"),
            model: model.as_bytes().to_vec(),
        };
        AttemptPlan {
            path: "/chat/completions?x=1".into(),
            model_start: 9,
            model_len: 3,
            attempts: vec![attempt("a", "\"x\""), attempt("b", "\"other\"")],
            body_len: 13,
            handover: String::new(),
        }
    }

    #[test]
    fn only_the_backend_that_is_handed_something_is_told_it() {
        let mut stage = stage();
        let told = |stage: &AttemptStage, handover: &str, number, cluster| {
            let plan = AttemptPlan { handover: handover.to_owned(), ..plan() };
            match decide(Some(&plan), stage, || number, cluster) {
                Decision::Mine(rewritten) => rewritten.handover,
                other => panic!("{other:?}"),
            }
        };
        let to_a = |backend: &Backend| Backend { hands_over: &*backend.name == "a", ..backend.clone() };
        let backends = stage.backends.all().iter().map(|(name, backend)| (name.clone(), Rc::new(to_a(backend))));
        stage.backends = ByName::new("cluster", backends.collect()).unwrap();
        assert_eq!(told(&stage, "ab", 1, "backend/default/a"), Told::This("ab".to_owned()));
        assert_eq!(told(&stage, "ab", 2, "backend/default/b"), Told::NotHere);
        assert_eq!(told(&stage, "", 1, "backend/default/a"), Told::Nothing);
        assert_eq!(told(&stage, "", 2, "backend/default/b"), Told::Nothing);
    }

    fn mine(number: u64, cluster: &str) -> Rewritten {
        match decide(Some(&plan()), &stage(), || number, cluster) {
            Decision::Mine(rewritten) => rewritten,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_attempt_leaves_the_body_and_names_the_next() {
        assert_eq!(AttemptPlan::decoded(&plan().encoded()), Some(plan()));
        let decision = mine(1, "backend/default/a");
        assert_eq!(decision.path, "/a/v1/chat/completions?x=1");
        assert_eq!(decision.next_target.as_deref(), Some("backend/default/b"));
        assert_eq!((decision.body, decision.content_length), (Body::AsItIs, Some(13)));
    }

    #[test]
    fn the_second_attempt_has_nothing_of_the_first() {
        let decision = mine(2, "backend/default/b");
        assert_eq!(decision.path, "/b/v1/chat/completions?x=1");
        assert_eq!(decision.authority.as_deref(), Some("b.example"));
        assert_eq!((decision.place, decision.next_target), (1, None));
        let Body::Rename { edit } = decision.body else { panic!() };
        let body = apply(br#"{"model":"x"}"#, vec![edit]);
        assert_eq!(body, br#"{"model":"other"}"#);
        assert_eq!(decision.content_length, Some(body.len() as u64));
    }

    #[test]
    fn a_further_attempt_repeats_the_last() {
        let decision = mine(5, "backend/default/b");
        assert_eq!(decision.path, "/b/v1/chat/completions?x=1");
    }

    /// A pool that was edited while attempt 1 ran once sent backend b the key, model and path of a.
    #[test]
    fn an_attempt_of_another_time_ends() {
        let decide = |plan: Option<&AttemptPlan>, cluster| decide(plan, &stage(), || 2, cluster);
        assert_eq!(decide(Some(&plan()), "backend/default/z"), Decision::Foreign, "of no plan, and not configured");
        let mut without_b = plan();
        without_b.attempts.pop();
        assert_eq!(decide(Some(&without_b), "backend/default/b"), Decision::Foreign, "configured, of no plan");
        let mut with_z = plan();
        with_z.attempts.push(Attempt { cluster: "backend/default/z".into(), model: Vec::new() });
        assert_eq!(decide(Some(&with_z), "backend/default/z"), Decision::Foreign, "planned, not configured");
        assert_eq!(decide(None, "backend/default/b"), Decision::NotMine);
    }

    #[test]
    fn failures_are_told_by_number() {
        let failures = Failures::default().with(1, 0, Failure::Unanswered).with(2, 1, Failure::Refused).with(
            3,
            1,
            Failure::Unanswered,
        );
        let failures = Failures::decoded(&failures.encoded());
        assert_eq!(failures.of(2), Some(Failure::Refused));
        assert_eq!((failures.of(3), failures.of(4)), (Some(Failure::Unanswered), None));
        assert_eq!(failures.unanswered_before(3), [Unanswered { place: 0 }]);
        assert_eq!(failures.unanswered_before(4), [Unanswered { place: 0 }, Unanswered { place: 1 }]);
        assert_eq!(Failures::decoded(b"xy"), Failures::default());
    }

    #[test]
    fn paths_are_the_backends() {
        let mut backend = Backend::clone(stage().backends.get("backend/default/a").unwrap());
        for (prefix, below, path) in [
            ("/v1", "/chat?x", "/v1/chat?x"),
            ("/v1/", "/chat", "/v1/chat"),
            ("/v1", "?x", "/v1?x"),
            ("/v1", "", "/v1"),
            ("", "", "/"),
            ("", "?x", "/?x"),
            ("/v1", "chat", "/v1/chat"),
        ] {
            backend.path_prefix = prefix.to_owned();
            assert_eq!(backend_path(&backend, below), path);
        }
    }
}
