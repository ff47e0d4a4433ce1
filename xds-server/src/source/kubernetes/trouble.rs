//! What goes wrong between us and the API server, in words that say what to do about it.

use std::fmt;

use kube::core::Status;
use kube::runtime::watcher;
use tollgate_core::objects::redact;
use tollgate_core::status::{Finding, Reason, Severity};

use super::Name;
use super::kinds::Watched;

/// One thing that went wrong with a watch, or with getting a Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kind, and where.
    what: Name,
    /// As rules of RBAC name it.
    resource: Name,
    pub cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The API server does not know the kind: its CRD is not there (yet).
    NotServed,
    /// Nobody lets us.
    Denied(Verb),
    /// The API server does not know us.
    Unknown,
    /// There is no API server, or it is not ready.
    Unreachable,
    /// The watch was away for too long. Everything is listed again.
    Gap,
    Other(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
}

// === impl Trouble ===

impl Trouble {
    pub fn of_watch(watched: &Watched, error: &watcher::Error) -> Self {
        use watcher::Error;
        let cause = match error {
            Error::InitialListFailed(error) => Cause::of(error, Verb::List),
            Error::WatchStartFailed(error) | Error::WatchFailed(error) => Cause::of(error, Verb::Watch),
            Error::WatchError(status) => Cause::of_status(status, Verb::Watch),
            error @ Error::NoResourceVersion => Cause::Other(error.to_string()),
        };
        Self::new(watched, cause)
    }

    pub fn of_get(watched: &Watched, error: &kube::Error) -> Self {
        Self::new(watched, Cause::of(error, Verb::Get))
    }

    pub fn of_list(watched: &Watched, error: &kube::Error) -> Self {
        Self::new(watched, Cause::of(error, Verb::List))
    }

    pub fn new(watched: &Watched, cause: Cause) -> Self {
        let what = format!("{}{}", watched.kind, watched.place());
        Self { what: what.into(), resource: watched.resource().into(), cause }
    }

    /// Whether it mends itself at once.
    pub fn is_gap(&self) -> bool {
        self.cause == Cause::Gap
    }

    /// None: it is nobody's business.
    pub fn finding(&self) -> Option<Finding> {
        let Self { what, resource, cause } = self;
        let (severity, reason, message, hint) = match cause {
            Cause::Gap => return None,
            Cause::NotServed => (
                Severity::Warning,
                Reason::UnsupportedKind,
                format!("the API server has no {resource}"),
                "install its CRD; until then there are none".to_owned(),
            ),
            Cause::Denied(verb) => (
                Severity::Error,
                Reason::Unreadable,
                format!("{what} may not be read: {verb} is forbidden"),
                format!("a role with get, list and watch of {resource}; what was read before stays"),
            ),
            Cause::Unknown => (
                Severity::Error,
                Reason::Unreadable,
                "the API server does not know who we are (401)".to_owned(),
                "check the credential of the kubeconfig, or the service account; what was read before stays".to_owned(),
            ),
            // One for all watches: they all have the same API server.
            Cause::Unreachable => (
                Severity::Error,
                Reason::Unreadable,
                "the API server does not answer".to_owned(),
                "what was read before stays".to_owned(),
            ),
            Cause::Other(error) => (
                Severity::Error,
                Reason::Unreadable,
                format!("{what} cannot be read: {}", redact::plain(error)),
                "what was read before stays".to_owned(),
            ),
        };
        Some(Finding { severity, reason, origin: None, spot: None, field: String::new(), message, hint })
    }
}

// === impl Cause ===

impl Cause {
    fn of(error: &kube::Error, verb: Verb) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status, verb),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => Self::Unreachable,
            kube::Error::Auth(_) => Self::Unknown,
            // What it quotes may be of a Secret.
            kube::Error::SerdeError(_) => Self::Other("the answer is no JSON that fits".to_owned()),
            other => Self::Other(other.to_string()),
        }
    }

    fn of_status(status: &Status, verb: Verb) -> Self {
        match status.code {
            401 => Self::Unknown,
            403 => Self::Denied(verb),
            404 => Self::NotServed,
            410 => Self::Gap,
            408 | 429 | 500..=599 => Self::Unreachable,
            code => Self::Other(format!("{code} {}", status.reason)),
        }
    }
}

// === impl Verb ===

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
        })
    }
}
