//! A stream as Envoy would hold it, with the contents that a test puts there.

use std::collections::HashMap;

use super::{Property, StreamHost};
use crate::{headers::Headers, host::RequestBody};

#[derive(Debug, Default, Clone)]
pub struct FakeStream {
    pub request_headers: Headers,
    pub answer_headers: Headers,
    pub properties: HashMap<Property, Vec<u8>>,
    pub body: Vec<u8>,
    pub chunk: Vec<u8>,
}

// === impl FakeStream ===

impl FakeStream {
    pub fn with(mut self, property: Property, value: impl Into<Vec<u8>>) -> Self {
        self.properties.insert(property, value.into());
        self
    }

    pub fn answers(mut self, status: &str, kind: &str) -> Self {
        self.answer_headers = headers(&[(":status", status), ("content-type", kind)]);
        self
    }
}

impl RequestBody for FakeStream {
    fn read(&self) -> Vec<u8> {
        self.body.clone()
    }
}

impl StreamHost for FakeStream {
    fn request_headers(&self) -> Headers {
        self.request_headers.clone()
    }

    fn answer_headers(&self) -> Headers {
        self.answer_headers.clone()
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.properties.get(&property).cloned()
    }

    fn chunk(&self, start: usize, len: usize) -> Vec<u8> {
        self.chunk.iter().skip(start).take(len).copied().collect()
    }
}

pub fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().copied().collect()
}
