//! The whole body is there: which model is asked for, whether this caller may, who serves it, and what
//! the backend reads. All edits are made here, also for a request that then waits for the ledger.

use super::{Desk, Effect, Exchange, Reading, Stepped, Ticket, admit, arrive};
use crate::{
    attempt::{Attempt, AttemptPlan},
    body::{Asked, ModelForm, Stream, UsageEvent, content_type::ContentType, form, json, rewrite},
    config::{Backend, Rewrite, RouteTarget, Target},
    errors::{Refusal, Unavailable},
    model::{self, Plan},
    usage::Weighed,
};

pub(super) fn read(reading: Reading, body: &[u8], desk: &mut Desk<'_>) -> Stepped {
    let shape = reading.shape;
    let mut effects = Vec::with_capacity(8);
    match decide(reading, body, desk, &mut effects) {
        Ok(ticket) => admit::first(ticket, effects, desk),
        Err(refusal) => Exchange::refused(&refusal, shape, Vec::new(), desk),
    }
}

fn decide(reading: Reading, body: &[u8], desk: &mut Desk<'_>, effects: &mut Vec<Effect>) -> Result<Ticket, Refusal> {
    let max = desk.stage.max_body_bytes;
    if body.len() > max {
        return Err(Refusal::TooLarge { limit: max });
    }
    let asked = asked(&reading, body)?;
    let RouteTarget::Models { pool, limits } = &reading.route.target else {
        return Err(Refusal::Unavailable(Unavailable::Unconfigured));
    };
    if let Some(member) = asked.deferred
        && arrive::are_enforced(limits)
    {
        return Err(arrive::usage_never_comes(&format!("of an answer with \"{member}\""), Some(member)));
    }
    let model =
        model::find(pool, &asked.model).ok_or_else(|| Refusal::ModelNotFound { model: asked.model.to_string() })?;
    if !reading.caller.may_use(&asked.model) {
        return Err(Refusal::ModelNotAllowed { model: asked.model.to_string() });
    }
    let plan = Plan::new(model, desk.random).ok_or(Refusal::Unavailable(Unavailable::NoTarget))?;
    let first = plan.first().ok_or(Refusal::Unavailable(Unavailable::NoTarget))?;
    let pattern = model.name.pattern();
    let weighed = match asked.model_form {
        ModelForm::Form => Weighed::of_form(),
        ModelForm::Json | ModelForm::EscapedJson => Weighed::of(body),
    };
    let habit = desk.habits.of(&reading.caller.consumer, &pattern);
    let expected = habit.estimate(reading.api, weighed, asked.max_output, asked.answers);
    let wants_usage_event = !matches!(asked.stream, Stream::Events(UsageEvent::NotAsked(_)));
    send(&reading, &asked, &plan, first, body, effects);
    Ok(Ticket {
        model: asked.model.into_owned(),
        route: reading.route,
        caller: reading.caller,
        api: reading.api,
        shape: reading.shape,
        plan,
        pattern,
        weighed,
        expected,
        wants_usage_event,
        held: Vec::new(),
        rate: None,
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

/// What makes the request the first backend's own.
fn send(reading: &Reading, asked: &Asked<'_>, plan: &Plan, first: &Target, body: &[u8], effects: &mut Vec<Effect>) {
    let mut edits = Vec::new();
    let name = name_at(first, asked);
    if name != asked.model || asked.model_form == ModelForm::EscapedJson {
        edits.push(rewrite::Edit::new(asked.model_at.clone(), asked.model_form.write(name)));
    }
    if let Stream::Events(UsageEvent::NotAsked(edit)) = &asked.stream {
        edits.push(edit.clone());
    }
    let model_at = rewrite::moved(&asked.model_at, &edits);
    let edited = (!edits.is_empty()).then(|| rewrite::apply(body, edits));
    effects.push(Effect::Target(first.backend.cluster.clone()));
    if plan.model.retries > 0 {
        effects.push(Effect::SetRequestHeader("x-envoy-max-retries", plan.model.retries.to_string()));
    }
    match first.backend.rewrite {
        Rewrite::Once => {
            // Envoy puts the query behind a rewritten path itself.
            let without_query = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
            let path = backend_path(&first.backend, &without_query(reading.below()));
            let authority = Some(&first.backend.authority).filter(|authority| !authority.is_empty());
            effects.push(Effect::Rewrite {
                path: (path != without_query(&reading.path)).then_some(path),
                authority: authority.cloned(),
            });
        }
        Rewrite::PerAttempt => {
            let attempts = plan.targets().map(|target| Attempt {
                cluster: target.backend.cluster.to_string(),
                model: asked.model_form.write(name_at(target, asked)),
            });
            let plan = AttemptPlan {
                path: reading.below().to_owned(),
                model_start: u64::try_from(model_at.start).unwrap_or(u64::MAX),
                model_len: u64::try_from(model_at.len()).unwrap_or(0),
                attempts: attempts.collect(),
                body_len: edited.as_deref().unwrap_or(body).len() as u64,
            };
            effects.push(Effect::Plan(plan.encoded()));
        }
    }
    if let Some(edited) = edited {
        effects.push(Effect::SetRequestHeader("content-length", edited.len().to_string()));
        effects.push(Effect::RequestBody(edited));
    }
}

fn name_at<'a>(target: &'a Target, asked: &'a Asked<'_>) -> &'a str {
    target.model.as_deref().unwrap_or(&asked.model)
}

/// A path as the backend has it.
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
