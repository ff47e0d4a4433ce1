//! Where the ledger is now, and the task that follows who leads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tollgate_core::ledger::Configured;
use tollgate_proto::v1::{SyncRequest, SyncResponse};

use super::link::Link;
use super::remote::Remote;
use crate::causes::SaidOnce;
use crate::leader::{Holder, Leads};
use crate::ledger::query::{BudgetRow, Listed, Page, UsageQuery, UsageRow};
use crate::ledger::series::{SeriesQuery, SeriesRow};
use crate::ledger::{Embedded, Ledger, Metrics, StoreError, SyncError};

/// A file that another process still has is tried again after this time.
const LOCKED: Duration = Duration::from_millis(200);
/// Whoever leads may not know it yet.
const AGAIN: Duration = Duration::from_millis(500);
/// What is queued is answered within this time, or its senders ask again.
const CLOSES: Duration = Duration::from_secs(5);

/// The ledger, wherever it is. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Books(watch::Receiver<Place>);

#[derive(Debug, Clone)]
enum Place {
    Nowhere,
    Here(Box<Embedded>),
    There(Remote),
}

/// What the ledger needs to be opened here.
#[derive(Debug, Clone)]
pub struct Follow {
    /// All replicas share this folder.
    pub dir: PathBuf,
    pub configured: watch::Receiver<Arc<Configured>>,
    pub lease_ttl: Duration,
    pub metrics: Metrics,
}

/// Keeps [`Books`] right.
#[derive(Debug)]
pub struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Following {
    follow: Follow,
    leads: Leads,
    link: Link,
    place: watch::Sender<Place>,
    said: SaidOnce,
}

// === impl Books ===

impl Books {
    /// Opens the ledger for as long as this process runs.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(follow: Follow) -> Result<(Self, Keeper), StoreError> {
        let ledger = follow.open()?;
        let (place, books) = watch::channel(Place::Here(Box::new(ledger.clone())));
        let keep = async move |stopped: oneshot::Receiver<()>| {
            let _ = stopped.await;
            ledger.close().await;
            drop(place);
        };
        Ok((Self(books), Keeper::start(keep)))
    }

    /// Opens it while this replica holds the Lease, and asks the leader otherwise.
    pub fn follow(follow: Follow, leads: Leads, link: Link) -> (Self, Keeper) {
        let (place, books) = watch::channel(Place::Nowhere);
        let following = Following { follow, leads, link, place, said: SaidOnce::default() };
        (Self(books), Keeper::start(|stopped| following.run(stopped)))
    }

    /// The ledger, if this replica has it.
    pub fn here(&self) -> Option<Embedded> {
        match &*self.0.borrow() {
            Place::Here(ledger) => Some(Embedded::clone(ledger)),
            Place::Nowhere | Place::There(_) => None,
        }
    }

    /// Waits until this replica does not have the ledger any more.
    pub async fn gone(&mut self) {
        // An error says that nobody keeps it any more.
        let _ = self.0.wait_for(|place| !matches!(place, Place::Here(_))).await;
    }

    fn place(&self) -> Place {
        self.0.borrow().clone()
    }
}

#[tonic::async_trait]
impl Ledger for Books {
    async fn sync(&self, identity: &str, request: SyncRequest) -> Result<SyncResponse, SyncError> {
        match self.place() {
            Place::Nowhere => Err(SyncError::NoOwner),
            Place::Here(ledger) => ledger.sync(identity, request).await,
            Place::There(ledger) => ledger.sync(identity, request).await,
        }
    }

    async fn usage(&self, query: UsageQuery) -> Result<Listed<UsageRow>, StoreError> {
        match self.place() {
            Place::Nowhere => Err(StoreError::NoOwner),
            Place::Here(ledger) => ledger.usage(query).await,
            Place::There(ledger) => ledger.usage(query).await,
        }
    }

    async fn backup(&self) -> Result<std::fs::File, StoreError> {
        match self.place() {
            Place::Nowhere => Err(StoreError::NoOwner),
            Place::Here(ledger) => ledger.backup().await,
            Place::There(ledger) => ledger.backup().await,
        }
    }

    async fn series(&self, query: SeriesQuery) -> Result<Vec<SeriesRow>, StoreError> {
        match self.place() {
            Place::Nowhere => Err(StoreError::NoOwner),
            Place::Here(ledger) => ledger.series(query).await,
            Place::There(ledger) => ledger.series(query).await,
        }
    }

    async fn budgets(&self, page: Page) -> Result<Listed<BudgetRow>, StoreError> {
        match self.place() {
            Place::Nowhere => Err(StoreError::NoOwner),
            Place::Here(ledger) => ledger.budgets(page).await,
            Place::There(ledger) => ledger.budgets(page).await,
        }
    }
}

// === impl Follow ===

impl Follow {
    fn open(self) -> Result<Embedded, StoreError> {
        Embedded::open(&self.dir, self.configured, self.lease_ttl, self.metrics)
    }
}

// === impl Keeper ===

impl Keeper {
    fn start<F: Future<Output = ()> + Send + 'static>(keep: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(keep(stopped)) }
    }

    /// Closes the ledger if it is here.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

// === impl Following ===

impl Following {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let ends = match self.leads.holder() {
                Holder::Us => self.keep(&mut stopped).await,
                Holder::Unknown => self.wait(&mut stopped).await,
                Holder::Other(None) => {
                    self.tell("the leader does not say where it is, so that its ledger cannot be asked");
                    self.wait(&mut stopped).await
                }
                Holder::Other(Some(leader)) => self.ask(leader, &mut stopped).await,
            };
            if ends {
                return;
            }
        }
    }

    /// Has the ledger until another one holds the Lease. Returns whether this replica stops.
    async fn keep(&mut self, stopped: &mut oneshot::Receiver<()>) -> bool {
        let ledger = loop {
            let follow = self.follow.clone();
            // The whole file is read.
            let opened = tokio::task::spawn_blocking(|| follow.open()).await;
            let error = match opened {
                Ok(Ok(ledger)) => break ledger,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            self.tell(&format!("the ledger cannot be had yet: {error}"));
            if let Some(stops) = self.pause(LOCKED, Holder::Us, stopped).await {
                return stops;
            }
        };
        tracing::info!("this control plane has the ledger");
        self.said.forget();
        self.place.send_replace(Place::Here(Box::new(ledger.clone())));
        let ends = tokio::select! {
            () = other(&mut self.leads, Holder::Us) => false,
            _ = stopped => true,
        };
        self.place.send_replace(Place::Nowhere);
        if timeout(CLOSES, ledger.close()).await.is_err() {
            tracing::warn!("the ledger does not close in time");
        }
        ends
    }

    /// Asks the leader until another one leads. Returns whether this replica stops.
    async fn ask(&mut self, leader: SocketAddr, stopped: &mut oneshot::Receiver<()>) -> bool {
        let holder = Holder::Other(Some(leader));
        loop {
            let can_be_asked = |remote| {
                self.place.send_replace(Place::There(remote));
            };
            let ended = tokio::select! {
                ended = self.link.ask(leader, can_be_asked) => Ok(ended),
                () = other(&mut self.leads, holder) => Err(false),
                _ = &mut *stopped => Err(true),
            };
            self.place.send_replace(Place::Nowhere);
            match ended {
                Ok(ended) => self.tell(&format!("the leader at {leader} cannot be asked: {ended}; it is tried again")),
                Err(stops) => return stops,
            }
            if let Some(stops) = self.pause(AGAIN, holder, stopped).await {
                return stops;
            }
        }
    }

    /// None: the time has passed, and the Lease has the same holder. Otherwise whether this replica stops.
    async fn pause(&mut self, time: Duration, holder: Holder, stopped: &mut oneshot::Receiver<()>) -> Option<bool> {
        tokio::select! {
            () = sleep(time) => None,
            () = other(&mut self.leads, holder) => Some(false),
            _ = stopped => Some(true),
        }
    }

    async fn wait(&mut self, stopped: &mut oneshot::Receiver<()>) -> bool {
        tokio::select! {
            () = self.leads.changed() => false,
            _ = stopped => true,
        }
    }

    /// Says it once.
    fn tell(&mut self, text: &str) {
        if self.said.is_new(text) {
            tracing::warn!("{text}");
        }
    }
}

/// Waits until somebody else holds the Lease.
async fn other(leads: &mut Leads, holder: Holder) {
    while leads.holder() == holder {
        leads.changed().await;
    }
}
