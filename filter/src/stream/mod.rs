//! Envoy's callbacks for one stream, in the core's words. What a callback means depends on what the exchange wants.
//! What it does not want is not fetched, because each host call costs microseconds.
//!
//! The adapter in `envoy` passes callbacks to [`Connection`], [`Downstream`] and [`Upstream`] and carries out what they
//! return. It decides nothing.

mod connection;
mod downstream;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod identity_test;
#[cfg(test)]
mod jwt_test;
#[cfg(test)]
mod tests;
mod upstream;

pub use connection::{Close, Connection};
pub use downstream::Downstream;
pub use upstream::{Order, Upstream};

use crate::{headers::Headers, host::RequestBody};

/// A callback of Envoy for a stream or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// There is a new connection, and nothing came on it yet.
    Connected,
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
    /// The stream is over, whoever ended it. Attempts and connections do not get this.
    Log,
    /// The stream, or the connection, is about to be deleted.
    Done,
    /// From the root: the ledger has answered.
    LedgerAnswered,
    /// From the root: time has passed.
    Tick,
}

/// What Envoy knows of a stream or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Property {
    /// The address and port of the client's side of a connection.
    Source,
    /// The name of Envoy's route.
    Route,
    /// The name of the filter chain of the client's connection.
    FilterChain,
    /// The first URI in the client's certificate.
    ClientUri,
    /// What filters before this one have noted of the request: Envoy's dynamic metadata, encoded.
    Metadata,
    /// Who made the answer, and why.
    CodeDetails,
    /// The cluster of the last attempt.
    Cluster,
    /// The local address of the last attempt's connection. There is none before it is connected.
    UpstreamConnection,
    /// The number of attempts so far, as eight bytes.
    AttemptNumber,
    /// Filter state: where the attempts go.
    Plan,
    /// Filter state: how earlier attempts failed.
    Failures,
    /// The name of this proxy: Envoy's node id.
    Node,
}

/// A stream as Envoy holds it.
pub trait StreamHost: RequestBody {
    fn request_headers(&self) -> Headers;
    fn answer_headers(&self) -> Headers;
    fn property(&self, property: Property) -> Option<Vec<u8>>;
    /// So many bytes of the answer's current chunk from `start` on, or as many as there are.
    fn chunk(&self, start: usize, len: usize) -> Vec<u8>;
}

/// A property that is text, and not empty.
pub fn text(host: &dyn StreamHost, property: Property) -> Option<String> {
    host.property(property).and_then(|value| String::from_utf8(value).ok()).filter(|value| !value.is_empty())
}

fn number(host: &dyn StreamHost, property: Property) -> Option<u64> {
    host.property(property).map(|value| crate::host::read_u64(&value))
}

/// Whether the last attempt had a connection, so that a backend had it.
fn connected(host: &dyn StreamHost) -> bool {
    host.property(Property::UpstreamConnection).is_some_and(|address| !address.is_empty())
}
