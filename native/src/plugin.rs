//! One configuration of the filter, wherever in Envoy it is. Envoy makes an object of it for each listener and cluster
//! that names it; here they are one, because they have the same bytes. Of the request stage it has a root in each
//! island, and calls the control plane through one of Envoy's objects.

mod calls;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tollgate_filter::{
    config::{self, InvalidConfig, Stage},
    counters,
    root::{LIVELY_MS, RootEvent},
    worker,
};

pub use calls::{Call, Calls, News, Sort};

use crate::{
    host::{self, Config, OfConfig, Scheduler, Unsent},
    island, root,
    shared::RECORDS,
    ticker,
};

static PLUGINS: Mutex<Vec<Arc<Plugin>>> = Mutex::new(Vec::new());
static LAST: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub struct Plugin {
    pub number: u32,
    pub bytes: Vec<u8>,
    /// Of the request stage: how it reaches the control plane.
    pub control: Option<Control>,
    places: Mutex<Places>,
    pub calls: Mutex<Calls>,
    /// A tick was sent and has not come.
    is_due: AtomicBool,
    tempo: Mutex<Tempo>,
}

/// How often the roots of a configuration want to tick. Those of all islands tick together, as often as any of them wants.
#[derive(Debug, Default)]
struct Tempo {
    /// In milliseconds, by island. One that is not here has said nothing yet.
    every: HashMap<usize, u64>,
    /// Since the last tick.
    waited_ms: u64,
}

#[derive(Debug)]
pub struct Control {
    pub cluster: String,
    pub metadata: Vec<(String, Vec<u8>)>,
}

/// Envoy's objects of this configuration.
#[derive(Debug, Default)]
struct Places {
    count: usize,
    /// Those that can call and count. The first one does.
    http: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    config: Config,
    scheduler: Arc<Scheduler<OfConfig>>,
    counters: Vec<Option<usize>>,
}

/// What Envoy keeps for one object of its own.
#[derive(Debug)]
pub struct Member {
    pub plugin: Arc<Plugin>,
    config: Option<Config>,
}

/// What a configuration is told on the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    Tick,
    Rang { island: usize },
    WokenByLedger { island: usize },
    WokenByTick { island: usize },
}

/// All that are in Envoy now, in the order in which they came.
pub fn all() -> Vec<Arc<Plugin>> {
    plugins().clone()
}

fn plugins() -> MutexGuard<'static, Vec<Arc<Plugin>>> {
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn of_number(number: u32) -> Option<Arc<Plugin>> {
    plugins().iter().find(|plugin| plugin.number == number).cloned()
}

/// Takes in a configuration for one object of Envoy's. On the main thread.
///
/// # Errors
/// When it is not one of ours.
pub fn configure(bytes: &[u8], config: Option<Config>) -> Result<Member, InvalidConfig> {
    let plugin = match joined(bytes, config) {
        Some(plugin) => plugin,
        None => begin(bytes, config)?,
    };
    Ok(Member { plugin, config })
}

/// None: it is in no place. Whoever leaves the last one takes it out of the list, so the list stays as it is meanwhile.
fn joined(bytes: &[u8], config: Option<Config>) -> Option<Arc<Plugin>> {
    let plugins = plugins();
    let plugin = plugins.iter().find(|plugin| plugin.bytes == bytes)?;
    plugin.join(config);
    Some(plugin.clone())
}

fn begin(bytes: &[u8], config: Option<Config>) -> Result<Arc<Plugin>, InvalidConfig> {
    let control = match config::parse(bytes)?.stage {
        Stage::Request(stage) => Some(Control {
            metadata: stage.metadata().into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            cluster: stage.control_cluster,
        }),
        Stage::Attempt(_) | Stage::Connection(_) => None,
    };
    worker::prepare_records(*RECORDS, host::now_ns());
    let plugin = Arc::new(Plugin {
        number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
        bytes: bytes.to_owned(),
        control,
        places: Mutex::default(),
        calls: Mutex::default(),
        is_due: AtomicBool::new(false),
        tempo: Mutex::default(),
    });
    plugin.join(config);
    plugins().push(plugin.clone());
    for (number, island) in island::all() {
        if island.is_empty() {
            root::revive(number, island);
        } else {
            island.with(|inner| inner.load(&plugin));
            root::step(&plugin, number, RootEvent::Configured);
        }
    }
    root::step_back_before(&plugin);
    if plugin.control.is_some() {
        ticker::start();
    }
    Ok(plugin)
}

/// As before anything was configured.
#[cfg(test)]
pub fn forget_all() {
    plugins().clear();
}

// === impl Plugin ===

impl Plugin {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, config: Option<Config>) {
        let place = config.filter(|_| self.control.is_some()).map(|config| Place {
            config,
            scheduler: Arc::new(config.scheduler()),
            counters: counters::metric_names().map(|name| config.define_counter(&name)).collect(),
        });
        let mut places = self.places();
        places.count += 1;
        places.http.extend(place);
    }

    /// Envoy's object by which to call.
    pub fn config(&self) -> Option<Config> {
        self.places().http.first().map(|place| place.config)
    }

    /// From any thread.
    pub fn tell(&self, notice: Notice) {
        let unsent =
            self.places().http.first().map(|place| Unsent { to: place.scheduler.clone(), event: notice.number() });
        if let Some(unsent) = unsent {
            unsent.send();
        }
    }

    fn tempo(&self) -> MutexGuard<'_, Tempo> {
        self.tempo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much time has passed. Sends a tick if one is wanted, unless the last one has not come yet.
    pub fn passed(&self, millis: u64) {
        // One that failed refuses until the next tick, so it does not wait for those that rest.
        let living = island::all().filter(|(_, island)| !island.is_empty()).count();
        let may_rest = living == island::ISLANDS.len();
        let is_time = self.control.is_some() && self.tempo().passed(millis, may_rest.then_some(living));
        if is_time && !self.is_due.swap(true, Ordering::AcqRel) {
            self.tell(Notice::Tick);
        }
    }

    /// The root of this island wants to tick so often from now on.
    pub fn tick_every(&self, island: usize, millis: u64) {
        self.tempo().every.insert(island, millis);
    }

    /// The tick has come.
    pub fn ticked(&self) {
        self.is_due.store(false, Ordering::Release);
    }

    /// Adds to Envoy's counters. On the main thread.
    pub fn count(&self, counts: &[u64]) {
        let places = self.places();
        let Some(place) = places.http.first() else { return };
        for (counter, count) in place.counters.iter().zip(counts) {
            if let (Some(counter), 1..) = (counter, *count) {
                place.config.add(*counter, *count);
            }
        }
    }
}

// === impl Tempo ===

impl Tempo {
    /// So much time has passed. Whether it is time for a tick, among so many islands. None: one of them is empty.
    fn passed(&mut self, millis: u64, islands: Option<usize>) -> bool {
        self.waited_ms = self.waited_ms.saturating_add(millis);
        let have_all_said = islands.is_some_and(|islands| self.every.len() >= islands);
        let every = self.every.values().copied().min().filter(|_| have_all_said).unwrap_or(LIVELY_MS);
        let is_time = self.waited_ms >= every;
        if is_time {
            self.waited_ms = 0;
        }
        is_time
    }
}

// === impl Member ===

impl Member {
    /// Envoy destroys its object.
    pub fn leave(self) {
        let plugin = self.plugin;
        let (was_last, gone) = {
            let mut plugins = plugins();
            let mut places = plugin.places();
            places.count -= 1;
            let gone: Vec<Place> = places.http.extract_if(.., |place| Some(place.config) == self.config).collect();
            // The tick that this place was sent comes no more.
            plugin.ticked();
            let was_last = places.count == 0;
            if was_last {
                plugins.retain(|other| other.number != plugin.number);
            }
            (was_last, gone)
        };
        // Its scheduler ends here, where no lock is held.
        drop(gone);
        if let Some(config) = self.config {
            // Another object may be there to call by, but this may be any thread. The next tick tells the roots.
            plugin.calls().lose(config);
        }
        // Where there is no object, no root calls any more.
        if was_last {
            for (number, _) in island::all() {
                root::step(&plugin, number, RootEvent::Done);
            }
            for (_, island) in island::all() {
                island.with(|inner| inner.unload(plugin.number));
            }
        }
    }
}

// === impl Notice ===

impl Notice {
    /// As Envoy carries it: the sort, and the island's number.
    fn number(self) -> u64 {
        let (sort, island) = match self {
            Self::Tick => (0, 0),
            Self::Rang { island } => (1, island),
            Self::WokenByLedger { island } => (2, island),
            Self::WokenByTick { island } => (3, island),
        };
        (sort << 32) | u64::try_from(island).unwrap_or(0)
    }

    pub fn of_number(number: u64) -> Option<Self> {
        let island = usize::try_from(number & u64::from(u32::MAX)).ok()?;
        match number >> 32 {
            0 => Some(Self::Tick),
            1 => Some(Self::Rang { island }),
            2 => Some(Self::WokenByLedger { island }),
            3 => Some(Self::WokenByTick { island }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_tick_as_often_as_any_of_them_wants() {
        let mut tempo = Tempo::default();
        let mut ticks = |every: &[(usize, u64)]| {
            tempo.every = every.iter().copied().collect();
            tempo.waited_ms = 0;
            (0..20).filter(|_| tempo.passed(100, Some(2))).count()
        };
        assert_eq!(ticks(&[]), 20, "nobody has said");
        assert_eq!(ticks(&[(0, 1000)]), 20, "one has not said");
        assert_eq!(ticks(&[(0, 1000), (1, 1000)]), 2);
        assert_eq!(ticks(&[(0, 1000), (1, 100)]), 20);
        let every = [(0, 1000), (1, 1000)].into_iter().collect();
        assert!(Tempo { every, waited_ms: 0 }.passed(100, None), "one is empty");
    }

    #[test]
    fn a_notice_comes_as_it_was_sent() {
        let notices = [Notice::Tick, Notice::Rang { island: 0 }, Notice::WokenByLedger { island: 7 }];
        for notice in notices.into_iter().chain([Notice::WokenByTick { island: 1 }]) {
            assert_eq!(Notice::of_number(notice.number()), Some(notice));
        }
        assert_eq!(Notice::of_number(4 << 32), None);
    }
}
