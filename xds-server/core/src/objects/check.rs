//! Checks of one object's own fields: the rules that a CRD's schema and CEL hold it to in Kubernetes.
//!
//! A check reports and goes on, so that one pass names every mistake of an object. A mistake refuses the object, or the
//! part of it that may be refused by itself (`parts.rs`).

use std::fmt::Display;
use std::time::Duration;

use crate::status::{Finding, Reason, Severity};
use crate::terms::names::{is_dns_subdomain, is_label_key, is_label_value, is_spiffe_id};

use super::decode::{Misfit, Strictness};
use super::parts::{self, RefusedParts};
use super::redact::Shown;
use super::{Meta, duration};

/// Collects what is wrong with one object.
#[derive(Debug)]
pub struct Check<'a> {
    meta: &'a Meta,
    findings: &'a mut Vec<Finding>,
    errors: usize,
    /// The parts that may be refused by themselves.
    parts: &'static [&'static str],
    refused: RefusedParts,
}

/// Largest weight in the Gateway API.
const MAX_WEIGHT: i64 = 1_000_000;
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

// === impl Check ===

impl<'a> Check<'a> {
    pub fn new(meta: &'a Meta, findings: &'a mut Vec<Finding>) -> Self {
        let parts = match meta.provenance.strictness() {
            Strictness::Strict => parts::of_files(&meta.origin.kind),
            Strictness::Lenient => parts::of_kind(&meta.origin.kind),
        };
        Self { meta, findings, errors: 0, parts, refused: RefusedParts::default() }
    }

    pub fn meta(&self) -> &'a Meta {
        self.meta
    }

    /// The object is refused once there was an error.
    pub fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Whether this part of it is refused by itself.
    pub fn has_refused(&self, part: &str) -> bool {
        self.refused.of(part).is_some()
    }

    /// The parts of it that are refused by themselves.
    pub fn into_refused(self) -> RefusedParts {
        self.refused
    }

    pub fn error(&mut self, field: impl Display, message: impl Display, hint: impl Display) {
        self.refuse(Reason::Invalid, &field.to_string(), message, hint);
    }

    pub fn unsupported(&mut self, field: impl Display, message: impl Display, hint: impl Display) {
        self.refuse(Reason::UnsupportedValue, &field.to_string(), message, hint);
    }

    /// A field that the kind does not have, found by its own rules and not by its type.
    pub fn unknown_field(&mut self, field: &str, hint: impl Display) {
        if self.meta.provenance.strictness() == Strictness::Strict {
            let name = field.rsplit('.').next().unwrap_or(field);
            self.error(field, format_args!("unknown field {}", Shown(name)), hint);
        }
    }

    /// A value that is unknown and that another one stands in for.
    pub fn unknown_value(&mut self, Misfit { field, message, hint }: Misfit) {
        self.unsupported(field, message, hint);
    }

    /// A mistake for which the object is refused as a whole, wherever it is.
    pub fn unreadable(&mut self, Misfit { field, message, hint }: Misfit) {
        self.errors += 1;
        self.findings.push(self.meta.finding(Severity::Error, Reason::Invalid, field, message, hint));
    }

    fn refuse(&mut self, reason: Reason, field: &str, message: impl Display, hint: impl Display) {
        let finding = self.meta.finding(Severity::Error, reason, field, message, hint);
        match parts::around(self.parts, field) {
            Some(part) => self.refused.add(part, finding),
            None => {
                self.errors += 1;
                self.findings.push(finding);
            }
        }
    }

    pub fn warning(&mut self, reason: Reason, field: impl Display, message: impl Display, hint: impl Display) {
        self.findings.push(self.meta.finding(Severity::Warning, reason, field, message, hint));
    }

    /// RFC 1123 label or, with dots, subdomain: what Kubernetes allows as a name.
    pub fn name(&mut self, field: impl Display, name: &str) {
        if !is_dns_subdomain(name) {
            self.error(
                field,
                format_args!("{} is not a valid name", Shown(name)),
                "lowercase letters, digits, `-` and `.`, starting and ending with a letter or digit (RFC 1123)",
            );
        }
    }

    /// The object's own name is one that something else has already.
    pub fn reserved_name(&mut self, reserved: &str, hint: &str) {
        if self.meta.name() == reserved {
            self.error("metadata.name", format_args!("`{reserved}` is not a name that one may have"), hint);
        }
    }

    /// What Kubernetes allows as labels. Budgets are kept by their values, so they are held to it in files too.
    pub fn labels(&mut self) {
        for (key, value) in &self.meta.labels {
            if !is_label_key(key) || !is_label_value(value) {
                self.error(
                    format_args!("metadata.labels.{key}"),
                    "not a label that Kubernetes would take",
                    "at most 63 letters, digits, `-`, `_` and `.`",
                );
            }
        }
    }

    pub fn port(&mut self, field: impl Display, port: i64) -> u16 {
        match u16::try_from(port) {
            Ok(port) if port > 0 => port,
            _ => {
                self.error(field, format_args!("port {port} does not exist"), "1 to 65535");
                0
            }
        }
    }

    pub fn weight(&mut self, field: impl Display, weight: Option<i64>) -> u32 {
        self.number(field, weight.unwrap_or(1), 0, MAX_WEIGHT)
    }

    pub fn number(&mut self, field: impl Display, number: i64, least: i64, most: i64) -> u32 {
        if (least..=most).contains(&number)
            && let Ok(number) = u32::try_from(number)
        {
            return number;
        }
        self.error(field, format_args!("{number} is out of range"), format_args!("{least} to {most}"));
        0
    }

    /// A timeout: not zero, and at most a day.
    pub fn timeout(&mut self, field: impl Display, text: &str) -> Option<Duration> {
        match duration::parse(text) {
            Ok(Duration::ZERO) => {
                self.error(field, "a duration of zero", "leave the field out for the default");
                None
            }
            Ok(duration) if duration > MAX_TIMEOUT => {
                self.error(field, format_args!("{} is longer than a day", Shown(text)), "");
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                self.error(field, error, duration::HINT);
                None
            }
        }
    }

    /// A model's name, or the beginning of names when it ends with `*`.
    pub fn model_pattern(&mut self, field: impl Display, pattern: &str) {
        if pattern.is_empty() || pattern.len() > 256 {
            self.error(field, "a model's name has 1 to 256 bytes", "");
        } else if pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
            self.error(
                field,
                format_args!("{} has a * that is not at its end", Shown(pattern)),
                "only a trailing * is a pattern, for example gpt-*",
            );
        } else if pattern.chars().any(char::is_control) {
            self.error(field, "a model's name has no control characters", "");
        }
    }

    /// Envoy refuses a whole configuration for one bad expression, so it is found here.
    pub fn regex(&mut self, field: impl Display, regex: &str) {
        if let Err(error) = regex_syntax::parse(regex) {
            let message = match error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "it cannot be read".to_owned(),
            };
            self.error(field, format_args!("{} is not a regular expression: {message}", Shown(regex)), "RE2 syntax");
        }
    }

    pub fn hostname(&mut self, field: impl Display, hostname: &str) {
        if !is_dns_subdomain(hostname) {
            self.error(
                field,
                format_args!("{} is not a hostname", Shown(hostname)),
                "lowercase, without port or scheme",
            );
        }
    }

    /// Returns whether it is one.
    pub fn spiffe_id(&mut self, field: &str, id: &str) -> bool {
        let is_one = is_spiffe_id(id);
        if !is_one {
            let message = format_args!("{} is not a SPIFFE identity", Shown(id));
            self.error(field, message, "spiffe://TRUST-DOMAIN/ns/N/sa/S");
        }
        is_one
    }
}
