//! Listeners of one port that cannot be told apart. The first of them is opened, the others are not.

use std::sync::Arc;

use crate::ir::Domain;
use crate::objects::Key;
use crate::status::{Finding, Reason};

use super::listener::{ListenerTls, OpenListener, Source};

#[derive(Debug)]
pub struct Conflict {
    reason: Reason,
    /// The listener that was there before.
    with: Arc<str>,
    of: Option<Key>,
}

/// How the connections of a port are told apart.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    /// By the Host header of their requests.
    Plain,
    /// By the name that a client asks for (SNI).
    Tls,
    /// It shares its port with all others, because theirs are of another transport.
    Udp,
    Other(&'a str),
}

/// The first open listener that the new one contradicts: one port has one way to tell connections apart, and each
/// hostname once.
pub fn find(open: &[OpenListener], (protocol, port, hostname): (&str, u16, &Domain)) -> Option<Conflict> {
    let conflict = |other: &OpenListener| {
        let (before, now) = (Way::of(&other.protocol), Way::of(protocol));
        if other.port != port || before == Way::Udp || now == Way::Udp {
            None
        } else if before != now {
            Some(Reason::ProtocolConflict)
        } else if other.hostname == *hostname {
            Some(Reason::HostnameConflict)
        } else {
            None
        }
    };
    open.iter().find_map(|other| {
        let reason = conflict(other)?;
        Some(Conflict { reason, with: Arc::clone(&other.section), of: other.set.clone() })
    })
}

/// A listener for members of the mesh has its port alone. Their proxies ask for a name of their own making (SNI), by
/// which it could not be told apart.
pub fn of_mesh(open: &[OpenListener], tls: &ListenerTls, port: u16) -> Option<Conflict> {
    let other = open
        .iter()
        .find(|other| other.port == port && (*tls == ListenerTls::Mesh || other.tls == ListenerTls::Mesh))?;
    Some(Conflict { reason: Reason::ProtocolConflict, with: Arc::clone(&other.section), of: other.set.clone() })
}

// === impl Conflict ===

impl Conflict {
    /// It names the other listener only within one object. Whoever brings a ListenerSet need not know what others have.
    pub fn finding(&self, source: &Source<'_>, field: &str) -> Finding {
        let other = if self.of.as_ref() == source.set {
            format!("listener `{}`", self.with)
        } else {
            "a listener that goes before it".to_owned()
        };
        let message = match self.reason {
            Reason::ProtocolConflict => format!("{other} has the port with another protocol"),
            _ => format!("{other} has the same port and hostname"),
        };
        source.error(self.reason, format!("{field}.port"), &message, "")
    }
}

// === impl Way ===

impl<'a> Way<'a> {
    fn of(protocol: &'a str) -> Self {
        match protocol {
            "HTTP" => Self::Plain,
            "HTTPS" | "TLS" => Self::Tls,
            "UDP" => Self::Udp,
            other => Self::Other(other),
        }
    }
}
