//! The edge where the control plane's configuration comes in. Behind it there are only valid values: indexes are
//! resolved to shared parts, names are found, weights are finite. A configuration with a mistake is refused as a whole,
//! and the last good one goes on serving.

mod by_name;
mod caller;
mod claims;
mod known;
mod pool;
mod workload;

use std::rc::Rc;

use prost::Message as _;
use thiserror::Error;
use tollgate_proto::{jwt::MAX_SETS, v1 as wire};

pub use by_name::ByName;
pub use claims::{ClaimSet, Claims};
pub use known::Known;
pub use pool::{Access, Backend, Model, ModelName, Namespaces, Pool, Rewrite, Target};
pub use workload::Workload;

/// The configuration of one root context.
#[derive(Debug)]
pub struct Config {
    pub stage: Stage,
}

/// Where in Envoy the filter stands.
#[derive(Debug)]
pub enum Stage {
    Request(RequestStage),
    Attempt(AttemptStage),
    Connection(ConnectionStage),
}

/// Downstream, where requests are decided about and counted.
#[derive(Debug)]
pub struct RequestStage {
    pub control_cluster: String,
    pub place: Place,
    /// By the id that stands in the names of Envoy's routes.
    pub classes: ByName<Class>,
    pub claims: Claims,
    pub max_body_bytes: usize,
    /// Whether Envoy's access logs and spans are told what is known of each request.
    pub tells_fields: bool,
}

/// Whose proxy it is.
#[derive(Debug)]
pub enum Place {
    /// A Gateway's. Its routes say what a request is for.
    Gateway {
        /// Whether some filter chains take members of a mesh alone.
        has_members: bool,
    },
    /// The sidecar of a workload. Every request is to that.
    Workload(Workload),
    /// The sidecar of a caller. Every request is to one Service, and its backend is chosen here.
    Caller(Rc<Class>),
}

/// Upstream: the backend that each attempt is rewritten for, by cluster.
#[derive(Debug)]
pub struct AttemptStage {
    pub backends: ByName<Backend>,
}

/// Downstream, before a connection has a request.
#[derive(Debug)]
pub struct ConnectionStage {
    /// The most connections of one source address to all workers together.
    pub max_per_source: u32,
}

/// What all routes have in common that lead to one pool under the same limits.
#[derive(Debug, Clone)]
pub enum Class {
    /// A TokenPolicy that names these routes is refused: nobody passes until it is mended.
    Closed {
        policy: String,
    },
    Open(Rc<Terms>),
}

/// Where a request may go, and what it is held to.
#[derive(Debug)]
pub struct Terms {
    pub pool: Rc<Pool>,
    pub limits: Vec<Rc<Limit>>,
}

#[derive(Debug)]
pub struct Limit {
    pub id: Rc<str>,
    pub scope: Vec<ScopePart>,
    pub count: Weights,
    pub mode: Mode,
    pub on_early_end: EarlyEnd,
}

/// What a request costs if its usage never became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyEnd {
    /// The estimate.
    Estimate,
    /// The estimate, but at least what was reserved.
    Reservation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The limit counts and reports, and never refuses.
    Shadow,
    Enforce(WithoutLedger),
}

/// What happens to a request that needs the ledger while it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutLedger {
    Deny,
    Allow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopePart {
    Consumer,
    Model,
    Route,
    Label(String),
    /// The value of a claim of the JWT that Envoy has verified.
    Claim(String),
}

/// tokens = ceil(max(0, constant + input*in + output*out + cached*cached_in + reasoning*reasoning_out))
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    pub constant: f64,
    pub input: f64,
    pub output: f64,
    pub cached: f64,
    pub reasoning: f64,
}

/// The metadata by which a call says for which workload it is made (`proto/policy.proto`).
const SCOPE: &str = "tollgate-scope";

/// Why a configuration is refused. The text reaches the control plane in Envoy's NACK.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidConfig {
    #[error("the plugin configuration is not a FilterConfig (hint: it must be a BytesValue of the encoded message)")]
    Encoding,
    #[error("the filter configuration has no stage (hint: control plane and filter are of different versions)")]
    NoStage,
    #[error("{what} is missing in {place} (hint: control plane and filter are of different versions)")]
    Missing { what: &'static str, place: String },
    #[error("{place} names {what} {index}, but there are only {len}")]
    Dangling { what: &'static str, place: String, index: u32, len: usize },
    #[error("{what} {name:?} occurs twice")]
    Twice { what: &'static str, name: String },
    #[error("there are {0} sets of claims, and at most {MAX_SETS} are looked at")]
    ClaimSets(usize),
    #[error("limit {0:?} has a count weight that is not a finite number")]
    Weight(String),
}

/// Reads the bytes of a `FilterConfig`.
pub fn parse(bytes: &[u8]) -> Result<Config, InvalidConfig> {
    wire::FilterConfig::decode(bytes).map_err(|_| InvalidConfig::Encoding)?.try_into()
}

// === impl RequestStage ===

impl RequestStage {
    /// Whether it has keys and budgets.
    pub fn needs_control_plane(&self) -> bool {
        !matches!(self.place, Place::Caller(_))
    }

    /// How many bytes of a body Envoy holds at least. None: the listener is not ours.
    pub fn envoy_holds(&self) -> Option<usize> {
        match self.place {
            Place::Gateway { .. } => Some(self.max_body_bytes),
            Place::Workload(_) | Place::Caller(_) => None,
        }
    }

    /// What each call to the control plane carries besides its message.
    pub fn metadata(&self) -> Vec<(&str, &[u8])> {
        match &self.place {
            Place::Gateway { .. } | Place::Caller(_) => Vec::new(),
            Place::Workload(workload) => vec![(SCOPE, workload.scope.as_bytes())],
        }
    }
}

// === impl Config ===

impl TryFrom<wire::FilterConfig> for Config {
    type Error = InvalidConfig;

    fn try_from(config: wire::FilterConfig) -> Result<Self, InvalidConfig> {
        let stage = match config.stage.ok_or(InvalidConfig::NoStage)? {
            wire::filter_config::Stage::Request(stage) => Stage::Request(stage.try_into()?),
            wire::filter_config::Stage::Attempt(stage) => Stage::Attempt(stage.try_into()?),
            wire::filter_config::Stage::Connection(stage) => Stage::Connection(stage.try_into()?),
        };
        Ok(Self { stage })
    }
}

impl TryFrom<wire::RequestStage> for RequestStage {
    type Error = InvalidConfig;

    fn try_from(stage: wire::RequestStage) -> Result<Self, InvalidConfig> {
        let place = || "the request stage".to_owned();
        if stage.control_cluster.is_empty() && !stage.in_callers {
            return Err(InvalidConfig::Missing { what: "control_cluster", place: place() });
        }
        if stage.max_body_bytes == 0 {
            return Err(InvalidConfig::Missing { what: "max_body_bytes", place: place() });
        }
        let (max_body_bytes, tells_fields) = (stage.max_body_bytes as usize, stage.tells_fields);
        if stage.in_callers {
            let place = Place::Caller(caller::class(stage)?);
            return Ok(Self {
                control_cluster: String::new(),
                place,
                classes: ByName::empty(),
                claims: Claims::default(),
                max_body_bytes,
                tells_fields,
            });
        }
        let backends = all::<_, Backend>(stage.backends)?;
        let limits = all::<_, Limit>(stage.limits)?;
        let claims = Claims::new(stage.claim_sets, &limits)?;
        let (place, classes) = match stage.workload {
            Some(workload) => (Place::Workload(Workload::new(workload, stage.classes, &limits)?), Vec::new()),
            None => {
                let pools = stage.pools.into_iter().map(|pool| Pool::new(pool, &backends).map(Rc::new));
                let pools = pools.collect::<Result<Vec<_>, _>>()?;
                let classes = stage.classes.into_iter().map(|class| {
                    let id = class.id.clone();
                    Ok((id, Rc::new(Class::new(class, &pools, &limits)?)))
                });
                let classes = classes.collect::<Result<_, InvalidConfig>>()?;
                (Place::Gateway { has_members: stage.has_members }, classes)
            }
        };
        Ok(Self {
            control_cluster: stage.control_cluster,
            place,
            classes: ByName::new("class", classes)?,
            claims,
            max_body_bytes,
            tells_fields,
        })
    }
}

impl TryFrom<wire::AttemptStage> for AttemptStage {
    type Error = InvalidConfig;

    fn try_from(stage: wire::AttemptStage) -> Result<Self, InvalidConfig> {
        let backends = all::<_, Backend>(stage.backends)?;
        let backends = backends.into_iter().map(|backend| (backend.cluster.to_string(), backend));
        let backends = ByName::new("cluster", backends.collect())?;
        Ok(Self { backends })
    }
}

impl TryFrom<wire::ConnectionStage> for ConnectionStage {
    type Error = InvalidConfig;

    fn try_from(stage: wire::ConnectionStage) -> Result<Self, InvalidConfig> {
        if stage.max_per_source == 0 {
            let place = "the connection stage".to_owned();
            return Err(InvalidConfig::Missing { what: "max_per_source", place });
        }
        Ok(Self { max_per_source: stage.max_per_source })
    }
}

/// Where something is wrong. Once for all, because it is code of every Envoy.
#[inline(never)]
fn named(kind: &str, name: &str) -> String {
    format!("{kind} {name:?}")
}

impl Class {
    fn new(class: wire::Class, pools: &[Rc<Pool>], limits: &[Rc<Limit>]) -> Result<Self, InvalidConfig> {
        let place = || named("class", &class.id);
        if class.id.is_empty() {
            return Err(InvalidConfig::Missing { what: "id", place: "a class".to_owned() });
        }
        let pool = class.pool.ok_or_else(|| InvalidConfig::Missing { what: "pool", place: place() })?;
        let pool = at("pool", place, pools, pool)?;
        Self::with_pool(pool, class, limits)
    }

    fn with_pool(pool: Rc<Pool>, class: wire::Class, limits: &[Rc<Limit>]) -> Result<Self, InvalidConfig> {
        let place = || named("class", &class.id);
        let held_to = class.limits.iter().map(|index| at("limit", place, limits, *index));
        let terms = Terms { pool, limits: held_to.collect::<Result<_, _>>()? };
        Ok(if class.closed_by.is_empty() {
            Self::Open(Rc::new(terms))
        } else {
            Self::Closed { policy: class.closed_by }
        })
    }
}

impl TryFrom<wire::Limit> for Limit {
    type Error = InvalidConfig;

    fn try_from(limit: wire::Limit) -> Result<Self, InvalidConfig> {
        let missing = |what| InvalidConfig::Missing { what, place: named("limit", &limit.id) };
        if limit.id.is_empty() {
            return Err(missing("id"));
        }
        let count = limit.count.ok_or_else(|| missing("count"))?;
        let weights = [count.constant, count.input, count.output, count.cached, count.reasoning];
        if !weights.iter().all(|weight| weight.is_finite()) {
            return Err(InvalidConfig::Weight(limit.id));
        }
        let scope = limit
            .scope
            .iter()
            .map(|part| match &part.part {
                Some(wire::scope_part::Part::Consumer(_)) => Ok(ScopePart::Consumer),
                Some(wire::scope_part::Part::Model(_)) => Ok(ScopePart::Model),
                Some(wire::scope_part::Part::Route(_)) => Ok(ScopePart::Route),
                Some(wire::scope_part::Part::Label(key)) => Ok(ScopePart::Label(key.clone())),
                Some(wire::scope_part::Part::Claim(name)) => Ok(ScopePart::Claim(name.clone())),
                None => Err(missing("scope part")),
            })
            .collect::<Result<_, _>>()?;
        let on_early_end = match limit.on_early_end() {
            wire::EarlyEnd::Estimate => EarlyEnd::Estimate,
            wire::EarlyEnd::Reservation => EarlyEnd::Reservation,
            wire::EarlyEnd::Unspecified => return Err(missing("on_early_end")),
        };
        Ok(Self {
            id: limit.id.as_str().into(),
            scope,
            on_early_end,
            count: Weights {
                constant: count.constant,
                input: count.input,
                output: count.output,
                cached: count.cached,
                reasoning: count.reasoning,
            },
            mode: match (limit.shadow, limit.allow_without_ledger) {
                (true, _) => Mode::Shadow,
                (false, true) => Mode::Enforce(WithoutLedger::Allow),
                (false, false) => Mode::Enforce(WithoutLedger::Deny),
            },
        })
    }
}

fn all<W, T: TryFrom<W, Error = InvalidConfig>>(wires: Vec<W>) -> Result<Vec<Rc<T>>, InvalidConfig> {
    wires.into_iter().map(|wire| T::try_from(wire).map(Rc::new)).collect()
}

fn at<T>(what: &'static str, place: impl Fn() -> String, items: &[Rc<T>], index: u32) -> Result<Rc<T>, InvalidConfig> {
    items.get(index as usize).cloned().ok_or_else(|| InvalidConfig::Dangling {
        what,
        place: place(),
        index,
        len: items.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> wire::Backend {
        wire::Backend { name: "a".into(), cluster: "backend/default/a".into(), ..Default::default() }
    }

    fn stage() -> wire::RequestStage {
        wire::RequestStage {
            control_cluster: "tollgate_control".into(),
            classes: vec![wire::Class { id: "c".into(), pool: Some(0), ..Default::default() }],
            pools: vec![wire::Pool {
                name: "chat".into(),
                access: wire::Access::Required.into(),
                models: vec![wire::Model {
                    name: "smol".into(),
                    targets: vec![wire::Target { weight: 1, ..Default::default() }],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            backends: vec![backend()],
            limits: vec![],
            max_body_bytes: 1000,
            has_members: false,
            workload: None,
            in_callers: false,
            claim_sets: Vec::new(),
            tells_fields: false,
        }
    }

    fn parsed(stage: wire::RequestStage) -> Result<Config, InvalidConfig> {
        let config = wire::FilterConfig { stage: Some(wire::filter_config::Stage::Request(stage)) };
        parse(&config.encode_to_vec())
    }

    #[test]
    fn a_good_configuration_is_taken() {
        let config = parsed(stage()).unwrap();
        let Stage::Request(stage) = config.stage else { panic!("{config:?}") };
        let Class::Open(terms) = &**stage.classes.get("c").unwrap() else { panic!("{stage:?}") };
        assert_eq!((terms.pool.models.len(), terms.limits.len()), (1, 0));
    }

    #[test]
    fn what_points_nowhere_is_refused() {
        let refused = |change: fn(&mut wire::Class)| {
            let mut bad = stage();
            change(&mut bad.classes[0]);
            parsed(bad).unwrap_err()
        };
        let dangling = |what, index, len| InvalidConfig::Dangling { what, place: "class \"c\"".into(), index, len };
        assert_eq!(refused(|class| class.pool = Some(1)), dangling("pool", 1, 1));
        assert_eq!(refused(|class| class.limits = vec![0]), dangling("limit", 0, 0));
        let missing = |what, place: &str| InvalidConfig::Missing { what, place: place.into() };
        assert_eq!(refused(|class| class.pool = None), missing("pool", "class \"c\""));
        assert_eq!(refused(|class| class.id.clear()), missing("id", "a class"));
    }

    #[test]
    fn a_class_that_a_policy_closes_lets_nobody_pass() {
        let mut closed = stage();
        closed.classes[0].closed_by = "default/p".into();
        let Stage::Request(stage) = parsed(closed).unwrap().stage else { panic!() };
        assert!(matches!(&**stage.classes.get("c").unwrap(), Class::Closed { policy } if policy == "default/p"));
    }

    #[test]
    fn one_id_means_one_class() {
        let mut bad = stage();
        bad.classes.push(bad.classes[0].clone());
        assert_eq!(parsed(bad).unwrap_err(), InvalidConfig::Twice { what: "class", name: "c".into() });
    }

    #[test]
    fn a_limit_of_connections_is_taken_and_none_is_no_limit_that_could_be_meant() {
        let parsed = |max_per_source| {
            let stage = wire::filter_config::Stage::Connection(wire::ConnectionStage { max_per_source });
            parse(&wire::FilterConfig { stage: Some(stage) }.encode_to_vec())
        };
        let Stage::Connection(stage) = parsed(7).unwrap().stage else { panic!() };
        assert_eq!(stage.max_per_source, 7);
        let missing = InvalidConfig::Missing { what: "max_per_source", place: "the connection stage".into() };
        assert_eq!(parsed(0).unwrap_err(), missing);
    }

    #[test]
    fn what_is_not_said_is_refused() {
        let mut bad = stage();
        bad.pools[0].access = 0;
        assert!(matches!(parsed(bad), Err(InvalidConfig::Missing { what: "access", .. })));
        assert_eq!(parse(&[]).unwrap_err(), InvalidConfig::NoStage);
        assert!(matches!(parse(b"\xff\xff"), Err(InvalidConfig::Encoding)));
    }

    #[test]
    fn weights_are_finite() {
        let mut bad = stage();
        bad.limits = vec![wire::Limit {
            id: "default/p/daily".into(),
            count: Some(wire::CountWeights { input: f64::NAN, ..Default::default() }),
            ..Default::default()
        }];
        assert_eq!(parsed(bad).unwrap_err(), InvalidConfig::Weight("default/p/daily".into()));
    }
}
