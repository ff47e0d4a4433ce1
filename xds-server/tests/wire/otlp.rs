//! Usage as a collector gets it of a real control plane. The server is that of the protocol's own crate.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate_proto::v1::{self, SyncRequest};
use tonic::{Request, Response, Status};

use super::support::{Server, until};
use super::{call, consumer, gateway, used};

const TOKEN: &str = "Bearer planted-token-of-the-collector";

/// Takes what has the token.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportLogsServiceRequest>>>);

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if request.metadata().get("authorization").is_none_or(|token| token != TOKEN) {
            return Err(Status::unauthenticated("no token"));
        }
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let server = tonic::transport::Server::builder().add_service(LogsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, url)
    }

    /// Input tokens, model and provider of each record.
    fn records(&self) -> Vec<(i64, String, String)> {
        let calls = self.0.lock().unwrap();
        let logs = calls.iter().flat_map(|call| &call.resource_logs[0].scope_logs[0].log_records);
        let said = logs.map(|log| {
            assert_eq!(log.event_name, "tollgate.usage");
            let Value::IntValue(tokens) = value(&log.attributes, "gen_ai.usage.input_tokens") else {
                panic!("{log:?}")
            };
            (tokens, text(&log.attributes, "gen_ai.request.model"), text(&log.attributes, "gen_ai.provider.name"))
        });
        said.collect()
    }

    async fn has(&self, count: usize) -> Vec<(i64, String, String)> {
        until("records of usage", async || {
            let records = self.records();
            if records.len() >= count { Ok(records) } else { Err(format!("{count} are not in {records:?}")) }
        })
        .await
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|pair| pair.key == key);
    found.and_then(|pair| pair.value.clone()?.value).unwrap_or_else(|| panic!("{key} is not in {attributes:?}"))
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let Value::StringValue(text) = value(attributes, key) else { panic!("{key} is no text") };
    text
}

/// The collector runs while the control plane ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_of_usage_once_and_of_the_rest_at_the_end() {
    let (collector, url) = Collector::start().await;
    let files = [("one.yaml", gateway("one", 18080, 18081)), ("consumers.yaml", consumer("alice", 'a', "'*'"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let header = format!("authorization={}", TOKEN.replace(' ', "%20"));
    let variables = [("OTEL_EXPORTER_OTLP_HEADERS", header.as_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let server = Server::start_with_variables(&files, &[], &variables);
    let mut ledger = server.client("default/one").ledger(&server).await;
    // Without a time it is of a minute that has passed.
    let past = v1::Usage { backend: "one".into(), ..used("alice", "one", 5) };
    ledger.sync(SyncRequest { usage: vec![past.clone(), past.clone()], ..call(1) }).await.unwrap();
    let named = |tokens| (tokens, "one-model".to_owned(), "openai".to_owned());
    assert_eq!(collector.has(1).await, [named(10)]);
    accepted(&server, 1).await;
    // What is settled late is told by itself. The present minute is told at the end.
    let present = v1::Usage { ended_at: Timestamp::now().as_millisecond(), ..used("alice", "one", 9) };
    let usage = vec![v1::Usage { input_tokens: 3, ..past }, present];
    ledger.sync(SyncRequest { usage, ..call(2) }).await.unwrap();
    assert_eq!(collector.has(2).await[1], named(3));
    let books: u64 = server.rows("/api/usage").await.iter().map(|row| row["input_tokens"].as_u64().unwrap()).sum();
    server.stop();
    let records = collector.records();
    assert_eq!(records[2..], [(9, "one-model".to_owned(), "_OTHER".to_owned())], "it names no backend");
    assert_eq!(records.iter().map(|(tokens, ..)| *tokens).sum::<i64>(), i64::try_from(books).unwrap());
    let calls = collector.0.lock().unwrap();
    let instances = calls.iter().map(|call| {
        let resource = call.resource_logs[0].resource.as_ref().unwrap();
        assert_eq!(text(&resource.attributes, "service.name"), "tollgate");
        text(&resource.attributes, "service.instance.id")
    });
    let instances: Vec<String> = instances.collect();
    assert!(instances.iter().all(|instance| *instance == instances[0]), "{instances:?}");
}

/// The control plane knows that so many were taken.
async fn accepted(server: &Server, count: u64) {
    let line = format!("tollgate_otlp_records_total{{result=\"Accepted\"}} {count}\n");
    until("a count", async || {
        let text = reqwest::get(format!("http://{}/metrics", server.metrics)).await.unwrap().text().await.unwrap();
        if text.contains(&line) { Ok(()) } else { Err(format!("{line} is not in\n{text}")) }
    })
    .await;
}

#[test]
fn a_collector_that_cannot_be_is_refused_before_anything_is_started() {
    for (arguments, why) in [
        (&["--otlp-endpoint", "http://127.0.0.1:4318/v1/logs"][..], "has a path"),
        (&["--otlp-endpoint", "127.0.0.1:4317"], "--otlp-endpoint"),
        (&["--otlp-endpoint", "https://127.0.0.1:4317", "--otlp-ca", "/nowhere"], "--otlp-ca"),
    ] {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        let ended = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("serve")
            .arg("--source")
            .arg(home.path())
            .arg("--state")
            .arg(home.path().join("state"))
            .arg("--wasm")
            .arg(home.path().join("filter.wasm"))
            .args(["--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--probes", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}
