//! The exporter against the server of the protocol's own crate, which answers as it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate_core::ledger::usage::{Totals, UsageKey};
use tonic::{Code, Request, Response, Status};

use super::events::{Events, Outcome, QUEUE};
use super::*;

const PAUSE: Duration = Duration::from_millis(1);

/// What a collector answers next. When there is nothing left, it takes everything.
type Answers = Arc<Mutex<VecDeque<Result<ExportLogsServiceResponse, Status>>>>;

/// A call, and its header `x-tenant`.
type Taken = (ExportLogsServiceRequest, Option<String>);

#[derive(Clone, Default)]
struct Server {
    answers: Answers,
    taken: Arc<Mutex<Vec<Taken>>>,
}

#[tonic::async_trait]
impl LogsService for Server {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let tenant = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Ok(Default::default()))?;
        self.taken.lock().unwrap().push((request.into_inner(), tenant));
        Ok(Response::new(answer))
    }
}

impl Server {
    fn answering(answers: impl IntoIterator<Item = Result<ExportLogsServiceResponse, Status>>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
    }

    async fn start(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = LogsServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    /// The ids of the records that it has taken, without the instance.
    fn numbers(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let ids = taken.iter().flat_map(|(request, _)| records(request)).map(|record| record[0].clone());
        ids.map(|id| id.split_once('/').unwrap().1.to_owned()).collect()
    }
}

/// The attributes of each record as text, in their order.
fn records(request: &ExportLogsServiceRequest) -> Vec<Vec<String>> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let logs = &request.resource_logs[0].scope_logs[0].log_records;
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(count) => count.to_string(),
        other => panic!("{other:?}"),
    };
    let values = logs.iter().map(|log| {
        log.attributes.iter().map(|pair| text(pair.value.as_ref().unwrap().value.as_ref().unwrap())).collect()
    });
    values.collect()
}

fn nowhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn exporter(address: SocketAddr) -> (Events, Exporter) {
    let headers = headers("x-tenant=blue").unwrap();
    let collector = Collector::new(&format!("http://{address}"), Authorities::OfTheSystem, headers).unwrap();
    Exporter::begin(&collector, PAUSE).unwrap()
}

fn usage(input_tokens: u64) -> Usage {
    let [consumer, route, model, backend] = ["app", "chat", "smol", "runner"].map(str::to_owned);
    let totals = Totals { requests: 3, input_tokens, cached_input_tokens: 1, ..Totals::default() };
    Usage { minute: 29_921_760, key: UsageKey { consumer, route, model, backend }, schema: None, totals }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..24_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

fn counted(events: &Events) -> [u64; 4] {
    [Outcome::Accepted, Outcome::Failed, Outcome::Rejected, Outcome::Dropped].map(|result| events.counted(result))
}

#[tokio::test]
async fn a_record_says_whose_usage_it_is_and_what() {
    let server = Server::default();
    let (events, exporter) = exporter(server.start(nowhere()).await);
    events.record(usage(850));
    exporter.finish().await;
    let taken = server.taken.lock().unwrap().clone();
    let [(request, tenant)] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!(tenant.as_deref(), Some("blue"));
    let resource = request.resource_logs[0].resource.as_ref().unwrap();
    let keys: Vec<&str> = resource.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["service.name", "service.version", "service.instance.id"]);
    let log = &request.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("tollgate.usage", 1_795_305_600_000_000_000));
    assert!(log.observed_time_unix_nano > 0);
    let said: Vec<(&str, String)> =
        log.attributes.iter().map(|pair| pair.key.as_str()).zip(records(request).remove(0)).skip(1).collect();
    let expected = [
        ("tollgate.minute", "2026-11-22T00:00:00Z"),
        ("tollgate.consumer", "app"),
        ("tollgate.route", "chat"),
        ("tollgate.backend", "runner"),
        ("gen_ai.request.model", "smol"),
        ("gen_ai.provider.name", "_OTHER"),
        ("tollgate.requests", "3"),
        ("tollgate.estimated_requests", "0"),
        ("gen_ai.usage.input_tokens", "850"),
        ("gen_ai.usage.output_tokens", "0"),
        ("gen_ai.usage.cache_read.input_tokens", "1"),
        ("gen_ai.usage.reasoning.output_tokens", "0"),
    ];
    assert_eq!(said, expected.map(|(key, value)| (key, value.to_owned())));
}

#[tokio::test]
async fn what_the_collector_cannot_take_now_is_sent_again_under_the_same_ids() {
    let mut details = vec![0x1a, 0x2b];
    details.extend_from_slice(b"type.googleapis.com/google.rpc.RetryInfo");
    let full = Status::with_details(Code::ResourceExhausted, "full", details.into());
    let later =
        [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::DataLoss];
    let answers: Vec<_> = later.map(|code| Err(Status::new(code, "later"))).into_iter().chain([Err(full)]).collect();
    let server = Server::answering(answers);
    let (events, _exporter) = exporter(server.start(nowhere()).await);
    events.record(usage(1));
    until("it is taken", || events.counted(Outcome::Accepted) == 1).await;
    assert_eq!((server.numbers(), counted(&events)), (vec!["0".to_owned()], [1, 7, 0, 0]));
    events.record(usage(2));
    until("the next one is taken", || events.counted(Outcome::Accepted) == 2).await;
    assert_eq!(server.numbers(), ["0", "1"]);
}

#[tokio::test]
async fn what_it_will_never_take_is_given_up_and_holds_up_nothing() {
    let never = [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::Unimplemented,
        Code::Unknown,
        // It does not say that it will have room again: the call is too large for it.
        Code::ResourceExhausted,
    ];
    let server = Server::answering(never.map(|code| Err(Status::new(code, "never"))));
    let (events, _exporter) = exporter(server.start(nowhere()).await);
    for count in 1..=6 {
        events.record(usage(count));
        until("it is given up", || events.counted(Outcome::Rejected) == count).await;
    }
    events.record(usage(7));
    until("the next one is taken", || events.counted(Outcome::Accepted) == 1).await;
    assert_eq!((server.numbers(), counted(&events)), (vec!["6".to_owned()], [1, 0, 6, 0]));
}

#[tokio::test]
async fn records_that_it_rejects_are_counted_and_not_sent_again() {
    let partly = |rejected_log_records| {
        let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: "no room".into() };
        Ok(ExportLogsServiceResponse { partial_success: Some(partial) })
    };
    let server = Server::answering([partly(2), partly(99), partly(-1)]);
    let (events, _exporter) = exporter(server.start(nowhere()).await);
    // Three in one batch, because the exporter has no turn in between.
    (0..3).for_each(|_| events.record(usage(1)));
    until("all three are told", || events.counted(Outcome::Accepted) + events.counted(Outcome::Rejected) == 3).await;
    assert_eq!(counted(&events), [1, 0, 2, 0]);
    events.record(usage(1));
    until("the fourth is rejected", || events.counted(Outcome::Rejected) == 3).await;
    events.record(usage(1));
    until("the fifth is taken", || events.counted(Outcome::Accepted) == 2).await;
    assert_eq!(server.taken.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_collector_that_comes_late_gets_what_the_queue_has_and_the_rest_is_counted() {
    let listener = TcpListener::bind(nowhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (events, _exporter) = exporter(address);
    events.record(usage(0));
    until("nobody is there", || events.counted(Outcome::Failed) > 0).await;
    // The first one is on its way. So many more have room.
    let more = u64::try_from(QUEUE).unwrap();
    (0..more + 5).for_each(|count| events.record(usage(count)));
    assert_eq!(events.counted(Outcome::Dropped), 5);
    let server = Server::default();
    server.start(address).await;
    until("all of them are taken", || events.counted(Outcome::Accepted) == more + 1).await;
    let numbers = server.numbers();
    let expected: Vec<String> = (0..=more).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(counted(&events)[2..], [0, 5]);
}

#[tokio::test]
async fn nobody_waits_for_a_collector_at_the_end() {
    let (events, exporter) = exporter("127.0.0.1:9".parse().unwrap());
    events.record(usage(1));
    exporter.finish().await;
    assert_eq!(counted(&events)[0], 0);
    events.record(usage(2));
    assert_eq!(events.counted(Outcome::Dropped), 1, "after the end nothing is queued");
    // Who records for no collector does nothing.
    let off = Events::default();
    off.record(usage(1));
    assert_eq!((off.is_on(), counted(&off)), (false, [0; 4]));
}

#[tokio::test]
async fn a_collector_with_tls_is_believed_if_its_ca_is_known() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.crt");
    std::fs::write(&path, &certificate).unwrap();
    let server = Server::default();
    let listener = TcpListener::bind(nowhere()).await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = tonic::transport::ServerTlsConfig::new().identity(tonic::transport::Identity::from_pem(certificate, key));
    let mut serving = tonic::transport::Server::builder().tls_config(tls).unwrap();
    let serving = serving.add_service(LogsServiceServer::new(server.clone()));
    let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let telling = |authorities| {
        let collector = Collector::new(&url, authorities, Vec::new()).unwrap();
        let (events, exporter) = Exporter::begin(&collector, PAUSE).unwrap();
        events.record(usage(1));
        (events, exporter)
    };
    let (known, _exporter) = telling(Authorities::File(path));
    until("it is taken", || known.counted(Outcome::Accepted) == 1).await;
    let (unknown, _exporter) = telling(Authorities::OfTheSystem);
    until("it is not believed", || unknown.counted(Outcome::Failed) > 0).await;
    assert_eq!(server.taken.lock().unwrap().len(), 1);
    let nowhere = Collector::new(&url, Authorities::File(dir.path().join("nowhere")), Vec::new()).unwrap();
    assert!(Exporter::begin(&nowhere, PAUSE).is_err());
}
