//! Gets Secrets by name, some at once, each until there is an answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use kube::core::ApiResource;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tollgate_core::objects::Key;

use super::Name;
use super::kinds::{Watched, watched};
use super::trouble::{Cause, Trouble};
use super::watch::Backoff;

/// So many are asked for at once.
const AT_ONCE: usize = 16;
const ANSWERS: usize = 64;

#[derive(Debug)]
pub enum Got {
    Secret {
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
    sender: mpsc::Sender<(Key, Got)>,
    answers: mpsc::Receiver<(Key, Got)>,
    tasks: JoinSet<()>,
    asked: BTreeMap<Key, AbortHandle>,
}

// === impl Gets ===

impl Gets {
    pub fn new(client: Client) -> Self {
        let (sender, answers) = mpsc::channel(ANSWERS);
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, permits, sender, answers, tasks: JoinSet::new(), asked: BTreeMap::new() }
    }

    pub fn ask(&mut self, key: Key) {
        let (client, permits, sender) = (self.client.clone(), Arc::clone(&self.permits), self.sender.clone());
        let of = key.clone();
        let task = self.tasks.spawn(async move {
            let Some(secrets) = of_namespace(&key.namespace) else { return };
            let mut backoff = Backoff::default();
            loop {
                let got = {
                    let Ok(_permit) = permits.acquire().await else { return };
                    get(&client, &secrets, &key).await
                };
                let pause = match &got {
                    Got::Fails(trouble) => Some(backoff.pause(&trouble.cause)),
                    Got::Secret { .. } | Got::NotThere => None,
                };
                let is_heard = sender.send((key.clone(), got)).await.is_ok();
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
    pub fn forget(&mut self, key: &Key) {
        if let Some(task) = self.asked.remove(key) {
            task.abort();
        }
    }

    /// Waits for the next answer.
    pub async fn next(&mut self) -> (Key, Got) {
        match self.answers.recv().await {
            Some(answer) => answer,
            // We have a sender of our own.
            None => std::future::pending().await,
        }
    }
}

/// What a watch of the Secrets of this namespace would be of.
pub fn of_namespace(namespace: &str) -> Option<Watched> {
    watched(&[namespace.to_owned()]).into_iter().find(|watched| watched.kind == "Secret")
}

/// One answer.
pub async fn get(client: &Client, secrets: &Watched, key: &Key) -> Got {
    let Some(resource) = secrets.versions.first() else { return Got::NotThere };
    match secrets.api(client, resource).get_opt(&key.name).await {
        Ok(Some(document)) => secret(document, resource),
        Ok(None) => Got::NotThere,
        Err(error) => match Trouble::of_get(secrets, &error) {
            Trouble { cause: Cause::NotServed, .. } => Got::NotThere,
            trouble => Got::Fails(trouble),
        },
    }
}

fn secret(document: super::document::Document, resource: &ApiResource) -> Got {
    use kube::ResourceExt as _;
    let version = document.resource_version().unwrap_or_default().into();
    Got::Secret { version, document: document.into_value(resource) }
}
