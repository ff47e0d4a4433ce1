//! What all watches have told so far. It is pure: events go in; changes, findings and what is to be got come out.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_core::objects::{Cluster, Key, Needed};
use tollgate_core::status::Finding;

use super::Reading;
use super::got::Got;
use super::kinds::Watched;
use super::needs::{Needs, Next};
use super::trouble::{Cause, Trouble};
use super::watch::{Seen, Told};

/// An API server that has just started may forbid what it will allow when it knows all roles. So what is forbidden at the
/// start is believed only after this time.
const DISBELIEF: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Gathered {
    cluster: Cluster,
    watches: Vec<Watch>,
    needs: Needs,
    /// What was told last.
    told: Vec<Finding>,
}

#[derive(Debug)]
struct Watch {
    watched: Watched,
    /// Those of the list that has begun.
    listed: BTreeSet<Key>,
    /// What there is of its kind is known.
    was_listed: bool,
    /// The last thing that went wrong, and since when something does.
    trouble: Option<(Trouble, Instant)>,
}

/// What is to be done after an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// What to get.
    pub get: Vec<Needed>,
    /// What is not to be got any more.
    pub forget: Vec<Needed>,
    /// There may be something to read.
    pub is_news: bool,
}

// === impl Gathered ===

impl Gathered {
    pub fn new(watched: Vec<Watched>) -> Self {
        let watch = |watched| Watch { watched, listed: BTreeSet::new(), was_listed: false, trouble: None };
        let watches = watched.into_iter().map(watch).collect();
        Self { cluster: Cluster::default(), watches, needs: Needs::default(), told: Vec::new() }
    }

    pub fn kind(&self, watch: usize) -> &'static str {
        self.watches.get(watch).map_or("", |watch| watch.watched.kind)
    }

    /// A watch has told something.
    pub fn take(&mut self, watch: usize, told: Told, now: Instant) -> Asks {
        let Some(watch) = self.watches.get_mut(watch) else { return Asks::default() };
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
                self.see(kind, seen, &mut asks);
            }
            Told::ListedAll => {
                let listed = std::mem::take(&mut watch.listed);
                (watch.was_listed, watch.trouble) = (true, None);
                let namespace = watch.watched.namespace.clone();
                self.keep_only(kind, namespace.as_deref(), &listed);
            }
            Told::Applied(seen) => {
                watch.trouble = None;
                self.see(kind, seen, &mut asks);
            }
            Told::Deleted(key) => {
                watch.trouble = None;
                if !Needed::is_kind(kind) || self.needs.gone(&Needed { kind, key: key.clone() }) {
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

    fn see(&mut self, kind: &'static str, seen: Seen, asks: &mut Asks) {
        match seen {
            Seen::Object { document, .. } => self.upsert(document),
            Seen::Version { key, version } => {
                asks.is_news = false;
                let needed = Needed { kind, key };
                if self.needs.seen(&needed, &version) == Next::Ask {
                    asks.get.push(needed);
                }
            }
        }
    }

    fn upsert(&mut self, document: serde_json::Value) {
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
        let watches = self.watches.iter().filter(|watch| !watch.was_listed);
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
        let policies = self.watches.iter().filter(|watch| watch.watched.kind == "TokenPolicy" && !watch.was_listed);
        let denied = policies.filter(|watch| {
            watch.trouble.as_ref().is_some_and(|(trouble, _)| matches!(trouble.cause, Cause::Denied(_)))
        });
        for namespace in denied.map(|watch| watch.watched.namespace.clone()).collect::<Vec<_>>() {
            self.cluster.has_unknown_policies(namespace.as_deref(), true);
        }
    }

    /// What is wrong: with objects, and between us and the API server.
    pub fn findings(&self) -> Vec<Finding> {
        let watches = self.watches.iter().filter(|watch| {
            let denied = |(trouble, _): &(Trouble, _)| matches!(trouble.cause, Cause::Denied(_));
            !(watch.watched.is_optional && watch.trouble.as_ref().is_some_and(denied))
        });
        let troubles = watches.filter_map(|watch| watch.trouble.as_ref().map(|(trouble, _)| trouble));
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

// === impl Seen ===

impl Seen {
    fn key(&self) -> &Key {
        let (Self::Object { key, .. } | Self::Version { key, .. }) = self;
        key
    }
}
