//! One connection of a client.

use std::marker::PhantomData;

use tollgate_filter::{
    headers::Headers,
    host::RequestBody,
    stream::{Property, StreamHost},
};

use crate::abi::{Bytes, CLOSE_AFTER_WRITING, Envoys, callbacks};

#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    filter: Envoys,
    life: PhantomData<&'a ()>,
}

// === impl Peer ===

impl Peer<'_> {
    /// # Safety
    /// `filter` is Envoy's filter of a connection, and lives as long as this value. This is its thread.
    pub unsafe fn new(filter: Envoys) -> Self {
        Self { filter, life: PhantomData }
    }

    pub fn worker(self) -> usize {
        // SAFETY: the filter lives, as `new` was promised.
        let worker = unsafe { callbacks::connection_worker(self.filter) };
        usize::try_from(worker).unwrap_or(usize::MAX)
    }

    pub fn close(self) {
        // SAFETY: the filter lives, as `new` was promised.
        unsafe { callbacks::close(self.filter, CLOSE_AFTER_WRITING) }
    }

    /// Address and port as Envoy writes both together.
    fn source(self) -> Option<Vec<u8>> {
        let (mut address, mut port) = (Bytes::NONE, 0);
        // SAFETY: the filter lives, as `new` was promised, and both places are ours.
        if !unsafe { callbacks::remote_address(self.filter, &raw mut address, &raw mut port) } {
            return None;
        }
        // SAFETY: Envoy's text stays until this hook returns.
        let address = String::from_utf8(unsafe { address.copied() }).ok()?;
        let written = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        Some(written.into_bytes())
    }
}

impl RequestBody for Peer<'_> {
    fn read(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl StreamHost for Peer<'_> {
    fn request_headers(&self) -> Headers {
        Headers::default()
    }

    fn answer_headers(&self) -> Headers {
        Headers::default()
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        (property == Property::Source).then(|| self.source()).flatten()
    }

    fn chunk(&self, _: usize, _: usize) -> Vec<u8> {
        Vec::new()
    }
}
