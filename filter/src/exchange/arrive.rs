//! Request headers: what clients must not send is taken away, the route says whose business it is, and
//! the key is checked before any of the body is read.

use super::{Desk, Effect, Exchange, Reading, Stepped};
use crate::{
    body::form,
    config::{Access, Pool, RouteTarget},
    errors::{Refusal, Shape, Unavailable},
    key::{self, Caller, KeyHash, Table},
    models,
    path::Path,
    usage::Api,
};

/// A request's headers, as Envoy has them.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub headers: &'a [(String, Vec<u8>)],
    /// Envoy's route, if there is one.
    pub route: Option<&'a str>,
}

/// Envoy's own headers that would let a client steer retries and timeouts. What Envoy itself has set
/// by now stays.
const ENVOY_PREFIX: &str = "x-envoy-";
const ENVOY_KEPT: [&str; 4] =
    ["x-envoy-external-address", "x-envoy-internal", "x-envoy-decorator-operation", "x-envoy-peer-metadata"];

pub(super) fn arrived(head: &Head<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    let mut effects: Vec<Effect> = head
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-tollgate-"))
        .map(|(name, _)| Effect::RemoveRequestHeader(name.clone()))
        .collect();
    let raw_path = head.text(":path").unwrap_or("/");
    let path = Path::of(raw_path);
    let api = Api::of(path.below());
    let shape = shape(api, path, head);
    let Some(route_name) = head.route else {
        return (Exchange::Passing, effects);
    };
    let Some(route) = desk.stage.routes.get(route_name).cloned() else {
        return Exchange::refused(&Refusal::Unavailable(Unavailable::Unconfigured), shape, effects, desk);
    };
    let pool = match &route.target {
        RouteTarget::Models { pool, .. } => pool,
        RouteTarget::Plain => return (Exchange::Passing, effects),
        RouteTarget::Closed { policy } => {
            return Exchange::refused(&Refusal::PolicyInvalid { policy: policy.clone() }, shape, effects, desk);
        }
    };
    desk.counters.requests += 1;
    effects.extend(
        head.headers
            .iter()
            .map(|(name, _)| name)
            .filter(|name| is_dropped(name))
            .map(|name| Effect::RemoveRequestHeader(name.clone())),
    );
    let caller = match caller(head, pool, desk) {
        Ok(caller) => caller,
        Err(refusal) => return Exchange::refused(&refusal, shape, effects, desk),
    };
    if let (Some("GET" | "HEAD"), Some(question)) = (head.text(":method"), models::question(path)) {
        return match models::answer(&question, pool, &caller, shape) {
            Ok(body) => {
                let headers = vec![("content-type", "application/json".to_owned())];
                effects.push(Effect::Reply { status: 200, headers, body });
                (Exchange::Refused, effects)
            }
            Err(refusal) => Exchange::refused(&refusal, shape, effects, desk),
        };
    }
    if let Some(refusal) = refuse_body(head, end, desk.stage.max_body_bytes) {
        return Exchange::refused(&refusal, shape, effects, desk);
    }
    let reading = Reading {
        route: route.clone(),
        caller,
        api,
        shape,
        path: raw_path.to_owned(),
        below: raw_path.len() - path.below_with_query().len(),
        content_type: head.get("content-type").filter(|value| form::is_form(value)).unwrap_or_default().to_vec(),
    };
    (Exchange::Reading(Box::new(reading)), effects)
}

/// What never goes on to a backend: keys, encodings that usage could not be read from, and orders to Envoy.
fn is_dropped(name: &str) -> bool {
    key::HEADERS.contains(&name)
        || name == "accept-encoding"
        || (name.starts_with(ENVOY_PREFIX) && !ENVOY_KEPT.contains(&name))
}

fn shape(api: Api, path: Path<'_>, head: &Head<'_>) -> Shape {
    let lists_models = || models::question(path).is_some() && head.get("anthropic-version").is_some();
    match api {
        Api::Messages | Api::CountTokens => Shape::Anthropic,
        Api::Other if path.below().starts_with("/messages/") || lists_models() => Shape::Anthropic,
        _ => Shape::OpenAi,
    }
}

fn caller(head: &Head<'_>, pool: &Pool, desk: &Desk<'_>) -> Result<Caller, Refusal> {
    if pool.access == Access::Anonymous {
        return Ok(Caller::anonymous());
    }
    let Table::Ready(generation) = desk.table else {
        return Err(Refusal::Unavailable(Unavailable::KeysNotLoaded));
    };
    let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let key = key::find(headers).ok_or(Refusal::NoKey)?;
    let now_s = i64::try_from(desk.now / 1000).unwrap_or(i64::MAX);
    key::look_up(desk.shared, &KeyHash::of(key), generation, now_s)
        .ok()
        .filter(|caller| pool.consumers.contain(&caller.namespace))
        .ok_or(Refusal::WrongKey)
}

fn refuse_body(head: &Head<'_>, end: bool, max: usize) -> Option<Refusal> {
    let invalid = |message: &str| Some(Refusal::Invalid { message: message.to_owned(), param: None });
    if end {
        return invalid("the request has no body; send a JSON object with a \"model\"");
    }
    if head.text("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return invalid("the body is compressed; send it without content-encoding");
    }
    let length = head.text("content-length").and_then(|length| length.parse::<usize>().ok());
    length.filter(|length| *length > max).map(|_| Refusal::TooLarge { limit: max })
}

// === impl Head ===

impl Head<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}
