//! Documents of one file into the stores, and what becomes of each.

use std::sync::Arc;

use crate::status::{Finding, Reason, Severity, Spot};

use super::document::{self, Document, Lines};
use super::read::read;
use super::secret::SecretSource;
use super::source::Source;
use super::store::Meta;
use super::{FileVersion, KeptDocument, Objects, Provenance, refused_policy};

pub fn add_yaml(objects: &mut Objects, file: &str, text: &str, secrets: &dyn SecretSource) -> Vec<Finding> {
    let file: Arc<str> = file.into();
    let mut findings = Vec::new();
    match document::parse(text) {
        Ok(documents) => {
            objects.files.insert(file.to_string());
            let texts: Vec<String> = documents.iter().map(|document| document.value.to_string()).collect();
            for (document, source) in documents.into_iter().zip(Source::of_file(&texts)) {
                add(objects, &file, document, source, 0, secrets, &mut findings);
            }
        }
        Err(error) => {
            objects.refused_policies.extend(refused_policy::in_broken_text(&file, text));
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

/// See [`Objects::add_kept`].
pub fn add_kept(objects: &mut Objects, file: &str, documents: &[KeptDocument], secrets: &dyn SecretSource) {
    let file: Arc<str> = file.into();
    let texts: Vec<String> = documents.iter().map(|kept| kept.document.clone()).collect();
    for (kept, source) in documents.iter().zip(Source::of_file(&texts)) {
        if let Ok(value) = serde_json::from_str(&kept.document) {
            let document = Document { value, lines: Lines::starting_at(kept.line) };
            add(objects, &file, document, source, kept.since, secrets, &mut Vec::new());
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

/// Another object has the name already.
pub fn duplicate(first: &Meta, meta: &Meta) -> Finding {
    let finding = meta.finding(Severity::Error, Reason::Duplicate, "", "", "the first one is used");
    // The file's name is the user's own choice and is shown with every finding.
    let message = match first.provenance.spot("") {
        Some(Spot { file, line }) => format!("the same object is already at {file}:{line}"),
        None => "the same object is already in the cluster".to_owned(),
    };
    Finding { message, ..finding }
}
