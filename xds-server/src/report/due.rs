//! Which objects' statuses are to be looked at, and what the cluster says of them. The watches and the pipeline tell, and
//! the writer of statuses asks.
//!
//! Of a status in the cluster only a print is kept. That is enough to see that nothing is to be written, so a restart
//! writes nothing, and ten thousand routes take no more than their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::civil::Date;
use tokio::sync::Notify;
use tollgate_core::objects::Key;
use tollgate_core::status::StatusKind;
use tollgate_core::written::Print;

/// An object that has a status.
pub type Whose = (StatusKind, Key);

/// Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Due {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: BTreeSet<Whose>,
    /// What the cluster says.
    said: BTreeMap<Whose, Print>,
}

// === impl Due ===

impl Due {
    /// The statuses of these objects may be others now.
    pub fn note(&self, objects: impl IntoIterator<Item = Whose>) {
        self.state().due.extend(objects);
        self.inner.woken.notify_one();
    }

    /// The cluster has this status of an object.
    pub fn saw(&self, object: Whose, print: Print) {
        let mut state = self.state();
        if state.said.insert(object.clone(), print) != Some(print) {
            state.due.insert(object);
            drop(state);
            self.inner.woken.notify_one();
        }
    }

    /// We wrote it, or read it. The watch tells the same a little later, and that is no news.
    pub fn knows(&self, object: Whose, print: Print) {
        self.state().said.insert(object, print);
    }

    /// The cluster does not have the object any more.
    pub fn forget(&self, object: &Whose) {
        self.state().said.remove(object);
    }

    /// What the cluster says of an object. None: it has not said anything.
    pub fn said(&self, object: &Whose) -> Option<Print> {
        self.state().said.get(object).copied()
    }

    /// The Consumers of which the cluster says what they spent on another day.
    pub fn behind(&self, today: Date) -> Vec<Whose> {
        let is_behind = |print: &Print| print.spent_today().is_some_and(|spent| spent.date != today);
        self.state().said.iter().filter(|(_, print)| is_behind(print)).map(|(object, _)| object.clone()).collect()
    }

    /// What is to be looked at since this was asked last.
    pub fn take(&self) -> BTreeSet<Whose> {
        std::mem::take(&mut self.state().due)
    }

    /// Waits until there is something to look at.
    pub async fn woken(&self) {
        self.inner.woken.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
