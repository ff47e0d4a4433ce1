//! One watch: a paged list, then what changes, for ever. A task runs it and only passes on what it is told.
//!
//! kube-runtime's `watcher` knows the protocol: pages, bookmarks, a stream that ends, and a gap (410), after which
//! everything is listed again. What stands here is how long to wait after an error, and which version of a kind there is.

use std::time::Duration;

use kube::Client;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt as _};
use tollgate_core::objects::Key;

use super::Name;
use super::document::{Document, key};
use super::kinds::{Content, Watched};
use super::trouble::{Cause, Trouble};

/// What a watch tells of one object.
#[derive(Debug)]
pub enum Seen {
    Object {
        key: Key,
        document: Value,
    },
    /// Only that there is such a version.
    Version {
        key: Key,
        version: Name,
    },
}

#[derive(Debug)]
pub enum Told {
    /// A list begins.
    Lists,
    /// It has this object.
    Listed(Seen),
    /// It had no others.
    ListedAll,
    Applied(Seen),
    Deleted(Key),
    Fails(Trouble),
    /// For some time, what failed last has not failed again.
    Recovers,
}

/// Which watch tells what.
#[derive(Debug)]
pub struct Tells {
    pub watch: usize,
    pub told: Told,
}

/// How long to wait after an error.
#[derive(Debug, Default)]
pub struct Backoff {
    errors: u32,
}

const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(10);
/// A kind that is not there is looked for this often.
const NOT_SERVED: Duration = Duration::from_secs(2);
/// A watch that fails again fails within this time. It is longer than a connection may take.
const NO_NEWS: Duration = Duration::from_secs(8);

/// Watches until nobody listens any more.
pub async fn run(id: usize, watched: Watched, client: Client, out: mpsc::Sender<Tells>) {
    let mut teller = Teller { id, backoff: Backoff::default(), failing: false, out };
    let count = watched.versions.len();
    for (number, resource) in watched.versions.iter().enumerate().cycle() {
        let others = if number + 1 < count { Others::Untried } else { Others::Tried(count - 1) };
        let config = match &watched.selection {
            Some(selection) => watcher::Config::default().labels(&selection.to_string()),
            None => watcher::Config::default(),
        };
        let goes_on = match watched.content {
            Content::All => {
                let events = watcher::watcher(watched.api(&client, resource), config);
                teller.tell((&watched, others), events, |document: Document| seen(document, resource)).await
            }
            Content::Metadata => {
                let events = watcher::watcher(watched.metadata_api(&client, resource), config);
                teller.tell((&watched, others), events, version).await
            }
        };
        if goes_on.is_none() {
            return;
        }
    }
}

fn seen(document: Document, resource: &ApiResource) -> Seen {
    Seen::Object { key: document.key(), document: document.into_value(resource) }
}

fn version(object: PartialObjectMeta<DynamicObject>) -> Seen {
    let version = object.metadata.resource_version.as_deref().unwrap_or_default().into();
    Seen::Version { key: key(&object.metadata), version }
}

struct Teller {
    id: usize,
    backoff: Backoff,
    /// The last thing was an error.
    failing: bool,
    out: mpsc::Sender<Tells>,
}

/// The other versions of the kind.
#[derive(Debug, Clone, Copy)]
enum Others {
    /// One of them may be there.
    Untried,
    /// None of so many is.
    Tried(usize),
}

// === impl Teller ===

impl Teller {
    /// Passes on what a watch tells. Returns when another version of the kind is to be tried. None: nobody listens.
    async fn tell<T>(
        &mut self,
        (watched, others): (&Watched, Others),
        events: impl Stream<Item = watcher::Result<Event<T>>>,
        seen: impl Fn(T) -> Seen,
    ) -> Option<()> {
        let mut events = std::pin::pin!(events);
        loop {
            let event = if self.failing {
                match timeout(NO_NEWS, events.next()).await {
                    Ok(event) => event,
                    Err(_elapsed) => {
                        self.recovers(Told::Recovers).await?;
                        continue;
                    }
                }
            } else {
                events.next().await
            };
            match event? {
                // A list is not there before it has an object, or an end.
                Ok(Event::Init) => self.say(Told::Lists).await?,
                Ok(Event::InitApply(object)) => self.recovers(Told::Listed(seen(object))).await?,
                Ok(Event::InitDone) => self.recovers(Told::ListedAll).await?,
                Ok(Event::Apply(object)) => self.recovers(Told::Applied(seen(object))).await?,
                Ok(Event::Delete(object)) => {
                    let (Seen::Object { key, .. } | Seen::Version { key, .. }) = seen(object);
                    self.recovers(Told::Deleted(key)).await?;
                }
                Err(error) => {
                    tracing::debug!(kind = watched.kind, %error, "a watch failed");
                    let trouble = Trouble::of_watch(watched, &error);
                    let is_not_served = trouble.cause == Cause::NotServed;
                    if is_not_served && matches!(others, Others::Untried) {
                        return Some(());
                    }
                    let pause = self.backoff.pause(&trouble.cause);
                    self.failing = !trouble.is_gap();
                    self.say(Told::Fails(trouble)).await?;
                    sleep(pause).await;
                    if is_not_served && matches!(others, Others::Tried(1..)) {
                        return Some(());
                    }
                }
            }
        }
    }

    async fn recovers(&mut self, told: Told) -> Option<()> {
        self.failing = false;
        self.backoff = Backoff::default();
        self.say(told).await
    }

    async fn say(&self, told: Told) -> Option<()> {
        self.out.send(Tells { watch: self.id, told }).await.ok()
    }
}

// === impl Backoff ===

impl Backoff {
    /// With every error the pause gets longer. It differs from one watch to the next, so that they do not all come back
    /// at once.
    pub fn pause(&mut self, cause: &Cause) -> Duration {
        let pause = match cause {
            Cause::Gap => return Duration::ZERO,
            Cause::NotServed => NOT_SERVED,
            _ => FIRST.saturating_mul(1 << self.errors.min(8)).min(LONGEST),
        };
        self.errors += 1;
        pause.mul_f64(rand::random_range(0.75..1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_get_longer_and_no_longer_than_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..50).map(|_| backoff.pause(&Cause::Unreachable)).collect();
        assert!(pauses[0] <= FIRST.mul_f64(1.25) && pauses[0] >= FIRST.mul_f64(0.75), "{pauses:?}");
        assert!(pauses[4] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST.mul_f64(1.25)), "{pauses:?}");
        assert!(backoff.pause(&Cause::NotServed) <= NOT_SERVED.mul_f64(1.25));
        assert_eq!(backoff.pause(&Cause::Gap), Duration::ZERO);
    }
}
