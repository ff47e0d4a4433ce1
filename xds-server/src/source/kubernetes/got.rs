//! Gets Secrets and ConfigMaps by name, some at once, each until there is an answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use kube::core::ApiResource;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tollgate_core::objects::Needed;

use super::Name;
use super::kinds::{Watched, watched};
use super::trouble::{Cause, Trouble};
use super::watch::Backoff;

/// So many are asked for at once.
const AT_ONCE: usize = 16;
const ANSWERS: usize = 64;

#[derive(Debug)]
pub enum Got {
    Object {
        version: Name,
        document: Value,
    },
    NotThere,
    /// It is asked for again.
    Fails(Trouble),
}

pub struct Gets {
    client: Client,
    permits: Arc<Semaphore>,
    sender: mpsc::Sender<(Needed, Got)>,
    answers: mpsc::Receiver<(Needed, Got)>,
    tasks: JoinSet<()>,
    asked: BTreeMap<Needed, AbortHandle>,
}

// === impl Gets ===

impl Gets {
    pub fn new(client: Client) -> Self {
        let (sender, answers) = mpsc::channel(ANSWERS);
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, permits, sender, answers, tasks: JoinSet::new(), asked: BTreeMap::new() }
    }

    pub fn ask(&mut self, needed: Needed) {
        let (client, permits, sender) = (self.client.clone(), Arc::clone(&self.permits), self.sender.clone());
        let of = needed.clone();
        let task = self.tasks.spawn(async move {
            let Some(watched) = watch_of(&needed) else { return };
            let mut backoff = Backoff::default();
            loop {
                let got = {
                    let Ok(_permit) = permits.acquire().await else { return };
                    get(&client, &watched, &needed).await
                };
                let pause = match &got {
                    Got::Fails(trouble) => Some(backoff.pause(&trouble.cause)),
                    Got::Object { .. } | Got::NotThere => None,
                };
                let is_heard = sender.send((needed.clone(), got)).await.is_ok();
                match pause {
                    Some(pause) if is_heard => sleep(pause).await,
                    _ => return,
                }
            }
        });
        self.asked.insert(of, task);
        while self.tasks.try_join_next().is_some() {}
    }

    /// The answer is not wanted any more.
    pub fn forget(&mut self, needed: &Needed) {
        if let Some(task) = self.asked.remove(needed) {
            task.abort();
        }
    }

    /// Waits for the next answer.
    pub async fn next(&mut self) -> (Needed, Got) {
        match self.answers.recv().await {
            Some(answer) => answer,
            // We have a sender of our own.
            None => std::future::pending().await,
        }
    }
}

/// What a watch of the same kind in this namespace would be of.
pub fn watch_of(needed: &Needed) -> Option<Watched> {
    watched(&[needed.key.namespace.to_string()]).into_iter().find(|watched| watched.kind == needed.kind)
}

/// One answer.
pub async fn get(client: &Client, watched: &Watched, needed: &Needed) -> Got {
    let Some(resource) = watched.versions.first() else { return Got::NotThere };
    match watched.api(client, resource).get_opt(&needed.key.name).await {
        Ok(Some(document)) => object(document, resource),
        Ok(None) => Got::NotThere,
        Err(error) => match Trouble::of_get(watched, &error) {
            Trouble { cause: Cause::NotServed, .. } => Got::NotThere,
            trouble => Got::Fails(trouble),
        },
    }
}

fn object(document: super::document::Document, resource: &ApiResource) -> Got {
    use kube::ResourceExt as _;
    let version = document.resource_version().unwrap_or_default().into();
    Got::Object { version, document: document.into_value(resource) }
}
