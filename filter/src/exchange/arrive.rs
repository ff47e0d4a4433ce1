//! The headers of a request. What clients must not send is taken away. The route says whether the request is for a
//! model. The key is checked before any of the body is read.

use std::rc::Rc;

use super::{Desk, Effect, Exchange, Reading, Stepped};
use crate::{
    body::{content_type::ContentType, same},
    config::{Access, Class, Limit, Mode, Place, Pool},
    errors::{Refusal, Shape, Unavailable, WhyNobody},
    handover::{self, Handover},
    headers::{self, Headers},
    jwt::{self, Payload, Payloads, Unclear, Whose},
    key::{self, Caller, Presented, Proof, Table},
    models,
    path::{EscapedSlash, Path},
    route_name::RouteName,
    usage::Api,
};

/// A request's headers, as Envoy has them.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub headers: &'a Headers,
    /// The name of Envoy's route, if there is one.
    pub route: Option<&'a str>,
    /// The SPIFFE ID of the client, if its connection proves it.
    pub identity: Option<&'a str>,
    /// Envoy's dynamic metadata, where the configuration asks for claims.
    pub metadata: Option<&'a [u8]>,
}

/// What a request is for.
enum For {
    /// For no model.
    Nothing,
    /// For a model, under these terms and by this route.
    Model(Rc<Class>, Rc<str>),
    /// The same, and a Gateway has said whose it is. The class has the limits that are left.
    HandedOver(Rc<Class>, Rc<str>, Handover),
    /// For a model, and a Gateway has charged all of it.
    Charged,
    /// The configuration does not say it.
    Unknown,
}

/// Headers with this prefix would let a client steer Envoy's retries and timeouts. Those that Envoy itself has set by
/// now stay.
const ENVOY_PREFIX: &[u8] = b"x-envoy-";
const ENVOY_KEPT: [&[u8]; 4] =
    [b"x-envoy-external-address", b"x-envoy-internal", b"x-envoy-decorator-operation", b"x-envoy-peer-metadata"];

/// Headers that are ours alone. Envoy removes a client's own on arrival, and so does the filter.
const OWN_PREFIX: &[u8] = b"x-tollgate-";

/// The key by which Envoy finds the routes of this request. Envoy looks for the route again after every change of
/// headers, so this one stays. It is removed by the route.
const SCOPE: &[u8] = b"x-tollgate-scope";

/// The first segment, below the client's `/v1`, of APIs whose work is done later. Its usage is in no answer that
/// passes here. [`LATER_MESSAGES`] is another one.
const LATER: [&str; 11] = [
    "batches",
    "files",
    "uploads",
    "fine_tuning",
    "fine-tunes",
    "evals",
    "assistants",
    "threads",
    "videos",
    "realtime",
    "async",
];
const LATER_MESSAGES: &str = "/messages/batches";

pub(super) fn arrived(head: &Head<'_>, end: bool, desk: &mut Desk<'_>) -> Stepped {
    let mut effects: Vec<Effect> = head
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with(OWN_PREFIX) && *name != SCOPE)
        .map(|(name, _)| Effect::RemoveRequestHeader(headers::owned(name)))
        .collect();
    let (found, handover) = match what_for(head, desk) {
        For::Nothing => return plain(head, effects, desk),
        For::Charged => return (Exchange::Passing, effects),
        For::Model(class, route) => (Some((class, route)), None),
        For::HandedOver(class, route, handover) => (Some((class, route)), Some(handover)),
        For::Unknown => (None, None),
    };
    let path = head.path();
    let api = path.as_ref().map_or(Api::Other, |path| Api::of(path.below()));
    let shape = shape(api, &path, head);
    let refused = |refusal, effects, desk: &mut Desk<'_>| Exchange::refused(&refusal, shape, effects, desk);
    let Some((class, route)) = found else {
        return refused(Refusal::Unavailable(Unavailable::Unconfigured), effects, desk);
    };
    let terms = match &*class {
        Class::Open(terms) => terms.clone(),
        Class::Closed { policy } => {
            return refused(Refusal::PolicyInvalid { policy: policy.clone() }, effects, desk);
        }
    };
    let pool = &terms.pool;
    desk.counters.requests += 1;
    // What a caller's sidecar sends on is looked at once more where the model runs: its key, and what it used.
    let is_last = !matches!(desk.stage.place, Place::Caller(_));
    if is_last {
        effects.extend(
            head.headers
                .iter()
                .map(|(name, _)| name)
                .filter(|name| is_dropped(name))
                .map(|name| Effect::RemoveRequestHeader(headers::owned(name))),
        );
    }
    let payloads = match Payloads::read(head.metadata.unwrap_or_default()) {
        Ok(payloads) => payloads,
        Err(jwt::Unreadable) => return refused(Refusal::Jwt(WhyNobody::TooMuch), effects, desk),
    };
    let known = match &handover {
        Some(handover) => Ok((handover.caller.clone(), None)),
        None => caller(head, &payloads, pool, desk),
    };
    let (caller, of_jwt) = match known {
        Ok(known) => known,
        Err(refusal) => return refused(refusal, effects, desk),
    };
    let claims = jwt::of_budgets(of_jwt.or_else(|| payloads.only()), &terms.limits);
    let path = match path {
        Ok(path) => path,
        Err(refusal) => return refused(refusal, effects, desk),
    };
    if head.only_reads()
        && let Some(question) = models::question(&path)
    {
        return match models::answer(&question, pool, &caller, shape) {
            Ok(body) => {
                let headers = vec![("content-type", "application/json".to_owned())];
                effects.push(Effect::Reply { status: 200, headers, body });
                (Exchange::Refused, effects)
            }
            Err(refusal) => refused(refusal, effects, desk),
        };
    }
    let content_type = match take_body(head, end, &path, &terms.limits, desk.stage.max_body_bytes) {
        Ok(content_type) => content_type,
        Err(refusal) => return refused(refusal, effects, desk),
    };
    if head.headers.get("content-type").is_none() {
        effects.push(Effect::SetRequestHeader("content-type", "application/json".into()));
    }
    let raw_path = head.text(":path").unwrap_or_default();
    let reading = Reading {
        began: desk.now,
        caller,
        claims,
        api: if is_last { api } else { Api::Other },
        shape,
        path: raw_path.to_owned(),
        below: raw_path.len() - path.below_with_query().len(),
        content_type,
        route,
        terms,
        handed_over: handover.map(|handover| handover.model),
    };
    (Exchange::Reading(Box::new(reading)), effects)
}

fn what_for(head: &Head<'_>, desk: &Desk<'_>) -> For {
    if let Place::Caller(class) = &desk.stage.place {
        // No row tells of it, so it needs no name of a route.
        return For::Model(class.clone(), "".into());
    }
    if let Place::Workload(workload) = &desk.stage.place {
        if head.asks_for_no_work() {
            return For::Nothing;
        }
        let Some(handover) = handed_over(head, &workload.gateways) else {
            return For::Model(workload.class.clone(), workload.route.clone());
        };
        return match handover.rest(&workload.class) {
            Some(class) => For::HandedOver(Rc::new(class), workload.route.clone(), handover),
            None => For::Charged,
        };
    }
    match head.route.map(RouteName::parse) {
        None | Some(Some(RouteName::Plain)) => For::Nothing,
        Some(None) => For::Unknown,
        Some(Some(RouteName::OfClass { class, route })) => {
            let class = desk.stage.classes.get(class).or_else(|| desk.known.get(class));
            class.map_or(For::Unknown, |class| For::Model(class.clone(), route.into()))
        }
    }
}

/// What the proxy of a Gateway says. What anybody else says is nothing.
fn handed_over(head: &Head<'_>, gateways: &[String]) -> Option<Handover> {
    head.identity.filter(|identity| gateways.iter().any(|gateway| gateway == identity))?;
    let mut values = head.headers.all(handover::HEADER);
    match (values.next(), values.next()) {
        (Some(value), None) => Handover::read(value),
        _ => None,
    }
}

/// A request that is not for a model passes, without any key of this gateway. The rest of its headers is between the
/// client and the application.
fn plain(head: &Head<'_>, mut effects: Vec<Effect>, desk: &mut Desk<'_>) -> Stepped {
    for (name, value) in head.headers.iter().filter(|(name, _)| key::is_header(name)) {
        let Table::Ready(generation) = desk.table else {
            // Nobody can tell yet whether that is a key of this gateway.
            let refusal = Refusal::Unavailable(Unavailable::KeysNotLoaded);
            return Exchange::refused(&refusal, Shape::OpenAi, effects, desk);
        };
        if key::has_known(value, desk.shared, generation, desk.now) {
            effects.push(Effect::RemoveRequestHeader(headers::owned(name)));
        }
    }
    (Exchange::Passing, effects)
}

/// Whether a header never goes on to a backend: keys, and orders to Envoy.
fn is_dropped(name: &[u8]) -> bool {
    key::is_header(name) || (name.starts_with(ENVOY_PREFIX) && !ENVOY_KEPT.contains(&name))
}

/// The shape of errors. Where the path does not tell the vendor, the header that Anthropic's SDK sends does.
fn shape(api: Api, path: &Result<Path<'_>, Refusal>, head: &Head<'_>) -> Shape {
    let of_messages = || path.as_ref().is_ok_and(|path| path.below().starts_with("/messages/"));
    match api {
        Api::Messages | Api::CountTokens => Shape::Anthropic,
        Api::Other if of_messages() || head.headers.get("anthropic-version").is_some() => Shape::Anthropic,
        _ => Shape::OpenAi,
    }
}

/// The caller, and the payload of the JWT that shows it. A key, an identity and a JWT that are known are the same Consumer's.
fn caller<'p>(
    head: &Head<'_>,
    payloads: &'p Payloads<'p>,
    pool: &Pool,
    desk: &mut Desk<'_>,
) -> Result<(Rc<Caller>, Option<&'p Payload<'p>>), Refusal> {
    if pool.access == Access::Anonymous {
        return Ok((Rc::new(Caller::anonymous()), None));
    }
    let Table::Ready(generation) = desk.table else {
        return Err(Refusal::Unavailable(Unavailable::KeysNotLoaded));
    };
    let mut look_up = |proof| {
        let found = desk.callers.look_up(desk.shared, proof, generation, desk.now).ok();
        found.filter(|caller| pool.consumers.contain(&caller.namespace))
    };
    let of_identity = head.identity.and_then(|identity| look_up(Proof::Identity(identity.into())));
    let of_jwt = jwt::whose(payloads, &desk.stage.claims.sets, &mut look_up).map_err(|unclear| {
        Refusal::Jwt(match unclear {
            Unclear::Several => WhyNobody::Several,
            Unclear::TooMuch => WhyNobody::TooMuch,
        })
    })?;
    let (of_jwt, payload) = of_jwt.map(|Whose { caller, payload }| (caller, payload)).unzip();
    // A JWT may be left where keys are. While one is verified, what looks like one is no key.
    let headers = head.headers.iter().filter(|(_, value)| payloads.is_empty() || !jwt::is_one(value));
    let of_key = match key::find(headers) {
        Presented::One(key) => Some(look_up(Proof::of_key(key)).ok_or(Refusal::WrongKey)?),
        Presented::Several => return Err(Refusal::SeveralKeys),
        Presented::Nothing => None,
    };
    let differ = |one: &Option<Rc<Caller>>, other: &Option<Rc<Caller>>| {
        one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.consumer != other.consumer)
    };
    // A workload cannot have another Consumer pay by a key that it has come by.
    if differ(&of_identity, &of_key) {
        return Err(Refusal::OthersKey);
    }
    if differ(&of_jwt, &of_key) || differ(&of_jwt, &of_identity) {
        return Err(Refusal::Jwt(WhyNobody::Others));
    }
    let nobody = || match payloads.is_empty() {
        true => Refusal::NoKey { identity: head.identity.map(str::to_owned) },
        false => Refusal::Jwt(WhyNobody::Unknown),
    };
    let caller = of_key.or(of_jwt).or(of_identity).ok_or_else(nobody)?;
    Ok((caller, payload))
}

/// Says how the body of a request to a model is to be read.
fn take_body(
    head: &Head<'_>,
    end: bool,
    path: &Path<'_>,
    limits: &[Rc<Limit>],
    max: usize,
) -> Result<ContentType, Refusal> {
    let invalid = |message: &str| Err(Refusal::Invalid { message: message.to_owned(), param: None });
    if head.text(":method") != Some("POST") {
        return invalid("only POST is taken here, with a body that names the model; GET /v1/models lists the models");
    }
    let first = path.below().split('/').nth(1).unwrap_or_default();
    if (LATER.contains(&first) || path.below().starts_with(LATER_MESSAGES)) && are_enforced(limits) {
        return Err(usage_never_comes(&format!("of work below /{first}"), None));
    }
    if end {
        return invalid("the request has no body; send a JSON object with a \"model\"");
    }
    let mut encodings = head.headers.all("content-encoding");
    if encodings.any(|encoding| !same(encoding, b"identity")) {
        return invalid("the body is compressed; send it without content-encoding");
    }
    let length = head.text("content-length").and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(Refusal::TooLarge { limit: Some(max) });
    }
    ContentType::of(head.headers.all("content-type"), path.below()).or_else(|refused| invalid(&refused.to_string()))
}

/// Whether some budget of the route is enforced, so that nothing may pass unaccounted.
pub(super) fn are_enforced(limits: &[Rc<Limit>]) -> bool {
    limits.iter().any(|limit| matches!(limit.mode, Mode::Enforce(_)))
}

/// The refusal of work whose usage is in no answer that passes here. `what` goes on in its message.
pub(super) fn usage_never_comes(what: &str, param: Option<&'static str>) -> Refusal {
    let message = format!(
        "The usage {what} never passes this gateway, and a token budget of this route counts all usage. Ask for \
        the answer at once, or have the operator set the TokenPolicy to mode Shadow."
    );
    Refusal::Invalid { message, param }
}

// === impl Head ===

impl<'a> Head<'a> {
    fn path(&self) -> Result<Path<'a>, Refusal> {
        let slash = if self.only_reads() { EscapedSlash::InModelName } else { EscapedSlash::Refused };
        let raw = self.text(":path").unwrap_or_default();
        Path::parse(raw, slash).map_err(|invalid| Refusal::Invalid { message: invalid.to_string(), param: None })
    }

    /// Whether no model could work for it, whatever it is sent to. A connection that becomes another protocol begins as if
    /// it read.
    fn asks_for_no_work(&self) -> bool {
        (self.only_reads() || self.text(":method") == Some("OPTIONS")) && self.headers.get("upgrade").is_none()
    }

    fn only_reads(&self) -> bool {
        matches!(self.text(":method"), Some("GET" | "HEAD"))
    }

    fn text(&self, name: &'static str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}
