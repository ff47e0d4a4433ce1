//! Findings of an import, and where the fields stand that they are about.

use std::fmt::Display;

use crate::files::SyntaxError;
use crate::objects::{Lines, redact};
use crate::status::{Finding, Reason, Severity, Spot};

/// Collects what is to be said.
#[derive(Debug)]
pub(super) struct Notes {
    place: Place,
    findings: Vec<Finding>,
}

/// The file that is being read.
#[derive(Debug)]
struct Place {
    file: String,
    lines: Lines,
}

// === impl Notes ===

impl Notes {
    pub(super) fn new(file: &str) -> Self {
        Self { place: Place::new(file), findings: Vec::new() }
    }

    /// From now on findings are about this file.
    pub(super) fn read_another(&mut self, file: &str) {
        self.place = Place::new(file);
    }

    pub(super) fn stands(&mut self, lines: Lines) {
        self.place.lines = lines;
    }

    /// LiteLLM does something that is not done here.
    pub(super) fn lost(&mut self, field: &str, message: impl Display, hint: impl Display) {
        self.note(Severity::Error, Reason::UnsupportedValue, field, message, hint);
    }

    /// It cannot be read, or LiteLLM would not take it either.
    pub(super) fn invalid(&mut self, field: &str, message: impl Display, hint: impl Display) {
        self.note(Severity::Error, Reason::Invalid, field, message, hint);
    }

    /// It is done in another way, or its reader has to do something.
    pub(super) fn told(&mut self, field: &str, message: impl Display, hint: impl Display) {
        self.note(Severity::Warning, Reason::NotActedOn, field, message, hint);
    }

    pub(super) fn syntax(&mut self, error: SyntaxError) {
        let mut finding = self.finding(Severity::Error, Reason::SyntaxError, "", error.message, "");
        finding.spot = Some(Spot { file: self.place.file.clone(), line: error.line });
        self.findings.push(finding);
    }

    pub(super) fn note(
        &mut self,
        severity: Severity,
        reason: Reason,
        field: &str,
        message: impl Display,
        hint: impl Display,
    ) {
        let finding = self.finding(severity, reason, field, message, hint);
        self.findings.push(finding);
    }

    fn finding(
        &self,
        severity: Severity,
        reason: Reason,
        field: &str,
        message: impl Display,
        hint: impl Display,
    ) -> Finding {
        Finding {
            severity,
            reason,
            origin: None,
            spot: Some(Spot { file: self.place.file.clone(), line: self.place.lines.of(field) }),
            field: redact::path(field),
            message: message.to_string(),
            hint: hint.to_string(),
        }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}

// === impl Place ===

impl Place {
    fn new(file: &str) -> Self {
        Self { file: file.to_owned(), lines: Lines::starting_at(1) }
    }
}
