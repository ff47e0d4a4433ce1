//! Says when files have changed. It learns this from the kernel's events, and from a slow poll beside them, because
//! some file systems have no events.
//!
//! What counts is the fingerprint of the files, not the events. Editors rename files and ConfigMaps swap links, and
//! nothing is read again for an event that leaves the fingerprint as it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::list::list;
use super::print::Print;

/// Whoever writes several files gets this long from one to the next.
const BETWEEN_FILES: Duration = Duration::from_millis(15);
/// Whoever writes to a file gets this long from one write to the next.
const BETWEEN_WRITES: Duration = Duration::from_millis(100);
/// A writer that never rests is not waited for longer than this.
const AT_MOST: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_secs(1);
/// So many events may wait. If there are more, they have more than one writer, and all are waited for.
const EVENTS: usize = 64;

/// What the kernel says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Somebody writes to it and may go on.
    Writing,
    /// It is there, or gone, as a whole: it was renamed or removed, or its writer has closed it.
    Done,
}

/// Watches a folder, and the files outside of it that its Secrets refer to.
pub struct Watcher {
    root: PathBuf,
    /// The folder's own files.
    files: Vec<Print>,
    /// Files that Secrets refer to.
    more: Vec<Print>,
    events: mpsc::Receiver<Event>,
    /// None: the kernel gives no events, and the poll has to do.
    kernel: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

// === impl Watcher ===

impl Watcher {
    /// Watches from this moment on.
    pub fn of(root: &Path) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let kernel = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Some(event) = Event::of(event) {
                // A full queue already says that something happened.
                let _full = sender.try_send(event);
            }
        });
        let mut watcher = Self {
            root: root.to_owned(),
            files: Vec::new(),
            more: Vec::new(),
            events,
            kernel: kernel.ok(),
            watched: BTreeSet::new(),
        };
        watcher.watch(root, RecursiveMode::Recursive);
        watcher.files = watcher.take();
        watcher
    }

    /// Watches these files too, in place of those named before. What differs from these prints counts as changed: the
    /// files were read before they are watched, and somebody may have written in between.
    pub fn also(&mut self, files: Vec<Print>) {
        for folder in files.iter().filter_map(|file| file.path.parent()) {
            self.watch(folder, RecursiveMode::NonRecursive);
        }
        self.more = files;
    }

    /// What was seen could not be read, so it counts as different until it is.
    pub fn unread(&mut self) {
        self.files.clear();
    }

    /// Returns when something is different and writers have come to rest.
    pub async fn changed(&mut self) {
        loop {
            match timeout(POLL, self.events.recv()).await {
                Ok(Some(event)) => self.rest(event).await,
                // No events can come any more.
                Ok(None) => sleep(POLL).await,
                Err(_elapsed) => {}
            }
            let files = self.take();
            let more: Vec<Print> = self.more.iter().map(|print| Print::of(print.path.clone())).collect();
            if (&files, &more) != (&self.files, &self.more) {
                (self.files, self.more) = (files, more);
                return;
            }
        }
    }

    async fn rest(&mut self, mut last: Event) {
        let quiet = async {
            while let Ok(Some(event)) = timeout(last.pause(), self.events.recv()).await {
                last = event;
            }
        };
        let _never_rests = timeout(AT_MOST, quiet).await;
    }

    fn watch(&mut self, path: &Path, mode: RecursiveMode) {
        let Some(kernel) = &mut self.kernel else { return };
        if self.watched.insert(path.to_owned())
            && let Err(error) = kernel.watch(path, mode)
        {
            tracing::debug!(path = %path.display(), %error, "not watched, only polled");
        }
    }

    fn take(&self) -> Vec<Print> {
        list(&self.root).unwrap_or_default().into_iter().map(Print::of).collect()
    }
}

// === impl Event ===

impl Event {
    /// None: nothing has changed.
    fn of(event: notify::Result<notify::Event>) -> Option<Self> {
        // An error may mean that events were lost.
        let Ok(event) = event else { return Some(Self::Writing) };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => Some(Self::Done),
            EventKind::Access(_) => None,
            _ => Some(Self::Writing),
        }
    }

    /// After this long without another event, writers have come to rest.
    fn pause(self) -> Duration {
        match self {
            Self::Writing => BETWEEN_WRITES,
            Self::Done => BETWEEN_FILES,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tollgate_core::objects::Objects;

    use super::super::Folder;
    use super::*;

    async fn seen(watcher: &mut Watcher) -> bool {
        timeout(Duration::from_secs(120), watcher.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn writes_renames_links_and_secret_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("conf");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.yaml"), "1").unwrap();
        let mut watcher = Watcher::of(&root);
        // An editor that saves by renaming.
        fs::write(root.join(".a.yaml.new"), "2").unwrap();
        fs::rename(root.join(".a.yaml.new"), root.join("a.yaml")).unwrap();
        assert!(seen(&mut watcher).await);
        // A ConfigMap: the files are links through a link that is swapped.
        for (version, text) in [("..1", "x"), ("..2", "y")] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("b.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/b.yaml", root.join("b.yaml")).unwrap();
        assert!(seen(&mut watcher).await);
        std::os::unix::fs::symlink("..2", root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        assert!(seen(&mut watcher).await);
        // A key file elsewhere.
        let key = dir.path().join("key");
        watcher.also(vec![Print::of(key.clone())]);
        fs::write(&key, "secret").unwrap();
        assert!(seen(&mut watcher).await);
        // A new folder below.
        fs::create_dir(root.join("below")).unwrap();
        fs::write(root.join("below/c.json"), "{}").unwrap();
        assert!(seen(&mut watcher).await);
    }

    #[tokio::test]
    async fn what_changes_after_a_reading_and_before_its_watch_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (root, key) = (dir.path().join("conf"), dir.path().join("key"));
        fs::create_dir(&root).unwrap();
        fs::write(&key, "one").unwrap();
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nfile: {apiKey: ../key}\n";
        fs::write(root.join("a.yaml"), secret).unwrap();
        let mut watcher = Watcher::of(&root);
        let mut folder = Folder::new(&root);
        let mut read = || folder.read(&Objects::default()).unwrap().secret_files;
        let files = read();
        assert_eq!(files.len(), 1);
        // The key file itself.
        fs::write(&key, "another").unwrap();
        watcher.also(files);
        assert!(seen(&mut watcher).await);
        watcher.also(read());
        // The folder, while the files that are named become others.
        fs::write(root.join("b.yaml"), secret.replace("name: s", "name: t").replace("key}", "key2}")).unwrap();
        assert!(seen(&mut watcher).await);
        let files = read();
        fs::write(root.join("c.yaml"), secret.replace("name: s", "name: u")).unwrap();
        watcher.also(files);
        assert!(seen(&mut watcher).await);
        // And then there is rest.
        watcher.also(read());
        assert!(timeout(POLL * 2, watcher.changed()).await.is_err());
        // What could not be read is to be read again.
        watcher.unread();
        assert!(seen(&mut watcher).await);
    }
}
