//! The whole body is there. It says which model is asked for; the pool says whether this caller may use it, who serves
//! it, and what the backend is to read. The edits are made later, when the request is admitted.

use std::ops::Range;

use super::{Desk, Effect, Exchange, Reading, Stepped, Ticket, Told, admit, arrive, fields};
use crate::{
    attempt::{Attempt, AttemptPlan, backend_path},
    body::{AnswerMode, Asked, ModelForm, UsageEvent, content_type::ContentType, form, json, rewrite},
    config::{Place, Rewrite, Target},
    errors::{Refusal, Unavailable},
    handover,
    model::{self, Plan},
    usage::Weighed,
};

/// The header by which routes in sidecars lead to a backend. They take it away.
const BACKEND: &str = "x-tollgate-backend";

/// A request of which everything is decided but its budgets.
#[derive(Debug)]
pub struct Draft {
    pub(super) ticket: Ticket,
    /// The path as the client sent it, and where in it the part below `/v1` begins.
    path: String,
    below: usize,
    /// Where the model's name stands in the body, and how it is written.
    model_at: Range<usize>,
    model_form: ModelForm,
    stream: AnswerMode,
}

pub(super) fn read(reading: Reading, desk: &mut Desk<'_>) -> Stepped {
    let (shape, caller) = (reading.shape, reading.caller.clone());
    let body = desk.request.read();
    match decide(reading, &body, desk) {
        Ok(draft) if matches!(desk.stage.place, Place::Caller(_)) => (Exchange::Passing, draft.send(&body)),
        Ok(draft) => admit::first(draft, &body, desk),
        Err(refusal) => {
            let fields = fields::of_caller(&caller.consumer, desk.stage).into_iter().collect();
            Exchange::refused(&refusal, shape, fields, desk)
        }
    }
}

fn decide(reading: Reading, body: &[u8], desk: &mut Desk<'_>) -> Result<Draft, Refusal> {
    let max = desk.stage.max_body_bytes;
    if body.len() > max {
        return Err(Refusal::TooLarge { limit: Some(max) });
    }
    let asked = asked(&reading, body)?;
    if let Some(member) = asked.deferred
        && arrive::are_enforced(&reading.terms.limits)
    {
        return Err(arrive::usage_never_comes(&format!("of an answer with \"{member}\""), Some(member)));
    }
    let model = model::find(&reading.terms.pool, &asked.model)
        .ok_or_else(|| Refusal::ModelNotFound { model: asked.model.to_string() })?;
    if !reading.caller.may_use(&asked.model) {
        return Err(Refusal::ModelNotAllowed { model: asked.model.to_string() });
    }
    let plan = Plan::new(model, desk.random).ok_or(Refusal::Unavailable(Unavailable::NoTarget))?;
    let told = if reading.handed_over.is_some() { Told::ByGateway } else { Told::Here };
    let pattern = reading.handed_over.unwrap_or_else(|| model.counts_as.clone());
    let weighed = match asked.model_form {
        ModelForm::Form => Weighed::of_form(),
        ModelForm::Json | ModelForm::EscapedJson => Weighed::of(body),
    };
    let habit = desk.habits.of(&reading.caller.consumer, &pattern);
    let expected = habit.estimate(reading.api, weighed, asked.max_output, asked.answers);
    let wants_usage_event = !matches!(asked.stream, AnswerMode::Events(UsageEvent::NotAsked(_)));
    let ticket = Ticket {
        began: reading.began,
        model: asked.model.into_owned(),
        route: reading.route,
        terms: reading.terms,
        caller: reading.caller,
        claims: reading.claims,
        api: reading.api,
        shape: reading.shape,
        plan,
        pattern,
        weighed,
        expected,
        wants_usage_event,
        told,
        error_status: 0,
        held: Vec::new(),
        rate: None,
    };
    Ok(Draft {
        ticket,
        path: reading.path,
        below: reading.below,
        model_at: asked.model_at,
        model_form: asked.model_form,
        stream: asked.stream,
    })
}

fn asked<'b>(reading: &Reading, body: &'b [u8]) -> Result<Asked<'b>, Refusal> {
    let (message, param) = match &reading.content_type {
        ContentType::Json => match json::read(body, reading.api.asks_for_usage()) {
            Ok(asked) => return Ok(asked),
            Err(refused) => (refused.to_string(), refused.param()),
        },
        ContentType::Form(boundary) => match form::read(boundary, body) {
            Ok(asked) => return Ok(asked),
            Err(refused) => (refused.to_string(), None),
        },
    };
    Err(Refusal::Invalid { message, param })
}

/// The header is set and not removed: without it a backend may choose any coding, and usage is read only from plain
/// answers.
fn answer_plainly() -> Effect {
    Effect::SetRequestHeader("accept-encoding", "identity".into())
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

// === impl Draft ===

impl Draft {
    /// The effects that turn the request into the first backend's own.
    pub(super) fn send(&self, body: &[u8]) -> Vec<Effect> {
        let Some(first) = self.ticket.plan.first() else {
            return Vec::new();
        };
        let edits = self.edits(self.name_at(first));
        let model_at = rewrite::moved(&self.model_at, &edits);
        let edited = (!edits.is_empty()).then(|| rewrite::apply(body, edits));
        let mut effects = Vec::with_capacity(8);
        match first.backend.rewrite {
            Rewrite::Once | Rewrite::PerAttempt => {
                self.lead(first, model_at, edited.as_deref().unwrap_or(body).len(), &mut effects);
            }
            Rewrite::ByHeaders => self.point(first, &mut effects),
            Rewrite::Nobody => effects.push(answer_plainly()),
        }
        if let Some(edited) = edited {
            effects.push(Effect::SetRequestHeader("content-length", edited.len().to_string().into()));
            effects.push(Effect::RequestBody(edited));
        }
        effects
    }

    /// What has Envoy send it to these backends.
    fn lead(&self, first: &Target, model_at: Range<usize>, body_len: usize, effects: &mut Vec<Effect>) {
        effects.push(Effect::Target(first.backend.cluster.clone()));
        // A header that changes after the target makes Envoy choose the route, and with it the cluster, anew.
        effects.push(answer_plainly());
        let (retries, of_route) = (self.ticket.plan.model.retries, self.ticket.terms.pool.most_retries);
        if retries != of_route {
            effects.push(Effect::SetRequestHeader("x-envoy-max-retries", retries.to_string().into()));
        }
        if first.backend.rewrite == Rewrite::PerAttempt {
            // Such retries are made only where each attempt is counted, because a backend that reset may have worked.
            effects.push(Effect::SetRequestHeader("x-envoy-retry-on", "reset".into()));
        }
        if first.backend.hands_over && first.backend.rewrite == Rewrite::Once {
            effects.push(Effect::SetRequestHeader(handover::HEADER, self.handover().into()));
        }
        match first.backend.rewrite {
            Rewrite::Once => effects.push(self.rewritten_once(first)),
            Rewrite::PerAttempt => effects.push(self.planned(model_at, body_len)),
            Rewrite::ByHeaders | Rewrite::Nobody => {}
        }
    }

    /// What has Istio's route lead to this backend.
    fn point(&self, first: &Target, effects: &mut Vec<Effect>) {
        let path = backend_path(&first.backend, self.below());
        if path != self.path {
            effects.push(Effect::SetRequestHeader(":path", path.into()));
        }
        effects.push(Effect::SetRequestHeader(BACKEND, first.backend.name.to_string().into()));
    }

    fn edits(&self, name: &str) -> Vec<rewrite::Edit> {
        let mut edits = Vec::new();
        if name != self.ticket.model || self.model_form == ModelForm::EscapedJson {
            edits.push(rewrite::Edit::new(self.model_at.clone(), self.model_form.write(name)));
        }
        if let AnswerMode::Events(UsageEvent::NotAsked(edit)) = &self.stream {
            edits.push(edit.clone());
        }
        edits
    }

    fn rewritten_once(&self, target: &Target) -> Effect {
        // Envoy itself appends the query to a rewritten path.
        let path = backend_path(&target.backend, without_query(self.below()));
        let authority = Some(&target.backend.authority).filter(|authority| !authority.is_empty());
        Effect::Rewrite { path: (path != without_query(&self.path)).then_some(path), authority: authority.cloned() }
    }

    fn planned(&self, model_at: Range<usize>, body_len: usize) -> Effect {
        let attempts = self.ticket.plan.targets().map(|target| Attempt {
            cluster: target.backend.cluster.to_string(),
            model: self.model_form.write(self.name_at(target)),
        });
        let plan = AttemptPlan {
            path: self.below().to_owned(),
            model_start: u64::try_from(model_at.start).unwrap_or(u64::MAX),
            model_len: u64::try_from(model_at.len()).unwrap_or(0),
            attempts: attempts.collect(),
            handover: if self.ticket.plan.targets().any(|target| target.backend.hands_over) {
                self.handover()
            } else {
                String::new()
            },
            body_len: body_len as u64,
        };
        Effect::Plan(plan.encoded())
    }

    fn handover(&self) -> String {
        let Ticket { caller, pattern, terms, .. } = &self.ticket;
        handover::said(caller, pattern, &terms.limits)
    }

    fn name_at<'a>(&'a self, target: &'a Target) -> &'a str {
        target.model.as_deref().unwrap_or(&self.ticket.model)
    }

    /// The path below the client's `/v1`, with the query.
    fn below(&self) -> &str {
        self.path.get(self.below..).unwrap_or_default()
    }
}
