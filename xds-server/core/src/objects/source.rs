//! The documents of files as they were written, for the next start. They are seldom read and many, so those of one file
//! are packed together.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One document of a file, in JSON. References to files and variables are not resolved in it. A Secret that has its values
/// in the folder has them here too, so it is never printed.
#[derive(Clone)]
pub struct Source {
    /// Of the document: the start of its SHA-256. Two documents with the same one are the same.
    digest: [u8; 16],
    file: Arc<Packed>,
    /// Its place among the documents of the file.
    place: u32,
}

/// A document of a file, as it is kept for the next start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptDocument {
    pub line: u64,
    /// Unix seconds when this version was read first.
    pub since: i64,
    /// JSON, as a text.
    pub document: String,
}

/// Documents, each in a line of its own. JSON has no line breaks in its texts.
struct Packed(Box<[u8]>);

// === impl Source ===

impl Source {
    /// The documents of a file.
    pub fn of_file(documents: &[String]) -> Vec<Self> {
        let packed = lz4_flex::compress_prepend_size(documents.join("\n").as_bytes());
        let file = Arc::new(Packed(packed.into()));
        let source = |(document, place): (&String, u32)| {
            let digest: [u8; 32] = Sha256::digest(document).into();
            let digest = *digest.first_chunk().unwrap_or(&[0; 16]);
            Self { digest, file: Arc::clone(&file), place }
        };
        documents.iter().zip(0..).map(source).collect()
    }

    /// There is no document.
    pub fn none() -> Self {
        Self { digest: [0; 16], file: Arc::new(Packed(Box::default())), place: 0 }
    }

    pub fn is_none(&self) -> bool {
        self.file.0.is_empty()
    }

    /// Whether both are the same document of the same reading of a file. False says nothing.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.place == other.place
    }

    /// The document, for the one place that keeps it.
    pub fn expose(&self) -> String {
        Self::expose_all([self].into_iter()).pop().unwrap_or_default()
    }

    /// The documents. Those of one file are unpacked once if they come one after the other.
    pub fn expose_all<'a>(sources: impl Iterator<Item = &'a Self>) -> Vec<String> {
        let mut last: Option<(&Arc<Packed>, Vec<String>)> = None;
        let mut all = Vec::new();
        for source in sources {
            let documents = match last.take() {
                Some((file, documents)) if Arc::ptr_eq(file, &source.file) => documents,
                _ => source.file.unpack().lines().map(str::to_owned).collect(),
            };
            let document = usize::try_from(source.place).ok().and_then(|place| documents.get(place));
            all.push(document.cloned().unwrap_or_default());
            last = Some((&source.file, documents));
        }
        all
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Source {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[the document]")
    }
}

// === impl Packed ===

impl Packed {
    fn unpack(&self) -> String {
        // It was packed here, so it can be unpacked.
        let text = lz4_flex::decompress_size_prepended(&self.0).unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(documents: &[&str]) -> Vec<Source> {
        Source::of_file(&documents.iter().map(|document| (*document).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_document_that_was_read_again_is_another_one() {
        let (first, again) = (of_file(&["{}", "[1]"]), of_file(&["[1]"]));
        assert!(first[0].is(&first[0].clone()) && !first[0].is(&first[1]));
        assert!(first[1] == again[0] && !first[1].is(&again[0]) && first[0] != again[0]);
    }

    #[test]
    fn documents_come_out_as_they_went_in() {
        let documents = ["{\"a\":\"line\\nbreak\"}", "", "{\"é\":1}", "{}"];
        let (sources, other) = (of_file(&documents), of_file(&["7"]));
        assert_eq!(sources.iter().map(Source::expose).collect::<Vec<_>>(), documents);
        let mixed = [&sources[3], &sources[0], &other[0], &sources[2]];
        assert_eq!(Source::expose_all(mixed.into_iter()), [documents[3], documents[0], "7", documents[2]]);
        assert!(Source::none().is_none() && Source::none().expose().is_empty() && !other[0].is_none());
        assert_eq!(format!("{:?}", other[0]), "[the document]");
    }
}
