//! Reads the folder, publishes what it means, and tells the user. Does so again whenever a file changes.

use std::collections::BTreeSet;
use std::path::Path;

use tokio::task::JoinHandle;
use tollgate_core::status::{Finding, Severity, Spot};

use crate::admin::Metrics;
use crate::serve::published::Publisher;
use crate::watch::files::Changes;
use crate::watch::folder::{Folder, FolderError};

/// Publishes now, and then on every change until the task is aborted. `state` is the directory that keeps the last
/// good objects.
///
/// # Errors
/// When the folder cannot be read at all.
pub fn start(path: &Path, state: &Path, publisher: Publisher, metrics: Metrics) -> Result<JoinHandle<()>, FolderError> {
    // Watching begins before the first reading, so that no change is missed.
    let mut changes = Changes::of(path);
    let mut folder = Folder::with_state(path, state)?;
    let reading = folder.read()?;
    changes.also(reading.secret_files);
    publisher.publish(reading.changes, reading.findings);
    let mut told = BTreeSet::new();
    tell(&publisher, &mut told);
    Ok(tokio::spawn(async move {
        loop {
            changes.next().await;
            // Reading a large folder takes its time. Other tasks need not wait for it.
            tokio::task::block_in_place(|| match folder.read() {
                Ok(reading) => {
                    changes.also(reading.secret_files);
                    let changed = publisher.publish(reading.changes, reading.findings);
                    let errors = tell(&publisher, &mut told);
                    if errors == 0 {
                        metrics.reload_taken();
                    } else {
                        metrics.reload_refused();
                    }
                    tracing::info!("reloaded: {changed} changed resources");
                }
                Err(error) => {
                    metrics.reload_refused();
                    tracing::error!("{error}; what was read before stays");
                }
            });
        }
    }))
}

/// Tells the user what is new since the last time. Returns how many errors there are.
fn tell(publisher: &Publisher, told: &mut BTreeSet<Finding>) -> usize {
    let published = publisher.published();
    let mut now = BTreeSet::new();
    let mut errors = 0;
    for finding in &published.borrow().findings {
        errors += usize::from(finding.severity == Severity::Error);
        // A finding that only moved to another line is not new.
        let spot = finding.spot.as_ref().map(|spot| Spot { file: spot.file.clone(), line: 0 });
        let somewhere = Finding { spot, ..finding.clone() };
        if !told.contains(&somewhere) && !now.contains(&somewhere) {
            match finding.severity {
                Severity::Error => tracing::error!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
            }
        }
        now.insert(somewhere);
    }
    *told = now;
    errors
}
