//! Says when files have changed. It learns this from the kernel's events, and from a slow poll beside them, because
//! some file systems have no events.
//!
//! What counts is the fingerprint of the files, not the events. Editors rename files and ConfigMaps swap links, and
//! nothing is read again for an event that leaves the fingerprint as it was.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::folder;

/// Writers get this long to finish what they are doing.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// A writer that never rests is not waited for longer than this.
const DEBOUNCE_AT_MOST: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_secs(1);

pub struct Changes {
    root: PathBuf,
    /// Files that Secrets refer to.
    more: BTreeSet<PathBuf>,
    fingerprint: Vec<Print>,
    events: mpsc::Receiver<()>,
    /// None: the kernel gives no events, and the poll has to do.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

/// What tells a changed file from an unchanged one.
#[derive(Debug, PartialEq, Eq)]
struct Print {
    path: PathBuf,
    state: Option<(u64, u64, i64, i64)>,
}

// === impl Changes ===

impl Changes {
    /// Watches from this moment on.
    pub fn of(root: &Path) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_event| {
            // A full queue already says that something happened.
            let _full = sender.try_send(());
        });
        let mut changes = Self {
            root: root.to_owned(),
            more: BTreeSet::new(),
            fingerprint: Vec::new(),
            events,
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
        };
        changes.watch(root, RecursiveMode::Recursive);
        changes.fingerprint = changes.take();
        changes
    }

    /// Watches these files too, in place of those named before.
    pub fn also(&mut self, files: BTreeSet<PathBuf>) {
        for folder in files.iter().filter_map(|file| file.parent()) {
            self.watch(folder, RecursiveMode::NonRecursive);
        }
        if self.more != files {
            self.more = files;
            self.fingerprint = self.take();
        }
    }

    /// Returns when something is different and writers have come to rest.
    pub async fn next(&mut self) {
        loop {
            match timeout(POLL, self.events.recv()).await {
                Ok(Some(())) => self.rest().await,
                // No events can come any more.
                Ok(None) => sleep(POLL).await,
                Err(_elapsed) => {}
            }
            let now = self.take();
            if now != self.fingerprint {
                self.fingerprint = now;
                return;
            }
        }
    }

    async fn rest(&mut self) {
        let quiet = async { while let Ok(Some(())) = timeout(DEBOUNCE, self.events.recv()).await {} };
        let _never_rests = timeout(DEBOUNCE_AT_MOST, quiet).await;
    }

    fn watch(&mut self, path: &Path, mode: RecursiveMode) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.watched.insert(path.to_owned())
            && let Err(error) = watcher.watch(path, mode)
        {
            tracing::debug!(path = %path.display(), %error, "not watched, only polled");
        }
    }

    fn take(&self) -> Vec<Print> {
        let files = folder::list(&self.root).unwrap_or_default();
        files.into_iter().chain(self.more.iter().cloned()).map(Print::of).collect()
    }
}

// === impl Print ===

impl Print {
    fn of(path: PathBuf) -> Self {
        let state = fs::metadata(&path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        Self { path, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seen(changes: &mut Changes) -> bool {
        timeout(Duration::from_secs(10), changes.next()).await.is_ok()
    }

    #[tokio::test]
    async fn writes_renames_links_and_secret_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("conf");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.yaml"), "1").unwrap();
        let mut changes = Changes::of(&root);
        // An editor that saves by renaming.
        fs::write(root.join(".a.yaml.new"), "2").unwrap();
        fs::rename(root.join(".a.yaml.new"), root.join("a.yaml")).unwrap();
        assert!(seen(&mut changes).await);
        // A ConfigMap: the files are links through a link that is swapped.
        for (version, text) in [("..1", "x"), ("..2", "y")] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("b.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/b.yaml", root.join("b.yaml")).unwrap();
        assert!(seen(&mut changes).await);
        std::os::unix::fs::symlink("..2", root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        assert!(seen(&mut changes).await);
        // A key file elsewhere.
        let key = dir.path().join("key");
        changes.also(BTreeSet::from([key.clone()]));
        fs::write(&key, "secret").unwrap();
        assert!(seen(&mut changes).await);
        // A new folder below.
        fs::create_dir(root.join("below")).unwrap();
        fs::write(root.join("below/c.json"), "{}").unwrap();
        assert!(seen(&mut changes).await);
    }
}
