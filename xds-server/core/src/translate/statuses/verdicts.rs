//! What findings say about conditions. Errors make conditions, and warnings are remarks.

use crate::status::{Condition, ConditionType, Conditions, Finding, Reason, Severity};

/// A condition quotes up to this many findings. The others are only counted.
const MAX_QUOTED: usize = 3;

/// The errors of one object.
pub struct Verdicts<'a> {
    errors: Vec<&'a Finding>,
    warnings: Vec<&'a Finding>,
    /// What is wrong with the version that was given last.
    given: Vec<&'a Finding>,
    /// An older version of it is in force.
    kept: bool,
}

// === impl Verdicts ===

impl<'a> Verdicts<'a> {
    /// `given` is what is wrong with the object as it was read.
    pub fn new(findings: &[&'a Finding], given: &[&'a Finding]) -> Self {
        let of = |severity, findings: &[&'a Finding]| -> Vec<&'a Finding> {
            findings.iter().copied().filter(|finding| finding.severity == severity).collect()
        };
        Self {
            errors: of(Severity::Error, findings),
            warnings: of(Severity::Warning, findings),
            given: of(Severity::Error, given),
            kept: given.iter().any(|finding| finding.reason == Reason::LastGood),
        }
    }

    /// The errors about one condition.
    pub fn about(&self, about: ConditionType) -> Vec<&'a Finding> {
        let given = self.given.iter().filter(|_| !self.kept);
        let all = self.errors.iter().chain(given).copied();
        all.filter(|finding| finding.reason.condition() == Some((about, about.bad()))).collect()
    }

    pub fn has_remark(&self, reason: Reason) -> Option<&'a Finding> {
        self.warnings.iter().copied().find(|finding| finding.reason == reason)
    }

    /// Whether something is wrong with this entry of a list.
    pub fn is_wrong(&self, list: &str, index: usize) -> bool {
        self.errors.iter().filter_map(|finding| finding.entry_of(list)).any(|entry| entry == index)
    }

    /// Whether nobody acts on this entry of a list.
    pub fn is_not_acted_on(&self, list: &str, index: usize) -> bool {
        let remarks = self.warnings.iter().filter(|finding| finding.reason == Reason::NotActedOn);
        remarks.filter_map(|finding| finding.entry_of(list)).any(|entry| entry == index)
    }

    /// The condition of an object of which not all is in force. Of one whose newest version is refused while an older one
    /// is in force, the Gateway API says so for routes ("Fall Back").
    pub fn partial(&self) -> Option<Condition> {
        let about = ConditionType::PartiallyInvalid;
        if let Some(first) = self.given.first().filter(|_| self.kept) {
            return Some(Condition::bad(about, first.reason, format!("Fall Back: {}", texts(&self.given))));
        }
        let errors = self.about(about);
        errors.first().map(|first| Condition::bad(about, first.reason, texts(&errors)))
    }

    /// The conditions of an object of which there is no version.
    pub fn refused(&self) -> Conditions {
        let all: Vec<&Finding> = self.given.iter().chain(&self.errors).copied().collect();
        let reason = all.first().map_or(Reason::Invalid, |finding| finding.reason);
        [Condition::bad(ConditionType::Accepted, reason, texts(&all))].into_iter().collect()
    }
}

/// The condition is as these errors say, or good.
pub fn condition(about: ConditionType, errors: &[&Finding], good: Reason) -> Condition {
    match errors.first() {
        Some(first) => Condition::bad(about, first.reason, texts(errors)),
        None => Condition::good(about, good),
    }
}

/// What a condition quotes of findings.
pub fn texts(findings: &[&Finding]) -> String {
    let mut quoted: Vec<String> = findings.iter().take(MAX_QUOTED).map(|finding| finding.text()).collect();
    if findings.len() > MAX_QUOTED {
        quoted.push(format!("{} more", findings.len() - MAX_QUOTED));
    }
    quoted.join("; ")
}
