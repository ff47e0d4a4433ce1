//! The upstream stage: each attempt becomes its own backend's. Envoy gives every attempt the original
//! body but the headers of the attempt before, so path, authority and credentials are set or removed
//! every time and nothing of attempt 1 is left in attempt 2.

use prost::Message;

use crate::{
    body::rewrite::{Edit, apply},
    config::{AttemptStage, Rewrite},
    exchange::backend_path,
    key,
};

/// What the downstream filter leaves for the attempts, in filter state.
#[derive(Clone, PartialEq, Message)]
pub struct AttemptPlan {
    /// Path below the client's `/v1`, with the query.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Where the model's name stands in the body.
    #[prost(uint64, tag = "2")]
    pub model_start: u64,
    #[prost(uint64, tag = "3")]
    pub model_len: u64,
    /// The first one's model stands in the body. Further attempts repeat the last.
    #[prost(message, repeated, tag = "4")]
    pub attempts: Vec<Attempt>,
    /// Bytes of the body with the first one's model in it.
    #[prost(uint64, tag = "5")]
    pub body_len: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attempt {
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// The model as it is to stand in the body, quotes included.
    #[prost(bytes = "vec", tag = "2")]
    pub model: Vec<u8>,
}

/// What the host is to do with the headers of an attempt, and with its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    pub remove: [&'static str; 3],
    pub path: String,
    /// None: the backend says none.
    pub authority: Option<String>,
    /// Where the attempt after this one goes.
    pub next_target: Option<String>,
    /// Set on every attempt: the header that is there may be of the attempt before.
    pub content_length: u64,
    pub body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    AsItIs,
    Rename { edit: Edit },
}

/// Decides about an attempt. None: it is none of the plan's, and nothing is touched but credentials.
pub fn decide(plan: &AttemptPlan, stage: &AttemptStage, number: u64, cluster: &str) -> Option<Decision> {
    let backend = stage.backends.get(cluster).filter(|backend| backend.rewrite == Rewrite::PerAttempt)?;
    let last = plan.attempts.len().checked_sub(1)?;
    let counted = usize::try_from(number.saturating_sub(1)).unwrap_or(last).min(last);
    // The cluster that Envoy chose is the truth; the number tells which of several equal ones.
    let place = match plan.attempts.get(counted) {
        Some(attempt) if attempt.cluster == cluster => counted,
        _ => plan.attempts.iter().position(|attempt| attempt.cluster == cluster)?,
    };
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
    Some(Decision {
        remove: key::HEADERS,
        path: backend_path(backend, &plan.path),
        authority: Some(backend.authority.clone()).filter(|authority| !authority.is_empty()),
        next_target: next.map(|next| next.cluster.clone()),
        content_length,
        body,
    })
}

/// The body of a renamed attempt.
pub fn renamed(body: &[u8], edit: Edit) -> Vec<u8> {
    apply(body, vec![edit])
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
    use crate::config::Backend;

    fn stage() -> AttemptStage {
        let backend = |name: &str| {
            let cluster = format!("backend/default/{name}");
            let backend = Backend {
                name: name.into(),
                cluster: cluster.as_str().into(),
                path_prefix: format!("/{name}/v1"),
                authority: format!("{name}.example"),
                rewrite: Rewrite::PerAttempt,
            };
            (cluster, Rc::new(backend))
        };
        AttemptStage { backends: [backend("a"), backend("b")].into() }
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
        }
    }

    #[test]
    fn the_first_attempt_leaves_the_body_and_names_the_next() {
        let plan = AttemptPlan::decoded(&plan().encoded()).unwrap();
        let decision = decide(&plan, &stage(), 1, "backend/default/a").unwrap();
        assert_eq!(decision.path, "/a/v1/chat/completions?x=1");
        assert_eq!(decision.next_target.as_deref(), Some("backend/default/b"));
        assert_eq!((decision.body, decision.content_length), (Body::AsItIs, 13));
    }

    #[test]
    fn the_second_attempt_has_nothing_of_the_first() {
        let decision = decide(&plan(), &stage(), 2, "backend/default/b").unwrap();
        assert_eq!(decision.path, "/b/v1/chat/completions?x=1");
        assert_eq!(decision.authority.as_deref(), Some("b.example"));
        assert_eq!((decision.remove, decision.next_target), (key::HEADERS, None));
        let Body::Rename { edit } = decision.body else { panic!() };
        let body = renamed(br#"{"model":"x"}"#, edit);
        assert_eq!(body, br#"{"model":"other"}"#);
        assert_eq!(decision.content_length, body.len() as u64);
    }

    #[test]
    fn a_further_attempt_repeats_the_last() {
        let decision = decide(&plan(), &stage(), 5, "backend/default/b").unwrap();
        assert_eq!(decision.path, "/b/v1/chat/completions?x=1");
        assert_eq!(decide(&plan(), &stage(), 1, "backend/default/z"), None);
    }
}
