//! Which objects of ours there are, by watches of their metadata.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use tollgate_core::fleet::MANAGED_BY;
use tollgate_core::istio::{KeptKind, KeptName, is_name};
use tollgate_core::objects::Key;

use crate::causes::SaidOnce;

type Object = PartialObjectMeta<DynamicObject>;

/// An event of one watch.
pub struct Seen {
    watch: usize,
    kind: KeptKind,
    event: Event<Object>,
}

/// The watches. They go on whatever fails.
pub struct Watching(SelectAll<BoxStream<'static, Seen>>);

/// What there is.
#[derive(Debug, Default)]
pub struct There {
    objects: BTreeMap<KeptName, Found>,
    /// The watches that have listed all they have.
    listed: BTreeSet<usize>,
    /// What a watch has listed so far that lists again.
    listing: BTreeMap<usize, BTreeSet<KeptName>>,
    watches: usize,
}

#[derive(Debug)]
struct Found {
    watch: usize,
    generation: i64,
}

pub fn resource(kind: KeptKind) -> ApiResource {
    let [group, version, kind] = kind.type_of();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

// === impl Watching ===

impl Watching {
    pub fn start(client: &Client, namespaces: &[String]) -> Self {
        let apis = KeptKind::ALL.into_iter().flat_map(|kind| {
            let resource = resource(kind);
            let apis: Vec<Api<Object>> = if namespaces.is_empty() {
                vec![Api::all_with(client.clone(), &resource)]
            } else {
                namespaces.iter().map(|name| Api::namespaced_with(client.clone(), name, &resource)).collect()
            };
            apis.into_iter().map(move |api| (kind, api))
        });
        let streams = apis.enumerate().map(|(watch, (kind, api))| {
            let config = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
            let mut said = SaidOnce::default();
            let events = watcher(api, config).default_backoff().filter_map(move |event| {
                let seen = match event {
                    Ok(event) => {
                        said.forget();
                        Some(Seen { watch, kind, event })
                    }
                    Err(error) => {
                        tell(kind, &error.to_string(), &mut said);
                        None
                    }
                };
                std::future::ready(seen)
            });
            events.boxed()
        });
        Self(select_all(streams.collect::<Vec<_>>()))
    }

    pub async fn next(&mut self) -> Seen {
        match self.0.next().await {
            Some(seen) => seen,
            // They never end.
            None => std::future::pending().await,
        }
    }
}

fn tell(kind: KeptKind, error: &str, said: &mut SaidOnce) {
    if said.is_new(error) {
        tracing::warn!("{kind}s cannot be watched: {error} (no sidecar gets a filter until they are)");
    }
}

// === impl There ===

impl There {
    /// For one watch of each kind, or one in each of these namespaces.
    pub fn new(namespaces: &[String]) -> Self {
        Self { watches: namespaces.len().max(1) * KeptKind::ALL.len(), ..Self::default() }
    }

    /// Whether all is listed. Before that nobody knows what there is.
    pub fn is_known(&self) -> bool {
        self.listed.len() == self.watches
    }

    /// None: there is none of this name that is ours.
    pub fn generation(&self, name: &KeptName) -> Option<i64> {
        self.objects.get(name).map(|found| found.generation)
    }

    /// Takes an event. Returns the names of what came, changed or went.
    pub fn take(&mut self, Seen { watch, kind, event }: Seen) -> Vec<KeptName> {
        match event {
            Event::Init => {
                self.listing.insert(watch, BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => self.came(watch, kind, &object).into_iter().collect(),
            Event::Delete(object) => {
                let name = name(kind, &object);
                self.objects.remove(&name).map(|_| name).into_iter().collect()
            }
            Event::InitDone => {
                self.listed.insert(watch);
                let listed = self.listing.remove(&watch).unwrap_or_default();
                // Nobody told of what went while the watch was interrupted.
                let is_gone = |name: &&KeptName, found: &Found| found.watch == watch && !listed.contains(*name);
                let gone = self.objects.iter().filter(|(name, found)| is_gone(name, found));
                let gone: Vec<KeptName> = gone.map(|(name, _)| name.clone()).collect();
                self.objects.retain(|name, _| !gone.contains(name));
                gone
            }
        }
    }

    /// None: it is not one that is kept. A person may have made some with our label for something else.
    fn came(&mut self, watch: usize, kind: KeptKind, object: &Object) -> Option<KeptName> {
        let name = name(kind, object);
        if !is_name(&name.key.name) {
            return None;
        }
        self.listing.entry(watch).and_modify(|listed| {
            listed.insert(name.clone());
        });
        let generation = object.metadata.generation.unwrap_or_default();
        self.objects.insert(name.clone(), Found { watch, generation });
        Some(name)
    }
}

fn name(kind: KeptKind, object: &Object) -> KeptName {
    KeptName { kind, key: Key::new(object.namespace().unwrap_or_default(), object.name_any()) }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;

    fn filter(name: &str, generation: i64) -> Object {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("team".to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        Object { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    fn took(there: &mut There, watch: usize, event: Event<Object>) -> Vec<String> {
        let kind = KeptKind::EnvoyFilter;
        there.take(Seen { watch, kind, event }).into_iter().map(|name| name.key.name.to_string()).collect()
    }

    #[test]
    fn it_is_known_when_all_watches_have_listed() {
        let mut there = There::new(&["a".to_owned(), "b".to_owned()]);
        for watch in [0, 0, 1, 3, 2] {
            assert!(!there.is_known());
            took(&mut there, watch, Event::Init);
            took(&mut there, watch, Event::InitDone);
        }
        assert!(there.is_known());
        assert!(!There::new(&[]).is_known(), "there is always one watch");
    }

    #[test]
    fn what_comes_changes_and_goes_is_told() {
        let mut there = There::new(&[]);
        let key = KeptName { kind: KeptKind::EnvoyFilter, key: Key::new("team", "tollgate-inbound-a") };
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-inbound-a", 1))), ["tollgate-inbound-a"]);
        assert_eq!(there.generation(&key), Some(1));
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-inbound-a", 2))), ["tollgate-inbound-a"]);
        assert_eq!((there.generation(&key), there.objects.len()), (Some(2), 1));
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-other", 1))), <[&str; 0]>::default());
        assert_eq!(took(&mut there, 0, Event::Delete(filter("tollgate-inbound-a", 2))), ["tollgate-inbound-a"]);
        assert_eq!((there.generation(&key), there.objects.len()), (None, 0));
    }

    #[test]
    fn what_went_unseen_is_told_when_the_watch_lists_again() {
        let mut there = There::new(&["a".to_owned(), "b".to_owned()]);
        for (watch, name) in [(0, "tollgate-inbound-a"), (0, "tollgate-inbound-b"), (1, "tollgate-inbound-c")] {
            took(&mut there, watch, Event::Apply(filter(name, 1)));
        }
        took(&mut there, 0, Event::Init);
        took(&mut there, 0, Event::InitApply(filter("tollgate-inbound-b", 1)));
        assert_eq!(took(&mut there, 0, Event::InitDone), ["tollgate-inbound-a"]);
        let left: Vec<&str> = there.objects.keys().map(|name| &*name.key.name).collect();
        assert_eq!(left, ["tollgate-inbound-b", "tollgate-inbound-c"]);
    }
}
