//! What one thread of Envoy has of the core: its worker, its streams, the roots of its configurations. Its own thread
//! comes here with each callback of a stream. The main thread comes here with ticks and with answers of the control
//! plane, because Envoy has no time for a worker without a stream. The lock between the two is seldom waited for.
//!
//! An island in which the core panicked is empty until the next tick. Until then it refuses requests. Then it begins as
//! a new worker, and another one charges what the old one had taken (`tollgate_filter::roll`).

mod wakes;

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{LazyLock, Mutex, PoisonError},
};

use tollgate_filter::{
    config::{self, Config, Stage},
    root::{Root, RootEvent, RootOrder, Surroundings},
    stream::Callback,
    worker::Worker,
};

use crate::{
    host::{self, OfStream, Unsent},
    node,
    plugin::Plugin,
    shared::RECORDS,
    stream::Stream,
};
use wakes::Wakes;
pub use wakes::Woken;

/// One for each worker thread by its number, and one for the main thread after those.
pub static ISLANDS: LazyLock<Vec<Island>> =
    LazyLock::new(|| (0..=host::concurrency()).map(|_| Island::default()).collect());

#[derive(Default)]
pub struct Island(Mutex<State>);

#[derive(Default)]
enum State {
    /// The core panicked, or has not begun.
    #[default]
    Empty,
    Living(Box<Inner>),
}

#[derive(Default)]
pub struct Inner {
    pub worker: Worker,
    pub streams: HashMap<u64, Stream>,
    pub wakes: Wakes,
    /// Of each configuration, by its number.
    configs: HashMap<u32, Rc<Config>>,
    roots: BTreeMap<u32, Root>,
    /// The configuration whose root is to hear of the bell.
    pub bell: Option<u32>,
}

// SAFETY: an island's reference counts are not atomic, so they must not be reached by two threads at a time. All that
// shares one of them with a part of an `Inner` is made inside this `Inner` and stays in it: `Island::with` hands out
// nothing that is not `Send`, and what is run there takes in numbers, bytes, schedulers, which are `Send`, and names of
// Envoy's objects. So whoever has the `Inner` has all of it. The names that it keeps are used in hooks of streams alone,
// which run on the one thread of these streams.
unsafe impl Send for Inner {}

/// Of a stream that came to a thread that Envoy does not count.
pub fn of_worker(number: usize) -> usize {
    number.min(host_of_main())
}

fn host_of_main() -> usize {
    ISLANDS.len().saturating_sub(1)
}

/// The island, if there is one of this number.
pub fn at(number: usize) -> Option<&'static Island> {
    ISLANDS.get(number)
}

/// All of them, with their numbers.
pub fn all() -> impl Iterator<Item = (usize, &'static Island)> {
    ISLANDS.iter().enumerate()
}

// === impl Island ===

impl Island {
    /// Runs with what is here. None: the core has panicked, now or before.
    pub fn with<T: Send>(&self, run: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        // Nothing panics while the lock is held, except what is caught below.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Living(inner) = &mut *state else {
            return None;
        };
        if let Ok(result) = catch_unwind(AssertUnwindSafe(|| run(inner))) {
            return Some(result);
        }
        let failed = std::mem::take(&mut *state);
        drop(state);
        if let State::Living(inner) = failed {
            host::warn("tollgate: the filter has failed; what this worker does is ended, and it begins anew");
            // What is left may be in disorder, so that even its end may fail.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                inner.streams.values().filter_map(Stream::wake_for_its_end).for_each(Unsent::send);
                drop(inner);
            }));
        }
        None
    }

    /// Begins, if nothing is here.
    pub fn begin(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Empty) {
            *state = State::Living(Box::default());
        }
    }

    /// As before anything was configured.
    #[cfg(test)]
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Empty;
    }

    pub fn is_empty(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Empty)
    }
}

// === impl Inner ===

impl Inner {
    /// Takes in a configuration, which was read before without a mistake.
    pub fn load(&mut self, plugin: &Plugin) {
        let Ok(config) = config::parse(&plugin.bytes).map(Rc::new) else {
            return;
        };
        if let Stage::Request(stage) = &config.stage {
            self.worker.known.add(&stage.classes);
            if stage.needs_control_plane() {
                self.roots.insert(plugin.number, Root::new(plugin.number));
            }
        }
        self.configs.insert(plugin.number, config);
    }

    /// Streams that have it go on with it.
    pub fn unload(&mut self, plugin: u32) {
        self.configs.remove(&plugin);
        self.roots.remove(&plugin);
        // A root that was to hear of something first can do so no more. Another one takes over.
        if self.worker.owner == Some(plugin) {
            self.worker.owner = None;
        }
    }

    pub fn config(&self, plugin: u32) -> Option<Rc<Config>> {
        self.configs.get(&plugin).cloned()
    }

    /// The root that acts for this worker.
    pub fn acting(&self) -> Option<u32> {
        self.worker.owner
    }

    pub fn step(&mut self, plugin: u32, event: RootEvent<'_>) -> Vec<RootOrder> {
        let Some(root) = self.roots.get_mut(&plugin) else {
            return Vec::new();
        };
        let node = || node::id().to_owned();
        let worker = &mut self.worker;
        root.step(event, &mut Surroundings { worker, shared: *RECORDS, node: &node, now: host::now_ms() })
    }

    /// What gives held requests this callback, each on its own thread. None: there is none.
    pub fn wake(&mut self, plugin: u32, callback: Callback) -> Option<Vec<Unsent<OfStream>>> {
        let held: Vec<u64> = self.streams.iter().filter(|(_, stream)| stream.is_held()).map(|(id, _)| *id).collect();
        let wake = self.wakes.begin(plugin, callback, held.iter().copied())?;
        Some(held.iter().filter_map(|id| self.streams.get(id)?.wake(wake)).collect())
    }
}
