//! The loop from a change of a file or a cluster to what is served: the stages 1 to 4, one after the other.
//!
//! ```text
//! source -> objects that changed -> World -> what changed in the IR -> publication.rs -> published.rs -> ledger, serve
//!  says when again                (core)                               edition.rs (a snapshot and its last changes)
//!                                   \-> ends.rs (keys that end, when the time comes)
//! ```
//! A folder is read before anything is served. A cluster may take its time, and nothing is published until then.

mod edition;
mod edits;
pub mod ends;
mod istio;
mod own_thread;
mod publication;
mod published;
#[cfg(test)]
mod published_test;
mod serves;
mod told;

pub use edition::Edition;
pub use published::{Published, ServedGateway};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tollgate_core::envoy::{self, Surroundings};
use tollgate_core::ledger::Configured;
use tollgate_core::objects::{Changes, Objects};
use tollgate_core::placement::Setting;
use tollgate_core::status::Finding;
use tollgate_core::translate::{Translation, translate};
use tollgate_core::world::World;

use self::edits::Edits;
use self::publication::Publication;
use self::published::locked;
use self::told::Told;
use crate::audit::Audit;
use crate::report::{Due, Metrics};
use crate::source::Source;
use crate::source::folder::{Folder, FolderError, Reading, Watcher};
use crate::source::kubernetes::{self, AccessError, ListError, Watches};

/// Turns objects into what is served. Nothing else does.
#[derive(Debug)]
pub struct Publisher {
    setting: Setting,
    surroundings: Surroundings,
    world: Arc<Mutex<World>>,
    published: watch::Sender<Arc<Published>>,
    for_ledger: watch::Sender<Arc<Configured>>,
    /// Who is told whose statuses may be others. None: nobody.
    due: Option<Due>,
    edits: Option<Mutex<Edits>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error("a thread for the source cannot be made: {0}")]
    Thread(#[from] std::io::Error),
    #[error("reading the source ended before it was done")]
    Ended,
}

/// Reads a source and translates it as far as the IR, without the loop. Returns everything that is wrong on the way as
/// well.
///
/// # Errors
/// When the source cannot be read at all.
pub async fn once(source: &Source, setting: Setting) -> Result<(Translation, Vec<Finding>), SourceError> {
    let mut objects = Objects::default();
    let (changes, mut findings) = match source {
        Source::Folder(path) => {
            let reading = Folder::new(path).read(&objects)?;
            (reading.changes, reading.findings)
        }
        Source::Kubernetes(access) => {
            let reading = kubernetes::list(access, setting.mesh.is_some()).await?;
            (reading.changes, reading.findings)
        }
    };
    objects.apply(changes, &mut |_, _, _| {});
    let mut translation = translate(&objects, setting);
    findings.append(&mut translation.findings);
    Ok((translation, findings))
}

/// Publishes what a source means now, and then on every change until the task is aborted. `state` is the directory that
/// keeps the last good objects of a folder.
///
/// # Errors
/// When the source cannot be read at all.
pub async fn start(
    source: &Source,
    state: &Path,
    publisher: Publisher,
    metrics: Metrics,
) -> Result<JoinHandle<()>, SourceError> {
    match source {
        Source::Folder(path) => {
            let (begun, first) = oneshot::channel();
            let (path, state) = (path.clone(), state.to_owned());
            let task = own_thread::spawn("source", follow_folder(path, state, publisher, metrics, begun))?;
            first.await.map_err(|_| SourceError::Ended)??;
            Ok(task)
        }
        Source::Kubernetes(access) => {
            let watches =
                Watches::start(access, publisher.setting.mesh.is_some(), metrics.clone(), publisher.due.clone())
                    .await?;
            Ok(own_thread::spawn("source", follow_cluster(watches, publisher, metrics))?)
        }
    }
}

/// `begun` is told once what came first is published, or why it cannot be read.
async fn follow_folder(
    path: PathBuf,
    state: PathBuf,
    publisher: Publisher,
    metrics: Metrics,
    begun: oneshot::Sender<Result<(), FolderError>>,
) {
    // Watching begins before the first reading, so that no change is missed.
    let mut watcher = Watcher::of(&path);
    let first = Folder::with_state(&path, &state)
        .and_then(|mut folder| publisher.read(&mut folder).map(|reading| (folder, reading)));
    let (mut folder, reading) = match first {
        Ok(first) => first,
        Err(error) => {
            // Who has left needs no answer.
            let _ = begun.send(Err(error));
            return;
        }
    };
    watcher.also(reading.secret_files);
    publisher.publish(reading.changes, reading.findings);
    let mut told = Told::default();
    told.tell(&publisher.published().borrow().findings);
    let _ = begun.send(Ok(()));
    folder.keep();
    loop {
        watcher.changed().await;
        match publisher.read(&mut folder) {
            Ok(reading) => {
                watcher.also(reading.secret_files);
                publisher.take(reading.changes, reading.findings, &mut told, &metrics);
                folder.keep();
            }
            Err(error) => {
                watcher.unread();
                metrics.reload_refused();
                tracing::error!("{error}; what was read before stays");
            }
        }
    }
}

async fn follow_cluster(mut watches: Watches, publisher: Publisher, metrics: Metrics) {
    let mut told = Told::default();
    loop {
        let reading = watches.next().await;
        // The first reading is of all objects.
        publisher.take(reading.changes, reading.findings, &mut told, &metrics);
    }
}

// === impl Publisher ===

impl Publisher {
    pub fn new(setting: impl Into<Setting>, surroundings: Surroundings) -> Self {
        let setting = setting.into();
        Self {
            world: Arc::new(Mutex::new(World::new(setting.clone()))),
            setting,
            surroundings,
            published: watch::Sender::default(),
            for_ledger: watch::Sender::default(),
            due: None,
            edits: None,
        }
    }

    /// It also tells whose statuses may be others.
    #[must_use]
    pub fn telling(self, due: Option<Due>) -> Self {
        Self { due, ..self }
    }

    /// It also records what changes.
    #[must_use]
    pub fn recording(self, audit: Audit) -> Self {
        Self { edits: audit.is_on().then(|| Mutex::new(Edits::new(audit))), ..self }
    }

    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    pub fn for_ledger(&self) -> watch::Receiver<Arc<Configured>> {
        self.for_ledger.subscribe()
    }

    /// Reads what has changed in a folder. What is in force is held once, by the world.
    fn read(&self, folder: &mut Folder) -> Result<Reading, FolderError> {
        folder.read(locked(&self.world).objects())
    }

    /// Publishes what changes of objects mean, and tells of it.
    fn take(&self, changes: Changes, findings: Vec<Finding>, told: &mut Told, metrics: &Metrics) {
        let changed = self.publish(changes, findings);
        let errors = told.tell(&self.published.borrow().findings);
        if errors == 0 {
            metrics.reload_taken();
        } else {
            metrics.reload_refused();
        }
        if changed > 0 {
            tracing::info!("reloaded: {changed} changed resources");
        } else {
            tracing::debug!("reloaded: nothing that is served has changed");
        }
    }

    /// Publishes what changes of objects mean. Returns how many resources they change.
    pub fn publish(&self, changes: Changes, mut findings: Vec<Finding>) -> usize {
        let mut world = locked(&self.world);
        let mut edits = self.edits.as_ref().map(|edits| edits.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(edits) = &mut edits {
            edits.objects(world.objects(), &changes);
            edits.refused(&findings);
        }
        let delta = world.step(changes);
        if let Some(edits) = &mut edits {
            edits.keys(&delta.keys, &world.ir().keys);
        }
        let given = findings.clone();
        findings.extend(world.findings());
        findings.extend(envoy::findings(world.objects(), world.ir(), &self.surroundings.filter));
        let before = Arc::clone(&self.published.borrow());
        let next = Publication {
            placement: &self.setting.placement,
            world: &world,
            delta: &delta,
            surroundings: &self.surroundings,
            before: &before,
        };
        let keys = next.keys();
        let (gateways, changed) = next.gateways(&keys);
        let (all, mut changed) = next.all(&gateways, &changed, &keys);
        let (workloads, of_workloads) = next.workloads(&keys);
        changed.merge(&of_workloads);
        // The ledger knows a limit before any filter asks for tokens of it.
        let known = Arc::clone(&self.for_ledger.borrow());
        if let Some(configured) = next.configured(&known, &gateways, &workloads) {
            self.for_ledger.send_replace(Arc::new(configured));
        }
        let (generation, models) = (next.generation(), next.models());
        // Whoever looks at what is published may ask the world while it looks, and would wait for us as we for it.
        drop(world);
        let world = Arc::clone(&self.world);
        let placement = self.setting.placement.clone();
        let keys = keys.all;
        let next = Published { generation, gateways, workloads, all, placement, keys, findings, given, models, world };
        self.published.send_replace(Arc::new(next));
        if let Some(due) = &self.due {
            due.note(delta.statuses);
        }
        changed.len()
    }
}
