//! Envoy's callbacks for one stream, in the core's words. What a callback means depends on what the exchange
//! wants; what it does not want is not fetched, because each kind of host call costs microseconds.
//!
//! The adapter in `envoy` forwards callbacks to [`Downstream`] and [`Upstream`] and applies their effects;
//! it decides nothing.

mod downstream;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
mod upstream;

pub use downstream::Downstream;
pub use upstream::{Order, Upstream};

use crate::host::RequestBody;

/// Headers in the order in which Envoy has them.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A callback of Envoy for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    RequestHeaders {
        end: bool,
    },
    RequestBody {
        end: bool,
    },
    RequestTrailers,
    AnswerHeaders {
        end: bool,
    },
    AnswerBody {
        size: usize,
        end: bool,
    },
    /// The stream is over, whoever ended it.
    Log,
    /// The root: the ledger has answered.
    LedgerAnswered,
    /// The root: time has passed.
    Tick,
}

/// What Envoy knows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Property {
    /// Envoy's route.
    Route,
    /// Who made the answer, and why.
    CodeDetails,
    /// The cluster of the last attempt.
    Cluster,
    /// Our end of the connection of the last attempt; there is none before it is connected.
    UpstreamConnection,
    /// How many attempts there were, as eight bytes.
    AttemptNumber,
    /// Filter state: where the attempts go.
    Plan,
    /// Filter state: how earlier attempts failed.
    Failures,
    /// Name of this proxy.
    Node,
}

/// A stream as Envoy holds it.
pub trait StreamHost: RequestBody {
    fn request_headers(&self) -> Headers;
    fn answer_headers(&self) -> Headers;
    fn property(&self, property: Property) -> Option<Vec<u8>>;
    /// So many bytes of the current chunk of the answer, or what there is.
    fn chunk(&self, start: usize, len: usize) -> Vec<u8>;
}

fn text(host: &dyn StreamHost, property: Property) -> Option<String> {
    host.property(property).and_then(|value| String::from_utf8(value).ok()).filter(|value| !value.is_empty())
}

fn number(host: &dyn StreamHost, property: Property) -> Option<u64> {
    host.property(property).map(|value| crate::host::read_u64(&value))
}

/// The last attempt had a connection, so a backend had it.
fn connected(host: &dyn StreamHost) -> bool {
    host.property(Property::UpstreamConnection).is_some_and(|address| !address.is_empty())
}
