//! Objects of files: documents into the stores, several files put together, and what stays in force when one is broken.
//!
//! ```text
//! text -> document.rs (YAML with lines) -> objects::read -> merge.rs (all files) -> last_good.rs (what was good before)
//!     \-> broken_text.rs (policies in what is no YAML)
//! ```

mod broken_text;
mod document;
mod last_good;
mod merge;

pub use self::document::{Document, SyntaxError, parse};

use std::sync::Arc;

use crate::objects::{
    FileVersion, KeptDocument, Lines, Objects, Provenance, RefusedPolicy, SecretSource, Source, read::read,
};
use crate::status::{Finding, Reason, Severity, Spot};

// === impl Objects ===

impl Objects {
    /// Reads the YAML (or JSON) documents of one file and adds what is valid.
    ///
    /// `file` is only for messages. Values of Secrets by `file:` and `env:` are resolved by `secrets`.
    pub fn add_yaml(&mut self, file: &str, text: &str, secrets: &dyn SecretSource) -> Vec<Finding> {
        add_yaml(self, &file.into(), text, secrets)
    }

    /// Adds documents of a file that were kept. What is not valid any more is left out without a word.
    pub fn add_kept(&mut self, file: &str, documents: &[KeptDocument], secrets: &dyn SecretSource) {
        add_kept(self, &file.into(), documents, secrets);
    }

    /// Notes a file that is there and cannot be read. It may hold policies for anything.
    pub fn add_unreadable(&mut self, file: &str) {
        self.refused_policies.push(RefusedPolicy::unreadable_file(file));
    }
}

fn add_yaml(objects: &mut Objects, file: &Arc<str>, text: &str, secrets: &dyn SecretSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    match parse(text) {
        Ok(documents) => {
            objects.files.insert(file.to_string());
            let texts: Vec<String> = documents.iter().map(|document| document.value.to_string()).collect();
            for (document, source) in documents.into_iter().zip(Source::of_file(&texts)) {
                add(objects, file, document, source, 0, secrets, &mut findings);
            }
        }
        Err(error) => {
            objects.refused_policies.extend(broken_text::in_broken_text(file, text));
            findings.push(Finding {
                severity: Severity::Error,
                reason: Reason::SyntaxError,
                origin: None,
                spot: Some(Spot { file: file.to_string(), line: error.line }),
                field: String::new(),
                message: error.message,
                hint: "nothing of this file is used until it can be read".to_owned(),
            });
        }
    }
    findings.sort_by(Finding::by_spot);
    findings
}

fn add_kept(objects: &mut Objects, file: &Arc<str>, documents: &[KeptDocument], secrets: &dyn SecretSource) {
    let texts: Vec<String> = documents.iter().map(|kept| kept.document.clone()).collect();
    for (kept, source) in documents.iter().zip(Source::of_file(&texts)) {
        if let Ok(value) = serde_json::from_str(&kept.document) {
            let document = Document { value, lines: Lines::starting_at(kept.line) };
            add(objects, file, document, source, kept.since, secrets, &mut Vec::new());
        }
    }
}

fn add(
    objects: &mut Objects,
    file: &Arc<str>,
    document: Document,
    source: Source,
    since: i64,
    secrets: &dyn SecretSource,
    findings: &mut Vec<Finding>,
) {
    let Document { value, lines } = document;
    let provenance = Provenance::File(FileVersion { path: Arc::clone(file), lines, source, since });
    read(objects, provenance, value, secrets, findings);
}
