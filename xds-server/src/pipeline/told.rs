//! Findings in the log: each when it is new, and not again while it stays.

use std::collections::BTreeSet;

use tollgate_core::status::{Finding, Severity, Spot};

/// What the log has told already.
#[derive(Debug, Default)]
pub(super) struct Told {
    findings: BTreeSet<Finding>,
}

// === impl Told ===

impl Told {
    /// Tells what is new since the last time. Returns how many errors there are.
    pub fn tell(&mut self, findings: &[Finding]) -> usize {
        let mut now = BTreeSet::new();
        let mut errors = 0;
        for finding in findings {
            errors += usize::from(finding.severity == Severity::Error);
            // A finding that only moved to another line is not new.
            let spot = finding.spot.as_ref().map(|spot| Spot { file: spot.file.clone(), line: 0 });
            let somewhere = Finding { spot, ..finding.clone() };
            if !self.findings.contains(&somewhere) && !now.contains(&somewhere) {
                match finding.severity {
                    Severity::Error => tracing::error!("{finding}"),
                    Severity::Warning => tracing::warn!("{finding}"),
                }
            }
            now.insert(somewhere);
        }
        self.findings = now;
        errors
    }
}
