//! Which version of the Gateway API's definitions a cluster has. One definition is watched, by its name and its metadata
//! alone: that takes a right to read one object, and not all definitions of the cluster.

use std::time::Duration;

use futures::StreamExt as _;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;
use tollgate_core::status::{BUNDLE_VERSION, DEFINITION, Definitions};

/// Who may not read it now is not going to be allowed at once.
const AGAIN: Duration = Duration::from_secs(10);

/// Follows the version while somebody wants to know it.
pub async fn follow(client: Client, known: watch::Sender<Definitions>) {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &ApiResource::from_gvk(&kind));
    let config = watcher::Config::default().fields(&format!("metadata.name={DEFINITION}"));
    let mut events = std::pin::pin!(watcher::watcher(api, config));
    let mut listed = Definitions::Unknown;
    while let Some(event) = events.next().await {
        let next = match event {
            Ok(Event::Apply(definition)) => version(&definition),
            Ok(Event::Delete(_)) => Definitions::Unknown,
            Ok(Event::Init) => {
                listed = Definitions::Unknown;
                continue;
            }
            Ok(Event::InitApply(definition)) => {
                listed = version(&definition);
                continue;
            }
            Ok(Event::InitDone) => listed.clone(),
            Err(error) => {
                tracing::debug!(%error, "the definition {DEFINITION} cannot be watched");
                // What was known still counts.
                known.send_if_modified(|known| {
                    let is_first = *known == Definitions::NotYet;
                    if is_first {
                        *known = Definitions::Unknown;
                    }
                    is_first
                });
                sleep(AGAIN).await;
                continue;
            }
        };
        known.send_if_modified(|known| std::mem::replace(known, next.clone()) != next);
        if known.is_closed() {
            return;
        }
    }
}

fn version(definition: &PartialObjectMeta<DynamicObject>) -> Definitions {
    let annotations = definition.metadata.annotations.as_ref();
    Definitions::Version(annotations.and_then(|annotations| annotations.get(BUNDLE_VERSION)).cloned())
}
