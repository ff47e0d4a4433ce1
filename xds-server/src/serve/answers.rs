//! The responses of a discovery stream as the body of its HTTP answer.
//!
//! Each resource is encoded when the proxy takes it. The first response to an Envoy may have all hostnames in it, and a
//! gRPC library would hold it whole, more than once.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use http_body::Frame;
use prost::Message as _;
use tokio::sync::mpsc;
use tollgate_core::snapshot::ResourceType;
use tollgate_core::subscription::{Contents, Response};
use tonic::Status;

use super::wire::Wire;

/// About this many bytes are encoded at once. HTTP/2 has as many in a frame, if nobody asks for larger ones.
const CHUNK: usize = 16 << 10;

/// The body: a gRPC message for each response, and in the end the status.
pub struct Answers<W> {
    responses: mpsc::Receiver<Result<Response, Status>>,
    state: State<W>,
}

enum State<W> {
    Idle,
    Writing(Message<W>),
    Ended,
}

/// What is left to write of a response.
struct Message<W> {
    kind: ResourceType,
    /// The prefix and the head, until they are written.
    start: Vec<u8>,
    resources: Contents,
    written: Written,
    wire: PhantomData<W>,
}

enum Written {
    Nothing,
    /// The resource of this name, and all before it.
    Until(Arc<str>),
}

// === impl Answers ===

impl<W: Wire> Answers<W> {
    pub fn new(responses: mpsc::Receiver<Result<Response, Status>>) -> Self {
        Self { responses, state: State::Idle }
    }
}

impl<W: Wire + Unpin> HttpBody for Answers<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            match &mut self.state {
                State::Writing(message) => match message.next() {
                    Some(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    None => self.state = State::Idle,
                },
                State::Idle => match ready!(self.responses.poll_recv(context)) {
                    Some(Ok(response)) => self.state = State::Writing(Message::new(response)),
                    Some(Err(status)) => return self.end(&status),
                    None => return self.end(&Status::ok("")),
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl<W> Answers<W> {
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.state = State::Ended;
        let mut trailers = HeaderMap::new();
        // A message that is no header is left out. The code is one always.
        let _left_out = status.add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

// === impl Message ===

impl<W: Wire> Message<W> {
    fn new(response: Response) -> Self {
        let head = W::head(&response);
        let parts = response.resources.iter();
        let parts_len = parts.map(|(name, resource)| W::part(response.kind, name, resource).encoded_len());
        let length = head.encoded_len() + parts_len.sum::<usize>();
        // gRPC over HTTP/2, Length-Prefixed-Message: it is not compressed, and its length has four bytes.
        let mut start = vec![0];
        start.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        start.extend(head.encode_to_vec());
        Self { kind: response.kind, start, resources: response.resources, written: Written::Nothing, wire: PhantomData }
    }

    fn next(&mut self) -> Option<Bytes> {
        let from = match &self.written {
            Written::Nothing => Bound::Unbounded,
            Written::Until(name) => Bound::Excluded(Arc::clone(name)),
        };
        let mut chunk = std::mem::take(&mut self.start);
        for (name, resource) in self.resources.range((from, Bound::Unbounded)) {
            if chunk.len() >= CHUNK {
                break;
            }
            chunk.extend(W::part(self.kind, name, resource).encode_to_vec());
            self.written = Written::Until(Arc::clone(name));
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use envoy_types::pb::google::protobuf::Any;
    use tollgate_core::snapshot::Resource;

    use super::super::wire::{Delta, StateOfTheWorld};
    use super::*;

    fn response(resources: usize) -> Response {
        let resource = |index: usize| {
            let message = Any { type_url: format!("t/{index}"), value: vec![1; index] };
            (format!("name-{index}").into(), Arc::new(Resource::new(&message, [])))
        };
        Response {
            kind: ResourceType::Cluster,
            nonce: "7".to_owned(),
            resources: Arc::new((0..resources).map(resource).collect()),
            removed: BTreeSet::from(["gone".into()]),
        }
    }

    /// The chunks of a message, after a look at its prefix.
    fn message<W: Wire>(response: Response) -> (usize, W::Response) {
        let mut message = Message::<W>::new(response);
        let chunks: Vec<Bytes> = std::iter::from_fn(|| message.next()).collect();
        let bytes = chunks.concat();
        let (prefix, bytes) = bytes.split_at(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, bytes.len());
        (chunks.len(), W::Response::decode(bytes).unwrap())
    }

    #[test]
    fn the_parts_in_a_row_are_the_message() {
        let (chunks, whole) = message::<Delta>(response(400));
        assert!(chunks > 2, "{chunks}");
        let (named, again) = (response(400), message::<Delta>(response(400)).1);
        assert_eq!((whole.nonce.as_str(), whole.removed_resources.as_slice()), ("7", ["gone".to_owned()].as_slice()));
        assert_eq!(whole.type_url, ResourceType::Cluster.type_url());
        assert_eq!(whole.system_version_info, again.system_version_info);
        let expected = named.resources.iter().map(|(name, resource)| {
            (name.to_string(), resource.version.to_string(), resource.content.bytes().into_owned())
        });
        let found = whole.resources.iter().map(|resource| {
            let any = resource.resource.as_ref().unwrap();
            assert_eq!(any.type_url, ResourceType::Cluster.type_url());
            (resource.name.clone(), resource.version.clone(), any.value.clone())
        });
        assert!(found.eq(expected));

        let (_, whole) = message::<StateOfTheWorld>(response(400));
        assert_eq!((whole.nonce.as_str(), whole.resources.len()), ("7", 400));
        assert!(
            whole
                .resources
                .iter()
                .map(|any| any.value.clone())
                .eq(named.resources.values().map(|each| each.content.bytes().into_owned()))
        );
        assert!(!whole.version_info.is_empty());
    }

    #[test]
    fn a_message_without_resources_is_its_head() {
        let (chunks, whole) = message::<Delta>(response(0));
        assert_eq!((chunks, whole.removed_resources.len()), (1, 1));
    }
}
