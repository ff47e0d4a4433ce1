//! Keeps the EnvoyFilters and HTTPRoutes by which istiod programs sidecars: makes those of `core/istio`, puts right what
//! others change, and takes away those that nobody wants any more.
//!
//! ```text
//! published (workloads, frontends) --+
//!                                    +-> an object is due -> server-side apply, or deletion
//! watches (what there is) -----------+
//! ```
//! Only the leader does it. What is of a Service that is gone, the cluster itself takes away.

mod reached;
mod there;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tollgate_core::envoy::FilterSetup;
use tollgate_core::istio::KeptName;
use tollgate_core::objects::redact;

pub use self::there::resource;
use self::there::{There, Watching};
use crate::fleet;
use crate::leader::{Agenda, Leads, Writes};
use crate::pipeline::Published;
use crate::report::Metrics;
use crate::source::kubernetes::Reach;

const FAR: Duration = Duration::from_secs(3600);
/// Whose fields ours are (server-side apply).
const MANAGER: &str = "tollgate";

/// What the objects are made of.
pub struct Inputs {
    pub published: watch::Receiver<Arc<Published>>,
    pub setup: FilterSetup,
    /// Empty: all of them.
    pub namespaces: Vec<String>,
}

/// The running keeper.
#[derive(Debug)]
pub struct Keeper(JoinHandle<()>);

struct Keeping {
    inputs: Inputs,
    client: Client,
    writes: Writes,
    there: There,
    /// Those that there are to be. None: nothing was published yet.
    wanted: Option<BTreeMap<KeptName, Arc<Value>>>,
    /// What was written, and the generation that it was then.
    written: BTreeMap<KeptName, (Arc<Value>, i64)>,
    /// Objects to look at.
    agenda: Agenda<KeptName>,
    /// What was told last of each that failed.
    told: BTreeMap<KeptName, String>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it is somebody else's: it has no label app.kubernetes.io/managed-by: tollgate (rename it or the Service)")]
    Taken,
    #[error("it may not be written (the role for sidecars, manifests/rbac): {0}")]
    Denied(String),
    #[error("it cannot be written: {0}")]
    Fails(String),
}

// === impl Keeper ===

impl Keeper {
    pub fn start(reach: Reach, leads: Leads, inputs: Inputs, metrics: &Metrics) -> Self {
        let watching = Watching::start(&reach.client, &inputs.namespaces);
        let keeping = Keeping {
            there: There::new(&inputs.namespaces),
            writes: Writes::new(metrics, Writes::SIDECARS),
            client: reach.client,
            wanted: None,
            written: BTreeMap::new(),
            agenda: Agenda::default(),
            told: BTreeMap::new(),
            inputs,
        };
        Self(tokio::spawn(keeping.run(leads, watching)))
    }

    pub async fn stop(self) {
        self.0.abort();
        // What has begun to be written ends with it.
        let _ = self.0.await;
    }
}

// === impl Keeping ===

impl Keeping {
    async fn run(mut self, mut leads: Leads, mut watching: Watching) {
        reached::wait(&self.inputs.setup).await;
        let mut published = self.inputs.published.clone();
        self.look(&Arc::clone(&published.borrow_and_update()));
        loop {
            let can_act = leads.leads(Instant::now()) && self.there.is_known() && self.wanted.is_some();
            let next = self.agenda.next().filter(|_| can_act);
            tokio::select! {
                changed = published.changed() => {
                    if changed.is_ok() {
                        let now = Arc::clone(&published.borrow_and_update());
                        self.look(&now);
                    }
                }
                event = watching.next() => {
                    for name in self.there.take(event) {
                        self.changed(name);
                    }
                }
                () = leads.changed() => {}
                () = sleep_until(next.unwrap_or_else(|| Instant::now() + FAR)) => self.keep(&leads).await,
            }
        }
    }

    /// Finds the objects that are to be others.
    fn look(&mut self, published: &Published) {
        if published.generation == 0 {
            return;
        }
        let before = self.wanted.take();
        let wanted = published.kept(&self.inputs.setup);
        let names: BTreeSet<&KeptName> = wanted.keys().chain(before.iter().flatten().map(|(name, _)| name)).collect();
        let is_other = |name: &&KeptName| before.as_ref().and_then(|before| before.get(*name)) != wanted.get(*name);
        names.into_iter().filter(is_other).for_each(|name| self.agenda.add(name.clone(), Instant::now()));
        self.wanted = Some(wanted);
    }

    /// Somebody has written or deleted an object. That may have been this control plane.
    fn changed(&mut self, name: KeptName) {
        let written = self.written.get(&name).map(|(_, generation)| *generation);
        if self.there.generation(&name) != written {
            self.agenda.add(name, Instant::now());
        }
    }

    async fn keep(&mut self, leads: &Leads) {
        for name in self.agenda.due(Instant::now()) {
            let Some(wanted) = self.wanted.as_ref().map(|wanted| wanted.get(&name).cloned()) else { continue };
            if !leads.leads(Instant::now()) {
                return;
            }
            self.agenda.begin(&name);
            let result = match wanted {
                Some(document) => self.apply(&name, document).await,
                None => self.delete(&name).await,
            };
            match result {
                Ok(()) => {
                    self.agenda.done(&name);
                    self.told.remove(&name);
                }
                Err(trouble) => self.failed(name, &trouble),
            }
        }
    }

    fn failed(&mut self, name: KeptName, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.told.get(&name) != Some(&text) {
            tracing::error!("{name}: {text} (it is tried again)");
            self.told.insert(name.clone(), text);
        }
        self.agenda.failed(name, Instant::now());
    }

    async fn apply(&mut self, name: &KeptName, document: Arc<Value>) -> Result<(), Trouble> {
        let api = self.api(name);
        // What has our label was seen. Anything else of this name was there before us.
        if self.there.generation(name).is_none() && !self.written.contains_key(name) {
            let there = api.get_metadata_opt(&name.key.name).await.map_err(|error| trouble(&error))?;
            if there.is_some_and(|there| !fleet::is_ours(&there.metadata)) {
                return Err(Trouble::Taken);
            }
        }
        let how = PatchParams::apply(MANAGER).force();
        let result = api.patch(&name.key.name, &how, &Patch::Apply(&*document)).await;
        self.writes.count(result.is_ok());
        let mut object = result.map_err(|error| trouble(&error))?;
        let specs = object.data.get("spec").zip(document.get("spec"));
        if let Some(spec) = specs.and_then(|(found, wanted)| without_others(found, wanted)) {
            let how = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let result = api.patch(&name.key.name, &how, &Patch::Merge(json!({"spec": spec}))).await;
            self.writes.count(result.is_ok());
            object = result.map_err(|error| trouble(&error))?;
        }
        self.written.insert(name.clone(), (document, object.metadata.generation.unwrap_or_default()));
        Ok(())
    }

    async fn delete(&mut self, name: &KeptName) -> Result<(), Trouble> {
        self.written.remove(name);
        if self.there.generation(name).is_none() {
            return Ok(());
        }
        match self.api(name).delete(&name.key.name, &DeleteParams::background()).await {
            Ok(_) => {
                self.writes.count(true);
                tracing::info!("{name} is not needed any more and is deleted");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                self.writes.count(false);
                Err(trouble(&error))
            }
        }
    }

    fn api(&self, name: &KeptName) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &name.key.namespace, &resource(name.kind))
    }
}

/// What takes away, as a merge patch, what others have put beside ours. Server-side apply leaves that, and with one more label
/// in the selector the filter would be in no sidecar. None: there is nothing of others.
fn without_others(found: &Value, wanted: &Value) -> Option<Value> {
    let (Value::Object(found), Value::Object(wanted)) = (found, wanted) else { return None };
    let others = found.iter().filter_map(|(name, found)| match wanted.get(name) {
        Some(wanted) => without_others(found, wanted).map(|inner| (name.clone(), inner)),
        None => Some((name.clone(), Value::Null)),
    });
    let others: Map<String, Value> = others.collect();
    (!others.is_empty()).then_some(Value::Object(others))
}

fn trouble(error: &kube::Error) -> Trouble {
    let message = redact::plain(&error.to_string());
    match error {
        kube::Error::Api(status) if status.code == 403 => Trouble::Denied(message),
        _ => Trouble::Fails(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_put_beside_ours_is_found() {
        let ours = json!({"selector": {"labels": {"app": "a"}}, "patches": [{"value": {"name": "f"}}], "priority": 10});
        assert_eq!(without_others(&ours, &ours), None);
        let mut found = ours.clone();
        found["selector"]["labels"]["more"] = json!("x");
        found["targetRefs"] = json!([]);
        let expected = json!({"selector": {"labels": {"more": null}}, "targetRefs": null});
        assert_eq!(without_others(&found, &ours), Some(expected));
        assert_eq!(without_others(&Value::Null, &ours), None);
    }
}
