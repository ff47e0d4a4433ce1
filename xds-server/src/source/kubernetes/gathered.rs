//! What all watches have told so far. It is pure: events go in; changes, findings and what is to be got come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tollgate_core::objects::{Cluster, Key, Needed, Selection};
use tollgate_core::status::Finding;

use super::Reading;
use super::got::Got;
use super::kinds::{Watched, watch_of};
use super::needs::{Needs, Next};
use super::trouble::{Cause, Trouble};
use super::watch::{Seen, Told};

/// An API server that has just started may forbid what it will allow when it knows all roles. So what is forbidden at the
/// start is believed only after this time.
const DISBELIEF: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Gathered {
    cluster: Cluster,
    /// By number, of which none is given twice.
    watches: BTreeMap<usize, Watch>,
    next: usize,
    needs: Needs,
    /// What was told last.
    told: Vec<Finding>,
}

#[derive(Debug)]
struct Watch {
    watched: Watched,
    /// Those of the list that has begun.
    listed: BTreeSet<Key>,
    /// Of a selection: the objects that it has, because others may have them too.
    has: BTreeSet<Key>,
    /// What there is of its kind is known.
    was_listed: bool,
    /// The last thing that went wrong, and since when something does.
    trouble: Option<(Trouble, Instant)>,
}

/// What is to be done after an event.
#[derive(Debug, Default)]
pub struct Asks {
    /// What to get.
    pub get: Vec<Needed>,
    /// What is not to be got any more.
    pub forget: Vec<Needed>,
    /// What to watch, by number.
    pub watch: Vec<(usize, Watched)>,
    /// Which watches to end.
    pub end: Vec<usize>,
    /// There may be something to read.
    pub is_news: bool,
}

// === impl Gathered ===

impl Gathered {
    pub fn new(watched: Vec<Watched>) -> Self {
        let next = watched.len();
        let watches = watched.into_iter().map(Watch::new).enumerate().collect();
        Self { cluster: Cluster::default(), watches, next, needs: Needs::default(), told: Vec::new() }
    }

    pub fn kind(&self, watch: usize) -> &'static str {
        self.watches.get(&watch).map_or("", |watch| watch.watched.kind)
    }

    /// Whether somebody misses what this watch cannot read.
    pub fn misses(&self, watch: usize, cause: &Cause) -> bool {
        self.watches.get(&watch).is_some_and(|watch| watch.watched.is_missed(cause))
    }

    /// A watch has told something. One that was ended has nothing to tell.
    pub fn take(&mut self, id: usize, told: Told, now: Instant) -> Asks {
        let Some(watch) = self.watches.get_mut(&id) else { return Asks::default() };
        let kind = watch.watched.kind;
        let mut asks = Asks { is_news: true, ..Asks::default() };
        match told {
            Told::Lists => {
                watch.listed.clear();
                asks.is_news = false;
            }
            Told::Listed(seen) => {
                asks.is_news = watch.was_listed;
                watch.listed.insert(seen.key().clone());
                self.see(id, kind, seen, &mut asks);
            }
            Told::ListedAll => {
                let listed = std::mem::take(&mut watch.listed);
                (watch.was_listed, watch.trouble) = (true, None);
                if watch.watched.selection.is_some() {
                    let gone: Vec<Key> = watch.has.difference(&listed).cloned().collect();
                    gone.iter().for_each(|key| self.loses(id, kind, key));
                } else {
                    let namespace = watch.watched.namespace.clone();
                    self.keep_only(kind, namespace.as_deref(), &listed);
                }
            }
            Told::Applied(seen) => {
                watch.trouble = None;
                self.see(id, kind, seen, &mut asks);
            }
            Told::Deleted(key) => {
                watch.trouble = None;
                if watch.watched.selection.is_some() {
                    self.loses(id, kind, &key);
                } else if !Needed::is_kind(kind) || self.needs.gone(&Needed { kind, key: key.clone() }) {
                    self.cluster.remove(kind, &key);
                } else {
                    asks.is_news = false;
                }
            }
            Told::Fails(trouble) if trouble.is_gap() => asks.is_news = false,
            Told::Fails(trouble) => {
                let since = watch.trouble.take().map_or(now, |(_, since)| since);
                watch.trouble = Some((trouble, since));
            }
            Told::Recovers => watch.trouble = None,
        }
        self.follow_references(&mut asks);
        self.follow_selections(&mut asks);
        asks
    }

    /// Something was asked for.
    pub fn take_got(&mut self, needed: &Needed, got: Got, now: Instant) -> Asks {
        let mut asks = Asks { is_news: true, ..Asks::default() };
        let next = match got {
            Got::Fails(trouble) => {
                self.needs.fails(needed, trouble, now);
                return asks;
            }
            Got::Object { version, document } => {
                let next = self.needs.got(needed, Some(version));
                if next.is_some() {
                    self.upsert(document);
                }
                next
            }
            Got::NotThere => {
                let next = self.needs.got(needed, None);
                self.cluster.remove(needed.kind, &needed.key);
                next
            }
        };
        if next == Some(Next::Ask) {
            asks.get.push(needed.clone());
        }
        asks
    }

    fn see(&mut self, id: usize, kind: &'static str, seen: Seen, asks: &mut Asks) {
        match seen {
            Seen::Object { key, document } => {
                let selecting = self.watches.get_mut(&id).filter(|watch| watch.watched.selection.is_some());
                if let Some(watch) = selecting {
                    watch.has.insert(key.clone());
                    if self.knows_newer(&key, &document) {
                        return;
                    }
                }
                self.upsert(document);
            }
            Seen::Version { key, version } => {
                asks.is_news = false;
                let needed = Needed { kind, key };
                if self.needs.seen(&needed, &version) == Next::Ask {
                    asks.get.push(needed);
                }
            }
        }
    }

    /// Whether another watch has told of a later version of this Pod. Versions are numbers that grow (KEP-5504).
    fn knows_newer(&self, key: &Key, document: &Value) -> bool {
        let known = self.cluster.objects().pods.get(&key.namespace, &key.name);
        let known = known.and_then(|pod| pod.meta.provenance.cluster());
        let text = |name: &str| document.get("metadata").and_then(|metadata| metadata.get(name)?.as_str());
        let number = |version: &str| version.parse::<u64>().ok();
        known.is_some_and(|known| {
            let numbers = number(&known.resource_version).zip(text("resourceVersion").and_then(number));
            text("uid") == Some(&*known.uid) && numbers.is_some_and(|(known, told)| told < known)
        })
    }

    /// A selection has an object no more. It is gone if no other one has it.
    fn loses(&mut self, id: usize, kind: &'static str, key: &Key) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.has.remove(key);
        }
        if !self.watches.values().any(|watch| watch.has.contains(key)) {
            self.cluster.remove(kind, key);
        }
    }

    fn upsert(&mut self, document: Value) {
        if let Err(error) = self.cluster.upsert(document) {
            // Only kinds that the core knows are watched.
            tracing::warn!("an object is left out: {error}");
        }
    }

    fn keep_only(&mut self, kind: &'static str, namespace: Option<&str>, listed: &BTreeSet<Key>) {
        match kind {
            _ if Needed::is_kind(kind) => {
                let of_kind = self.needs.all().filter(|needed| needed.kind == kind);
                let of_watch = of_kind.filter(|needed| namespace.is_none_or(|of| *needed.key.namespace == *of));
                let gone: Vec<Needed> = of_watch.filter(|needed| !listed.contains(&needed.key)).cloned().collect();
                for needed in gone {
                    self.needs.gone(&needed);
                    self.cluster.remove(kind, &needed.key);
                }
            }
            "TokenPolicy" => {
                self.cluster.has_unknown_policies(namespace, false);
                self.cluster.keep_only(kind, namespace, listed);
            }
            _ => self.cluster.keep_only(kind, namespace, listed),
        }
    }

    /// Asks for what objects refer to since now, and forgets those that they do not refer to any more.
    fn follow_references(&mut self, asks: &mut Asks) {
        for needed in self.cluster.other_needed() {
            if self.cluster.needs(&needed) {
                if self.needs.want(needed.clone()) == Next::Ask {
                    asks.get.push(needed);
                }
            } else {
                self.needs.forget(&needed);
                self.cluster.remove(needed.kind, &needed.key);
                asks.forget.push(needed);
            }
        }
    }

    /// Watches what objects select since now, and ends the watches of what they do not select any more.
    fn follow_selections(&mut self, asks: &mut Asks) {
        for selection in self.cluster.other_selected() {
            if self.cluster.selects(&selection) {
                let Some(watched) = watch_of(&selection) else { continue };
                self.watches.insert(self.next, Watch::new(watched.clone()));
                asks.watch.push((self.next, watched));
                self.next += 1;
            } else if let Some(id) = self.selecting(&selection) {
                let watch = self.watches.remove(&id);
                asks.end.push(id);
                for key in watch.iter().flat_map(|watch| &watch.has) {
                    self.loses(id, watch.as_ref().map_or("", |watch| watch.watched.kind), key);
                }
            }
        }
    }

    fn selecting(&self, selection: &Selection) -> Option<usize> {
        let mut watches = self.watches.iter();
        watches.find(|(_, watch)| watch.watched.selection.as_ref() == Some(selection)).map(|(id, _)| *id)
    }

    /// Whether everything is known that can be known.
    pub fn is_synced(&self, now: Instant) -> bool {
        self.unsettled().all(|settles| settles.is_some_and(|at| at <= now))
    }

    /// When it will be, if nothing else happens. None: that takes an event.
    pub fn settles_at(&self) -> Option<Instant> {
        self.unsettled().try_fold(None, |last: Option<Instant>, settles| Some(last.max(Some(settles?)))).flatten()
    }

    /// When each thing that is not known is believed to stay unknown. None: never.
    fn unsettled(&self) -> impl Iterator<Item = Option<Instant>> {
        let watches = self.watches.values().filter(|watch| !watch.was_listed);
        let of_watches = watches.map(|watch| {
            let (trouble, since) = watch.trouble.as_ref()?;
            match trouble.cause {
                Cause::NotServed => Some(*since),
                Cause::Denied(_) if watch.watched.is_optional => Some(*since),
                Cause::Denied(_) => Some(*since + DISBELIEF),
                _ => None,
            }
        });
        let of_needs = self.needs.unknown().map(|trouble| {
            let (trouble, since) = trouble?;
            matches!(trouble.cause, Cause::Denied(_)).then(|| *since + DISBELIEF)
        });
        of_watches.chain(of_needs)
    }

    /// What is not known by now is not going to be known soon. TokenPolicies that nobody may read close what they may be
    /// for, because they may be what limits it.
    pub fn close_what_is_unknown(&mut self) {
        let policies = self.watches.values().filter(|watch| watch.watched.kind == "TokenPolicy" && !watch.was_listed);
        let denied = policies.filter(|watch| {
            watch.trouble.as_ref().is_some_and(|(trouble, _)| matches!(trouble.cause, Cause::Denied(_)))
        });
        for namespace in denied.map(|watch| watch.watched.namespace.clone()).collect::<Vec<_>>() {
            self.cluster.has_unknown_policies(namespace.as_deref(), true);
        }
    }

    /// What is wrong: with objects, and between us and the API server.
    pub fn findings(&self) -> Vec<Finding> {
        let troubles = self.watches.values().filter_map(|watch| {
            let trouble = watch.trouble.as_ref().map(|(trouble, _)| trouble);
            trouble.filter(|trouble| watch.watched.is_missed(&trouble.cause))
        });
        let troubles = troubles.chain(self.needs.troubles()).filter_map(Trouble::finding);
        // All watches may say the same.
        let troubles: BTreeSet<Finding> = troubles.collect();
        troubles.into_iter().chain(self.cluster.findings()).collect()
    }

    /// None: nothing is new.
    pub fn read(&mut self) -> Option<Reading> {
        let (changes, findings) = (self.cluster.changes(), self.findings());
        if changes.is_empty() && findings == self.told {
            return None;
        }
        self.told.clone_from(&findings);
        Some(Reading { changes, findings })
    }
}

// === impl Watch ===

impl Watch {
    fn new(watched: Watched) -> Self {
        Self { watched, listed: BTreeSet::new(), has: BTreeSet::new(), was_listed: false, trouble: None }
    }
}

// === impl Seen ===

impl Seen {
    fn key(&self) -> &Key {
        let (Self::Object { key, .. } | Self::Version { key, .. }) = self;
        key
    }
}
