//! Which EnvoyFilters of ours there are, by watches of their metadata.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use tollgate_core::fleet::MANAGED_BY;
use tollgate_core::istio::is_name;
use tollgate_core::objects::Key;

type Object = PartialObjectMeta<DynamicObject>;

/// An event of one watch.
pub struct Seen {
    watch: usize,
    event: Event<Object>,
}

/// The watches. They go on whatever fails.
pub struct Watching(SelectAll<BoxStream<'static, Seen>>);

/// What there is.
#[derive(Debug, Default)]
pub struct There {
    filters: BTreeMap<Key, Filter>,
    /// The watches that have listed all they have.
    listed: BTreeSet<usize>,
    /// What a watch has listed so far that lists again.
    listing: BTreeMap<usize, BTreeSet<Key>>,
    watches: usize,
}

#[derive(Debug)]
struct Filter {
    watch: usize,
    generation: i64,
}

pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1alpha3", "EnvoyFilter"))
}

// === impl Watching ===

impl Watching {
    pub fn start(client: &Client, namespaces: &[String]) -> Self {
        let all = |client: Client| -> Api<Object> { Api::all_with(client, &resource()) };
        let apis: Vec<Api<Object>> = if namespaces.is_empty() {
            vec![all(client.clone())]
        } else {
            namespaces.iter().map(|name| Api::namespaced_with(client.clone(), name, &resource())).collect()
        };
        let streams = apis.into_iter().enumerate().map(|(watch, api)| {
            let config = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
            let mut told = String::new();
            let events = watcher(api, config).default_backoff().filter_map(move |event| {
                let seen = match event {
                    Ok(event) => {
                        told.clear();
                        Some(Seen { watch, event })
                    }
                    Err(error) => {
                        tell(&error.to_string(), &mut told);
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

fn tell(error: &str, told: &mut String) {
    if told != error {
        tracing::warn!("EnvoyFilters cannot be watched: {error} (no sidecar gets a filter until they are)");
        error.clone_into(told);
    }
}

// === impl There ===

impl There {
    /// For so many watches.
    pub fn new(namespaces: &[String]) -> Self {
        Self { watches: namespaces.len().max(1), ..Self::default() }
    }

    /// Whether all is listed. Before that nobody knows what there is.
    pub fn is_known(&self) -> bool {
        self.listed.len() == self.watches
    }

    /// None: there is none of this name that is ours.
    pub fn generation(&self, name: &Key) -> Option<i64> {
        self.filters.get(name).map(|filter| filter.generation)
    }

    /// Takes an event. Returns the names of what came, changed or went.
    pub fn take(&mut self, Seen { watch, event }: Seen) -> Vec<Key> {
        match event {
            Event::Init => {
                self.listing.insert(watch, BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => self.came(watch, &object).into_iter().collect(),
            Event::Delete(object) => {
                let name = name(&object);
                self.filters.remove(&name).map(|_| name).into_iter().collect()
            }
            Event::InitDone => {
                self.listed.insert(watch);
                let listed = self.listing.remove(&watch).unwrap_or_default();
                // Nobody told of what went while the watch was interrupted.
                let is_gone = |name: &&Key, filter: &Filter| filter.watch == watch && !listed.contains(*name);
                let gone = self.filters.iter().filter(|(name, filter)| is_gone(name, filter));
                let gone: Vec<Key> = gone.map(|(name, _)| name.clone()).collect();
                self.filters.retain(|name, _| !gone.contains(name));
                gone
            }
        }
    }

    /// None: it is not of this kind. A person may have made EnvoyFilters with our label for something else.
    fn came(&mut self, watch: usize, object: &Object) -> Option<Key> {
        let name = name(object);
        if !is_name(&name.name) {
            return None;
        }
        self.listing.entry(watch).and_modify(|listed| {
            listed.insert(name.clone());
        });
        let generation = object.metadata.generation.unwrap_or_default();
        self.filters.insert(name.clone(), Filter { watch, generation });
        Some(name)
    }
}

fn name(object: &Object) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
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
        there.take(Seen { watch, event }).into_iter().map(|name| name.name.to_string()).collect()
    }

    #[test]
    fn it_is_known_when_all_watches_have_listed() {
        let mut there = There::new(&["a".to_owned(), "b".to_owned()]);
        for watch in [0, 0, 1] {
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
        let key = Key::new("team", "tollgate-inbound-a");
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-inbound-a", 1))), ["tollgate-inbound-a"]);
        assert_eq!(there.generation(&key), Some(1));
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-inbound-a", 2))), ["tollgate-inbound-a"]);
        assert_eq!((there.generation(&key), there.filters.len()), (Some(2), 1));
        assert_eq!(took(&mut there, 0, Event::Apply(filter("tollgate-other", 1))), <[&str; 0]>::default());
        assert_eq!(took(&mut there, 0, Event::Delete(filter("tollgate-inbound-a", 2))), ["tollgate-inbound-a"]);
        assert_eq!((there.generation(&key), there.filters.len()), (None, 0));
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
        let left: Vec<&str> = there.filters.keys().map(|name| &*name.name).collect();
        assert_eq!(left, ["tollgate-inbound-b", "tollgate-inbound-c"]);
    }
}
