//! What there is of our objects, by watches of their metadata.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use tollgate_core::fleet::{FleetKind, MANAGED_BY};

use crate::causes::SaidOnce;

type Object = PartialObjectMeta<DynamicObject>;

/// An event of one watch.
pub struct Seen {
    watch: usize,
    kind: FleetKind,
    event: Event<Object>,
}

/// The watches. They go on whatever fails.
pub struct Watching {
    events: SelectAll<BoxStream<'static, Seen>>,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Owned {
    objects: BTreeMap<(String, FleetKind, String), Version>,
    /// The watches that have listed all they have.
    listed: BTreeSet<usize>,
    watches: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// The uid of the Gateway that it belongs to.
    owner: String,
    content: String,
}

pub fn resource(kind: FleetKind) -> ApiResource {
    let (group, version) = kind.group_and_version();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name()))
}

/// As rules of RBAC name it.
#[cfg(test)]
pub fn plural(kind: FleetKind) -> String {
    resource(kind).plural
}

/// Another one where somebody may have changed what we have applied. A status changes often, and is nothing of ours: a
/// generation does not count it, and an autoscaler, which has none, is looked at when it comes or goes.
fn content(kind: FleetKind, object: &Object) -> String {
    match (kind, object.metadata.generation) {
        (FleetKind::HorizontalPodAutoscaler, _) => String::new(),
        (_, Some(generation)) => generation.to_string(),
        (_, None) => object.resource_version().unwrap_or_default(),
    }
}

// === impl Watching ===

impl Watching {
    pub fn start(client: &Client, namespaces: &[String]) -> Self {
        let places: Vec<Option<&String>> =
            if namespaces.is_empty() { vec![None] } else { namespaces.iter().map(Some).collect() };
        let of = FleetKind::ALL.into_iter().flat_map(|kind| places.iter().map(move |place| (kind, *place)));
        let streams = of.enumerate().map(|(watch, (kind, namespace))| {
            let resource = resource(kind);
            let api: Api<Object> = match namespace {
                None => Api::all_with(client.clone(), &resource),
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            };
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
        Self { events: select_all(streams.collect::<Vec<_>>()) }
    }

    pub async fn next(&mut self) -> Seen {
        match self.events.next().await {
            Some(seen) => seen,
            // They never end.
            None => std::future::pending().await,
        }
    }
}

fn tell(kind: FleetKind, error: &str, said: &mut SaidOnce) {
    if said.is_new(error) {
        tracing::warn!(
            "objects of kind {} cannot be watched: {error} (no proxy is provided until they are)",
            kind.name()
        );
    }
}

// === impl Owned ===

impl Owned {
    /// For so many watches.
    pub fn new(namespaces: &[String]) -> Self {
        Self { watches: FleetKind::ALL.len() * namespaces.len().max(1), ..Self::default() }
    }

    /// Whether all is listed. Before that nobody knows what there is.
    pub fn is_known(&self) -> bool {
        self.listed.len() == self.watches
    }

    /// Takes an event. Returns the namespace and the name of what has changed.
    pub fn take(&mut self, Seen { watch, kind, event }: Seen) -> Option<(String, String)> {
        let (object, is_there) = match event {
            Event::Apply(object) | Event::InitApply(object) => (object, true),
            Event::Delete(object) => (object, false),
            Event::Init => return None,
            Event::InitDone => {
                self.listed.insert(watch);
                return None;
            }
        };
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let owner = object.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default();
        let version = Version { owner, content: content(kind, &object) };
        let place = (namespace.clone(), kind, name.clone());
        let before = if is_there { self.objects.insert(place, version.clone()) } else { self.objects.remove(&place) };
        (before.as_ref() != Some(&version) || !is_there).then_some((namespace, name))
    }

    pub fn has(&self, kind: FleetKind, namespace: &str, name: &str) -> bool {
        self.objects.contains_key(&(namespace.to_owned(), kind, name.to_owned()))
    }

    /// Whether something of this name belongs to the Gateway with this uid.
    pub fn is_of(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let of = |kind| self.objects.get(&(namespace.to_owned(), kind, name.to_owned()));
        FleetKind::ALL.into_iter().filter_map(of).any(|version| version.owner == uid)
    }

    /// All that belongs to the Gateway with this uid.
    pub fn of(&self, namespace: &str, uid: &str) -> Vec<(FleetKind, String)> {
        let all = self.objects.iter().filter(|((place, _, _), version)| *place == *namespace && version.owner == uid);
        all.map(|((_, kind, name), _)| (*kind, name.clone())).collect()
    }
}
