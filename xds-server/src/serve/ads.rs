//! The aggregated discovery service: one task per stream between the wire and `core::subscription`.
//!
//! A proxy whose Gateway is gone is refused. But first the Gateway's resources are taken away from it, on a running
//! stream as on a new one. An Envoy that nobody speaks to goes on with what it has, and it would go on using the
//! credentials of a Gateway that was deleted while it was away. The same happens on a running stream for a workload that
//! is gone, or whose Pods do not run as the caller's account any more. A new stream of such a caller does not get here
//! (`sidecars/members.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tollgate_core::envoy::{self, MODULE_ENVOY, other_envoy};
use tollgate_core::snapshot::{ResourceType, Snapshot};
use tollgate_core::subscription::stream::{self, Since, StreamEvent};
use tollgate_core::subscription::{Ask, Output, RejectedVersion, Response};
use tonic::{Status, Streaming};

use super::standing::Claim;
use super::wire::Wire;
use crate::pipeline::Published;
use crate::report::Metrics;
use crate::report::board::{Board, Keys, Place, RefusedResource, Report, Taken, Teller};

/// Filter configurations that Envoy refused are sent again after this time: it may have had no code yet. It fetches that after
/// the first refusal, so each start has one.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A proxy that owes an answer for this time, while there is news for it, is told to connect again. It then says what
/// it has and is sent the difference. Otherwise a cluster that never gets warm would hold up everything else.
const OVERDUE: Duration = Duration::from_secs(15);

/// How often in a row that is tried. Each time the pause is twice as long.
const RETRIES: u32 = 8;
/// After so many in a row, what Envoy says is told. Before, it is a start like all.
const QUIET: u32 = 3;

/// A proxy whose claim has ended has this time to give back what it has.
const FAREWELL: Duration = Duration::from_secs(5);

/// This many responses may wait for a slow proxy. With more, the stream's task waits.
const QUEUE: usize = 16;

#[derive(Debug, Clone)]
pub struct Ads {
    pub published: watch::Receiver<Arc<Published>>,
    pub board: Board,
    pub metrics: Metrics,
    pub envoys: Envoys,
}

/// Which versions of Envoy are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envoys {
    Any,
    /// The one in which the filter may run as a dynamic module.
    OfModule,
}

/// The task of one stream.
struct Driver {
    claim: Claim,
    node: String,
    stream: stream::Stream,
    /// The stream's target.
    snapshot: Arc<Snapshot>,
    /// The publication that it is from.
    generation: u64,
    /// The Gateways that it is of, as they were then.
    gateways: Vec<(String, Arc<Snapshot>)>,
    published: watch::Receiver<Arc<Published>>,
    responses: mpsc::Sender<Result<Response, Status>>,
    refused: Vec<RefusedResource>,
    asks_for_keys: bool,
    retries: u32,
    retry_at: Option<Instant>,
    /// There is news, but the proxy must answer before it can be sent. At this time it is told to connect again.
    overdue_at: Option<Instant>,
    standing: Standing,
    place: Place,
    metrics: Metrics,
    envoys: Envoys,
}

/// Whether the claim of the proxy stands.
#[derive(Debug, Clone, Copy)]
enum Standing {
    Known,
    /// It has ended. Until this time the proxy may give back what it has.
    Gone {
        until: Instant,
    },
}

/// What ends a stream.
enum End {
    Quietly,
    With(Status),
}

/// The proxy takes no more responses.
struct Gone;

// === impl Ads ===

impl Ads {
    /// Serves a stream of the proxy that the connection is of. Its responses come through what is returned, and in the
    /// end the status.
    ///
    /// # Errors
    /// When it is no connection of a proxy.
    pub fn drive<W: Wire>(
        &self,
        claim: Option<Claim>,
        requests: Streaming<W::Request>,
    ) -> Result<mpsc::Receiver<Result<Response, Status>>, Status> {
        let claim = claim.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        let (responses, receiver) = mpsc::channel(QUEUE);
        let mut published = self.published.clone();
        let (snapshot, generation, gateways, standing) = {
            let published = published.borrow_and_update();
            let snapshot = Arc::clone(&claim.edition(&published).snapshot);
            let standing = Standing::Known.next(claim.stands(&published));
            (snapshot, published.generation, published.snapshots_of(&claim.identity), standing)
        };
        let driver = Driver {
            stream: stream::Stream::new(W::PROTOCOL, Arc::clone(&snapshot)),
            snapshot,
            generation,
            gateways,
            claim,
            node: String::new(),
            published,
            responses,
            refused: Vec::new(),
            asks_for_keys: false,
            retries: 0,
            retry_at: None,
            overdue_at: None,
            standing,
            place: self.board.place(),
            metrics: self.metrics.clone(),
            envoys: self.envoys,
        };
        tokio::spawn(driver.run::<W>(requests));
        Ok(receiver)
    }
}

// === impl Standing ===

impl Standing {
    /// What it is after a look at the claim.
    fn next(self, stands: bool) -> Self {
        match (stands, self) {
            (true, _) => Self::Known,
            (false, Self::Known) => Self::Gone { until: Instant::now() + FAREWELL },
            (false, gone) => gone,
        }
    }

    fn until(self) -> Option<Instant> {
        match self {
            Self::Known => None,
            Self::Gone { until } => Some(until),
        }
    }
}

// === impl Driver ===

impl Driver {
    async fn run<W: Wire>(mut self, requests: Streaming<W::Request>) {
        if let End::With(status) = self.serve::<W>(requests).await {
            let _gone = self.responses.try_send(Err(status));
        }
    }

    async fn serve<W: Wire>(&mut self, mut requests: Streaming<W::Request>) -> End {
        loop {
            let (retry_at, overdue_at, until) = (self.retry_at, self.overdue_at, self.standing.until());
            let event = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => match self.read::<W>(request) {
                        Ok(Some(request)) if self.is_refused(&request) => return self.refusal(),
                        Ok(request) => request,
                        Err(status) => return End::With(status),
                    },
                    Some(Err(_)) | None => return End::Quietly,
                },
                changed = self.published.changed() => match changed {
                    Ok(()) => {
                        self.retries = 0;
                        Some(self.new_target())
                    }
                    Err(_) => return End::Quietly,
                },
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.retry_at = None;
                    Some(StreamEvent::RetryFilters)
                }
                () = sleep_until(overdue_at.unwrap_or_else(Instant::now)), if overdue_at.is_some() => {
                    tracing::warn!(node = %self.node, "the proxy owes an answer for too long; it is to connect again");
                    return End::With(Status::aborted("an answer is overdue: connect again"));
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return self.refusal(),
            };
            let Some(event) = event else { continue };
            let outputs = self.stream.step(event);
            if self.carry_out(outputs).await.is_err() {
                return End::Quietly;
            }
            if !self.stream.is_under_way() {
                self.overdue_at = None;
                if self.standing.until().is_some() {
                    return self.refusal();
                }
            }
            self.report();
        }
    }

    /// Fails if nothing may be sent to this proxy.
    fn read<W: Wire>(&mut self, request: W::Request) -> Result<Option<StreamEvent>, Status> {
        let (node, request) = W::read(request);
        if let Some(node) = node {
            if let (Envoys::OfModule, Some(version)) = (self.envoys, other_envoy(&node)) {
                let (major, minor) = MODULE_ENVOY;
                tracing::warn!(
                    node = %node.id, %version,
                    "a proxy is refused: with --filter native, its Envoy must be of {major}.{minor} (--filter wasm serves any)"
                );
                return Err(Status::failed_precondition(format!("the filter's module needs Envoy {major}.{minor}")));
            }
            self.node = node.id;
        }
        let Some((kind, request)) = request else { return Ok(None) };
        self.asks_for_keys |= kind == ResourceType::ApiKey;
        Ok(Some(StreamEvent::Request(kind, request)))
    }

    /// A proxy that is to go may answer, and it may say what it has, so that this can be taken away. Anything else is
    /// refused.
    fn is_refused(&self, event: &StreamEvent) -> bool {
        let StreamEvent::Request(_, request) = event else { return false };
        let has = matches!(&request.ask, Ask::Change { initial, .. } if !initial.is_empty());
        self.standing.until().is_some() && !has && !self.stream.is_under_way()
    }

    fn refusal(&self) -> End {
        // Such a proxy comes again every second, and its own log has the message.
        tracing::debug!(node = %self.node, identity = %self.claim.identity, "a proxy whose claim has ended is refused");
        End::With(self.claim.refusal(self.metrics.audit()))
    }

    fn new_target(&mut self) -> StreamEvent {
        let published = self.published.borrow_and_update();
        let edition = self.claim.edition(&published);
        let since = match self.standing {
            Standing::Known => edition.since(self.generation),
            // It was to have nothing, whatever was published.
            Standing::Gone { .. } => Since::Unknown,
        };
        self.standing = self.standing.next(self.claim.stands(&published));
        self.snapshot = Arc::clone(&edition.snapshot);
        self.generation = published.generation;
        self.gateways = published.snapshots_of(&self.claim.identity);
        if self.stream.is_under_way() && !since.is_nothing() {
            self.overdue_at.get_or_insert(Instant::now() + OVERDUE);
        }
        StreamEvent::Target(Arc::clone(&self.snapshot), since)
    }

    async fn carry_out(&mut self, outputs: Vec<Output>) -> Result<(), Gone> {
        for output in outputs {
            match output {
                Output::Send(response) => {
                    tracing::debug!(
                        node = %self.node, kind = ?response.kind, resources = response.resources.len(),
                        removed = response.removed.len(), "send"
                    );
                    self.responses.send(Ok(stamped(response))).await.map_err(|_| Gone)?;
                }
                Output::Accepted => {}
                Output::Refused(rejected) => self.refuse(rejected),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, rejected: RejectedVersion) {
        let is_due = self.retry_at.is_none() && self.retries < RETRIES;
        if rejected.kind == ResourceType::ExtensionConfig && is_due {
            self.retry_at = Some(Instant::now() + RETRY_AFTER * 2_u32.pow(self.retries));
            self.retries += 1;
        }
        if rejected.kind == ResourceType::ExtensionConfig && self.retries <= QUIET {
            tracing::debug!(node = %self.node, message = %rejected.message, "a filter is refused, and sent again");
            return;
        }
        let message = envoy::without_stamps(rejected.message.trim());
        // When a whole set is refused, the message names the bad resources.
        let named = rejected.resources.keys().any(|name| message.contains(&**name));
        for (name, resource) in rejected.resources.iter() {
            if named && !message.contains(&**name) {
                continue;
            }
            self.refused.retain(|old| (old.kind, &*old.name) != (rejected.kind, &**name));
            self.refused.push(RefusedResource {
                kind: rejected.kind,
                name: name.to_string(),
                version: resource.version,
                origin: resource.origins.first().cloned(),
                message: message.clone(),
            });
        }
        for (gateway, _) in self.published.borrow().gateways_of(&self.claim.identity) {
            self.metrics.nack(gateway, rejected.kind.name());
        }
    }

    fn report(&mut self) {
        let (stream, snapshot) = (&self.stream, &self.snapshot);
        self.refused.retain(|refused| {
            let current = snapshot.get(refused.kind, &refused.name);
            current.is_some_and(|resource| resource.version == refused.version)
                && !stream.holds(refused.kind, &refused.name, refused.version)
        });
        let taken = self.gateways.iter().filter(|(_, gateway)| self.stream.has_taken(gateway));
        let keys = match (self.asks_for_keys, self.stream.has_keys()) {
            (false, _) => Keys::NotAsked,
            (true, false) => Keys::Waiting,
            (true, true) => Keys::Taken,
        };
        self.place.write(Report {
            told_by: Teller::Proxy,
            node: self.node.clone(),
            identity: self.claim.identity.clone(),
            taken: taken.map(|(name, gateway)| (name.clone(), Taken::This(gateway.digest()))).collect(),
            keys,
            refused: self.refused.clone(),
        });
    }
}

/// Each sending of a filter configuration differs from all before it, on whichever stream. See [`envoy::stamped`].
fn stamped(mut response: Response) -> Response {
    if response.kind == ResourceType::ExtensionConfig {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for resource in Arc::make_mut(&mut response.resources).values_mut() {
            *resource = Arc::new(envoy::stamped(resource, now.as_nanos()));
        }
    }
    response
}
