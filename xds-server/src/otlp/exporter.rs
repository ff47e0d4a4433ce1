//! Tells the collector what waits in the queue, a batch after the other. As OTLP asks for it, a batch that the collector cannot
//! take now is sent again, with pauses that grow, and one that it will never take is given up.

use std::fs;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tollgate_core::terms::SecretText;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::collector::{Authorities, Collector};
use super::events::{Events, Outcome};
use super::record::{Instance, Usage};
use crate::causes::{self, SaidOnce};

/// The most records in one call. With the longest names they are less than the 4 MiB that a collector takes by default.
const MAX_BATCH: usize = 512;
/// A collector that does not answer in this time has not taken it.
const ANSWERS: Duration = Duration::from_secs(10);
const CONNECTS: Duration = Duration::from_secs(5);
/// A connection that is dead is noticed by pings while a call waits.
const PINGS: Duration = Duration::from_secs(4);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// At the end the collector has this long.
const LAST: Duration = Duration::from_secs(2);
const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Who tells the collector.
#[derive(Debug)]
pub struct Exporter {
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    #[error("the CA of the collector (--otlp-ca) cannot be read: {0}")]
    Authority(io::Error),
    #[error("the collector (--otlp-endpoint) cannot be asked: {}", causes::of(.0))]
    Transport(#[from] tonic::transport::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    NotYet,
    /// What waits is told first.
    Soon,
}

struct Teller {
    client: LogsServiceClient<Channel>,
    headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    instance: Instance,
    events: Events,
    queue: Receiver<(u64, Usage)>,
    stop: watch::Receiver<Stop>,
    first_pause: Duration,
    /// What went wrong last. The log says it once.
    said: SaidOnce,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it does not answer")]
    Late,
    #[error("{0:?}: {1}")]
    Refuses(Code, String),
    #[error("{0}")]
    NoAnswer(String),
}

// === impl Exporter ===

impl Exporter {
    /// Begins to tell a collector what is recorded. It need not be there yet.
    ///
    /// # Errors
    /// When there can be no connection to it, whoever is there.
    pub fn start(collector: &Collector) -> Result<(Events, Self), ExporterError> {
        Self::begin(collector, FIRST_PAUSE)
    }

    pub(super) fn begin(collector: &Collector, first_pause: Duration) -> Result<(Events, Self), ExporterError> {
        let mut endpoint = Endpoint::from_shared(collector.url.to_string())?
            .user_agent(AGENT)?
            .connect_timeout(CONNECTS)
            .http2_keep_alive_interval(PINGS)
            .keep_alive_timeout(PINGS);
        if collector.has_tls() {
            endpoint = endpoint.tls_config(tls(&collector.authorities)?)?;
        }
        let header = |(name, value): &(String, SecretText)| {
            let mut value: AsciiMetadataValue = value.expose().parse().ok()?;
            value.set_sensitive(true);
            Some((name.parse().ok()?, value))
        };
        let (events, queue) = Events::new();
        let (stop, stopped) = watch::channel(Stop::NotYet);
        let teller = Teller {
            client: LogsServiceClient::new(endpoint.connect_lazy()),
            headers: collector.headers.iter().filter_map(header).collect(),
            instance: Instance::new(),
            events: events.clone(),
            queue,
            stop: stopped,
            first_pause,
            said: SaidOnce::default(),
        };
        Ok((events, Self { stop, task: tokio::spawn(teller.run()) }))
    }

    /// Tells what waits, as far as the collector takes it in a short time.
    pub async fn finish(mut self) {
        self.stop.send_replace(Stop::Soon);
        if timeout(LAST, &mut self.task).await.is_err() {
            self.task.abort();
            // An error says that it has not come to its end, which is so.
            let _ = self.task.await;
            tracing::warn!("the collector (--otlp-endpoint) did not take the last records of usage; the ledger has it");
        }
    }
}

// === impl Teller ===

impl Teller {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let stop = self.stop.clone();
            tokio::select! {
                count = self.queue.recv_many(&mut batch, MAX_BATCH) => if count == 0 { return },
                () = soon(stop), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            }
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    async fn deliver(&mut self, batch: &[(u64, Usage)]) {
        let request = self.instance.request(batch, Timestamp::now());
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let mut pause = self.first_pause;
        loop {
            match self.export(request.clone()).await {
                Ok(answer) => return self.taken(answer, count),
                Err(trouble) if trouble.is_for_ever() => {
                    self.events.count(Outcome::Rejected, count);
                    return self.tell(&format!("the collector does not take usage: {trouble}; it is not sent again"));
                }
                Err(trouble) => {
                    self.events.count(Outcome::Failed, count);
                    self.tell(&format!("the collector does not take usage: {trouble}; it is sent again"));
                }
            }
            // Several control planes that were cut off do not come back at the same moment.
            let pausing = sleep(pause.mul_f64(rand::random_range(0.75..1.25)));
            if *self.stop.borrow() == Stop::Soon {
                pausing.await;
            } else {
                tokio::select! {
                    () = pausing => {}
                    // There is no time for a long pause any more.
                    () = soon(self.stop.clone()) => pause = self.first_pause,
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn export(&mut self, request: ExportLogsServiceRequest) -> Result<ExportLogsServiceResponse, Trouble> {
        let mut request = Request::new(request);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        match timeout(ANSWERS, self.client.export(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Trouble::from(&status)),
            Err(_elapsed) => Err(Trouble::Late),
        }
    }

    /// The collector has taken the batch, or a part of it: what it has rejected it will always reject.
    fn taken(&mut self, answer: ExportLogsServiceResponse, count: u64) {
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_log_records).unwrap_or_default().min(count);
        self.events.count(Outcome::Accepted, count - rejected);
        self.events.count(Outcome::Rejected, rejected);
        if rejected > 0 {
            self.tell(&format!("the collector rejects records of usage: {}", partial.error_message));
        } else {
            self.said.forget();
        }
    }

    /// Says it once.
    fn tell(&mut self, text: &str) {
        if self.said.is_new(text) {
            tracing::warn!("{text}");
        }
    }
}

// === impl Trouble ===

impl Trouble {
    /// Whether the same call will not be taken later either (OTLP specification, "Failures" of OTLP/gRPC).
    fn is_for_ever(&self) -> bool {
        match self {
            Self::Refuses(code, _) => !matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
            Self::Late | Self::NoAnswer(_) => false,
        }
    }
}

impl From<&Status> for Trouble {
    fn from(status: &Status) -> Self {
        /// With this the collector says that it will have room again.
        const RETRY: &[u8] = b"google.rpc.RetryInfo";
        let has_retry = status.details().windows(RETRY.len()).any(|part| part == RETRY);
        // What the connection says of itself has a cause. What the collector says has none.
        match std::error::Error::source(status) {
            Some(cause) => Self::NoAnswer(causes::of(cause)),
            None if status.code() == Code::ResourceExhausted && has_retry => {
                Self::Refuses(Code::Unavailable, status.message().to_owned())
            }
            None => Self::Refuses(status.code(), status.message().to_owned()),
        }
    }
}

async fn soon(mut stop: watch::Receiver<Stop>) {
    // An error says that whoever stops us is gone, and then there is nobody to wait for.
    let _ = stop.wait_for(|stop| *stop == Stop::Soon).await;
}

fn tls(authorities: &Authorities) -> Result<ClientTlsConfig, ExporterError> {
    let tls = ClientTlsConfig::new();
    match authorities {
        Authorities::OfTheSystem => Ok(tls.with_native_roots()),
        Authorities::File(path) => {
            let pem = fs::read(path).map_err(ExporterError::Authority)?;
            Ok(tls.ca_certificate(Certificate::from_pem(pem)))
        }
    }
}
