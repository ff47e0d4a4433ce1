//! One HTTP stream: a client's request, or one attempt at a backend.

use std::marker::PhantomData;

use tollgate_filter::{
    headers,
    host::RequestBody,
    stream::{Property, StreamHost},
};

use super::{OfStream, Scheduler};
use crate::abi::{Attribute, Body, Bytes, Envoys, Header, Headers, callbacks};

#[derive(Debug, Clone, Copy)]
pub struct Http<'a> {
    filter: Envoys,
    life: PhantomData<&'a ()>,
}

/// What the response details of our answers say.
const DETAILS: &[u8] = b"tollgate";

// === impl Http ===

impl Http<'_> {
    /// # Safety
    /// `filter` is Envoy's filter of an HTTP stream, and lives as long as this value. This is its thread.
    pub unsafe fn new(filter: Envoys) -> Self {
        Self { filter, life: PhantomData }
    }

    /// The same, for longer.
    ///
    /// # Safety
    /// As of [`Http::new`], for as long as it is kept.
    pub unsafe fn kept(self) -> Http<'static> {
        Http { filter: self.filter, life: PhantomData }
    }

    pub fn worker(self) -> usize {
        // SAFETY: the filter lives, as `new` was promised.
        let worker = unsafe { callbacks::http_worker(self.filter) };
        usize::try_from(worker).unwrap_or(usize::MAX)
    }

    pub fn scheduler(self) -> Scheduler<OfStream> {
        // SAFETY: the filter lives, as `new` was promised. The scheduler is new, and outlives its stream if need be.
        unsafe { Scheduler::new(callbacks::stream_scheduler(self.filter)) }
    }

    fn headers(self, which: Headers) -> headers::Headers {
        // SAFETY: the filter lives, as `new` was promised.
        let count = unsafe { callbacks::headers_count(self.filter, which) };
        let mut headers = vec![Header::NONE; count];
        // SAFETY: the filter lives, and there is room for as many headers as Envoy has just said.
        if !unsafe { callbacks::headers(self.filter, which, headers.as_mut_ptr()) } {
            return headers::Headers::default();
        }
        let bytes = headers.iter().map(|header| header.name.len.saturating_add(header.value.len)).sum();
        let mut copied = headers::Headers::with_capacity(count, bytes);
        for header in headers {
            // SAFETY: Envoy's headers stay as they are until one is set, which happens after this.
            let (name, value) = unsafe { (header.name.slice(), header.value.slice()) };
            copied.push(name, value);
        }
        copied
    }

    /// None: the header goes.
    pub fn set_header(self, which: Headers, name: &str, value: Option<&str>) {
        let value = value.map_or(Bytes::NONE, |value| Bytes::of(value.as_bytes()));
        // SAFETY: the filter lives, as `new` was promised, and both texts are ours.
        unsafe { callbacks::set_header(self.filter, which, Bytes::of(name.as_bytes()), value) };
    }

    /// Has Envoy look again to which cluster the route leads.
    pub fn choose_cluster_again(self) {
        // SAFETY: the filter lives, as `new` was promised.
        unsafe { callbacks::choose_cluster_again(self.filter) }
    }

    /// Sets the filter state `wasm.NAME`, under which routes find it whichever edge set it.
    pub fn set_state(self, name: &str, value: &[u8]) {
        let key = state_key(name);
        // SAFETY: the filter lives, as `new` was promised, and key and value are ours.
        unsafe { callbacks::set_state(self.filter, Bytes::of(key.as_bytes()), Bytes::of(value)) };
    }

    pub fn state(self, name: &str) -> Option<Vec<u8>> {
        let (key, mut value) = (state_key(name), Bytes::NONE);
        // SAFETY: the filter lives, as `new` was promised, and key and place are ours.
        let is_there = unsafe { callbacks::state(self.filter, Bytes::of(key.as_bytes()), &raw mut value) };
        // SAFETY: Envoy's value stays until it is set, which happens after this.
        is_there.then(|| unsafe { value.copied() })
    }

    fn text(self, attribute: Attribute) -> Option<Vec<u8>> {
        let mut value = Bytes::NONE;
        // SAFETY: the filter lives, as `new` was promised, and the place is ours.
        let is_there = unsafe { callbacks::attribute_text(self.filter, attribute as u32, &raw mut value) };
        // SAFETY: Envoy's text stays until this hook returns.
        is_there.then(|| unsafe { value.copied() })
    }

    fn number(self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the filter lives, as `new` was promised, and the place is ours.
        let is_there = unsafe { callbacks::attribute_number(self.filter, attribute as u32, &raw mut value) };
        is_there.then_some(value)
    }

    pub fn chunk_size(self) -> usize {
        // SAFETY: the filter lives, as `new` was promised.
        unsafe { callbacks::body_size(self.filter, Body::AnswerReceived) }
    }

    fn chunks(self, which: Body) -> Vec<Bytes> {
        // SAFETY: the filter lives, as `new` was promised.
        let count = unsafe { callbacks::body_chunks_count(self.filter, which) };
        let mut chunks = vec![Bytes::NONE; count];
        if count == 0 {
            return chunks;
        }
        // SAFETY: the filter lives, and there is room for as many chunks as Envoy has just said.
        let are_there = unsafe { callbacks::body_chunks(self.filter, which, chunks.as_mut_ptr()) };
        if are_there { chunks } else { Vec::new() }
    }

    /// What there is of the request's body, in two parts at most. They are one if another filter held the body before.
    fn request_parts(self) -> &'static [Body] {
        // SAFETY: the filter lives, as `new` was promised.
        let is_one = unsafe { callbacks::received_is_held(self.filter) };
        if is_one { &[Body::RequestReceived] } else { &[Body::RequestHeld, Body::RequestReceived] }
    }

    fn drain(self, which: Body) {
        // SAFETY: the filter lives, as `new` was promised. More than there is cannot be drained.
        unsafe { callbacks::drain_body(self.filter, which, usize::MAX) };
    }

    fn append(self, which: Body, bytes: &[u8]) -> bool {
        // SAFETY: the filter lives, as `new` was promised, and the bytes are ours.
        unsafe { callbacks::append_body(self.filter, which, Bytes::of(bytes)) }
    }

    /// Puts this in the place of all that there is of the request's body.
    pub fn set_request_body(self, body: &[u8]) {
        self.request_parts().iter().for_each(|part| self.drain(*part));
        // Nothing is received outside the body's own hook.
        let _ = self.append(Body::RequestReceived, body) || self.append(Body::RequestHeld, body);
    }

    pub fn set_chunk(self, bytes: &[u8]) {
        self.drain(Body::AnswerReceived);
        let _ = self.append(Body::AnswerReceived, bytes);
    }

    /// Lets a held request go on. Other hooks of this stream may run before this returns.
    pub fn resume(self) {
        // SAFETY: the filter lives, as `new` was promised.
        unsafe { callbacks::resume(self.filter) }
    }

    /// Answers. The end of this stream may come before this returns.
    pub fn reply(self, status: u32, headers: &[(&str, String)], body: &[u8]) {
        let mut list: Vec<Header> = headers.iter().map(|(name, value)| Header::of(name, value.as_bytes())).collect();
        let (first, count) = (list.as_mut_ptr(), list.len());
        // SAFETY: the filter lives, as `new` was promised, and all that is pointed to is ours and outlives the call.
        unsafe { callbacks::reply(self.filter, status, first, count, Bytes::of(body), Bytes::of(DETAILS)) }
    }
}

fn state_key(name: &str) -> String {
    format!("wasm.{name}")
}

impl RequestBody for Http<'_> {
    fn read(&self) -> Vec<u8> {
        let chunks = self.request_parts().iter().flat_map(|part| self.chunks(*part));
        let mut body = Vec::new();
        for chunk in chunks {
            // SAFETY: Envoy's bytes stay as they are until the body is set, which happens after this.
            body.extend_from_slice(unsafe { chunk.slice() });
        }
        body
    }
}

impl StreamHost for Http<'_> {
    fn request_headers(&self) -> headers::Headers {
        self.headers(Headers::Request)
    }

    fn answer_headers(&self) -> headers::Headers {
        self.headers(Headers::Answer)
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        match property {
            Property::Route => self.text(Attribute::RouteName),
            Property::FilterChain => self.text(Attribute::FilterChainName),
            Property::ClientUri => self.text(Attribute::ClientUri),
            Property::CodeDetails => self.text(Attribute::AnswerCodeDetails),
            Property::Cluster => self.text(Attribute::ClusterName),
            Property::UpstreamConnection => self.text(Attribute::UpstreamLocalAddress),
            Property::AttemptNumber => self.number(Attribute::AttemptCount).map(|count| count.to_le_bytes().to_vec()),
            Property::Plan => self.state("tollgate_plan"),
            Property::Failures => self.state("tollgate_failures"),
            Property::Node => Some(crate::node::id().to_owned().into_bytes()),
            // A connection's. And no callback gives nested metadata: a Gateway that asks for JWTs has the other edge.
            Property::Source | Property::Metadata => None,
        }
    }

    fn chunk(&self, start: usize, len: usize) -> Vec<u8> {
        let mut left_out = start;
        let mut bytes = Vec::with_capacity(len.min(self.chunk_size()));
        for chunk in self.chunks(Body::AnswerReceived) {
            // SAFETY: Envoy's bytes stay as they are until the chunk is set, which happens after this.
            let chunk = unsafe { chunk.slice() };
            let rest = chunk.get(left_out..).unwrap_or_default();
            left_out = left_out.saturating_sub(chunk.len());
            bytes.extend(rest.iter().take(len - bytes.len()));
        }
        bytes
    }
}
