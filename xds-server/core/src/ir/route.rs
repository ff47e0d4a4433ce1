//! What a request must look like, and what is done with it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::status::Origin;

use super::Picker;

/// One match of one rule of one HTTPRoute or GRPCRoute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// The rule; its section is `rule <i>`.
    pub origin: Origin,
    /// The places of its rule and of its match in the object.
    #[serde(skip)]
    pub place: (usize, usize),
    #[serde(rename = "match")]
    pub matches: Match,
    #[serde(skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    #[serde(skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Box<Rewrite>>,
    /// The timeouts of the whole request, and of one attempt.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::optional_duration")]
    pub request_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::optional_duration")]
    pub attempt_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Box<Cors>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<Session>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub mirrors: Box<[Mirror]>,
    pub action: Action,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Match {
    pub path: PathMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub headers: Box<[HeaderMatch]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub query: Box<[HeaderMatch]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PathMatch {
    Exact(String),
    /// Matches whole segments. It has no trailing slash unless it is `/`.
    Prefix(String),
    Regex(String),
    /// A gRPC call, and nothing else. What is absent may be anything.
    Call {
        #[serde(skip_serializing_if = "Option::is_none")]
        service: Option<TextMatch>,
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<TextMatch>,
    },
}

/// A match of a header or of a query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    pub name: String,
    pub value: TextMatch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TextMatch {
    Exact(String),
    Regex(String),
}

/// What is done to headers. Most routes do nothing to them, and then it takes no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HeaderEdits(Option<Box<Edits>>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Edits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PathRewrite {
    Full(String),
    /// Takes the place of the matched prefix.
    Prefix(String),
}

/// When a request is sent again, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Besides the first one.
    pub attempts: u32,
    /// Statuses of answers after which there is another attempt. There is one after a failed connection too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::optional_duration")]
    pub backoff: Option<Duration>,
}

/// What browsers may do for pages of other origins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cors {
    pub origins: Vec<OriginMatch>,
    /// `*` alone for any; the same for headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed_headers: Vec<String>,
    pub credentials: bool,
    /// How long a browser may remember it.
    pub seconds: u32,
}

/// Requests of one session go to the same endpoint of a Service while it is there. What a client must bring back says which
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Session {
    Cookie {
        name: String,
        /// The paths that a client brings it back for.
        path: String,
        /// None: until the client's own session ends.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::optional_duration")]
        lifetime: Option<Duration>,
    },
    Header {
        name: String,
    },
}

/// An origin is a scheme, a host, and a port unless it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum OriginMatch {
    Any,
    Exact(String),
    /// Anything may stand between the two.
    Around(String, String),
}

/// Requests are sent to a Service as well, and its answers go nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Cluster name.
    pub service: String,
    /// How many of a million requests.
    pub share: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Action {
    /// The filter chooses model and backend.
    Pool {
        /// `namespace/name`.
        pool: String,
        /// Ids of the limits that hold for it.
        limits: Vec<String>,
        /// The refused TokenPolicy (`namespace/name`) that was meant for this route. While there is one, nobody is let
        /// through.
        #[serde(skip_serializing_if = "Option::is_none")]
        closed_by: Option<String>,
    },
    Services {
        services: Vec<WeightedService>,
        /// The weight of references that cannot be used. Their share of requests is answered with an error.
        invalid: u32,
    },
    Redirect(Box<Redirect>),
    /// Answered by the proxy itself.
    Fail {
        status: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightedService {
    /// Cluster name.
    pub service: String,
    pub weight: u32,
    /// Its connections may be upgraded to WebSocket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub websocket: bool,
    /// Present: it is asked for an endpoint first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picker: Option<Arc<Picker>>,
    #[serde(skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    #[serde(skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redirect {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Absent: the port of the given scheme, or the listener's port if no scheme is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    pub status: u16,
}

/// What all requests have in common that go to one pool under the same limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Class {
    /// See [`Action::Pool`]. None: they go where they would go without us, as in the sidecar of a runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    pub limits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
}

// === impl Route ===

impl Route {
    /// `httproute/<namespace>/<name>/rule/<i>/match/<j>`, or the same with `grpcroute`. In Envoy its class may stand
    /// before that.
    pub fn name(&self) -> String {
        let (Origin { namespace, name, .. }, (rule, number)) = (&self.origin, self.place);
        let kind = if self.is_of_calls() { "grpcroute" } else { "httproute" };
        format!("{kind}/{namespace}/{name}/rule/{rule}/match/{number}")
    }

    /// Whether it is of a GRPCRoute.
    pub fn is_of_calls(&self) -> bool {
        matches!(self.matches.path, PathMatch::Call { .. })
    }
}

/// The status of requests for which nobody is there. Envoy makes UNAVAILABLE of it for a call, as
/// GRPCRouteRule.backendRefs has it, and of 500 it does not.
pub fn nobody_there(is_call: bool) -> u16 {
    if is_call { 503 } else { 500 }
}

// === impl Class ===

impl Class {
    /// None: the action leads to no pool.
    pub fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Pool { pool, limits, closed_by } => {
                Some(Self { pool: Some(pool.clone()), limits: limits.clone(), closed_by: closed_by.clone() })
            }
            Action::Services { .. } | Action::Redirect(_) | Action::Fail { .. } => None,
        }
    }
}

// === impl Action ===

impl Action {
    /// Ids of the limits that hold for requests with this action.
    pub fn limits(&self) -> &[String] {
        match self {
            Self::Pool { limits, .. } => limits,
            Self::Services { .. } | Self::Redirect(_) | Self::Fail { .. } => &[],
        }
    }
}

// === impl HeaderEdits ===

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl From<Edits> for HeaderEdits {
    fn from(edits: Edits) -> Self {
        Self((edits != Edits::default()).then(|| Box::new(edits)))
    }
}

impl Deref for HeaderEdits {
    type Target = Edits;

    fn deref(&self) -> &Edits {
        static NONE: Edits = Edits { set: Vec::new(), add: Vec::new(), remove: Vec::new() };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

// === impl PathMatch ===

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}
