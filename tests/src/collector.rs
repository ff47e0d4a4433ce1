//! The real OpenTelemetry Collector (`tests/lab/collector/`), and the spans that it was sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::poll;
use crate::process::{Process, free_port};
use crate::tools::Tools;

pub struct Collector {
    port: u16,
    spans: PathBuf,
    _process: Process,
}

/// A span as it was sent.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    pub name: String,
    pub kind: Kind,
    pub attributes: BTreeMap<String, String>,
    /// Of whoever sent it.
    pub resource: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
    Other,
}

// === impl Collector ===

impl Collector {
    /// With its files in this folder.
    pub async fn start(tools: &Tools, folder: &Path) -> anyhow::Result<Self> {
        let program = tools.lab_program("collector");
        anyhow::ensure!(program.exists(), "{} is missing: `cargo xtask test` builds it", program.display());
        std::fs::create_dir_all(folder)?;
        let (port, spans) = (free_port()?, folder.join("spans.json"));
        let config = folder.join("collector.yaml");
        std::fs::write(
            &config,
            format!(
                "\
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}
exporters: {{file: {{path: {}, flush_interval: 100ms}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}}}
",
                spans.display()
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&config);
        let process = Process::start(&mut command, &folder.join("collector.log"))?;
        let started = Self { port, spans, _process: process };
        poll::until("the collector listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        })
        .await?;
        Ok(started)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans that came, once there are as many as this of each of these kinds. Envoy sends a request's span and those
    /// of its attempts as each of them ends, and in batches, so that one kind says nothing of another.
    pub async fn spans(&self, expected: [(Kind, usize); 2]) -> anyhow::Result<Vec<Span>> {
        let spans = poll::until("the spans have come", || async {
            let spans = self.read()?;
            let found = expected.map(|(kind, _)| (kind, count(&spans, kind)));
            let all = expected.iter().zip(&found).all(|(expected, found)| found.1 >= expected.1);
            anyhow::ensure!(all, "{found:?} of {expected:?}");
            Ok(spans)
        })
        .await?;
        let found = expected.map(|(kind, _)| (kind, count(&spans, kind)));
        anyhow::ensure!(found == expected, "{found:?} and not {expected:?}: {spans:?}");
        Ok(spans)
    }

    /// Everything that was sent, as text.
    pub fn everything(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.spans)?)
    }

    fn read(&self) -> anyhow::Result<Vec<Span>> {
        let mut spans = Vec::new();
        // The last line may be half written.
        for line in self.everything()?.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let sent: Value = serde_json::from_str(line)?;
            for of_resource in list(&sent, "resourceSpans") {
                let resource = attributes(of_resource.get("resource").unwrap_or(&Value::Null));
                let of_scopes = list(of_resource, "scopeSpans");
                let all = of_scopes.iter().flat_map(|of_scope| list(of_scope, "spans"));
                for span in all {
                    spans.push(Span::read(span, &resource)?);
                }
            }
        }
        Ok(spans)
    }
}

fn count(spans: &[Span], kind: Kind) -> usize {
    spans.iter().filter(|span| span.kind == kind).count()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let read = |one: &Value| {
        let value = one.get("value")?.get("stringValue")?.as_str()?;
        Some((one.get("key")?.as_str()?.to_owned(), value.to_owned()))
    };
    list(of, "attributes").iter().filter_map(read).collect()
}

// === impl Span ===

impl Span {
    fn read(span: &Value, resource: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let text = |name: &str| span.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = match span.get("kind").and_then(Value::as_u64).context("a span has a kind")? {
            2 => Kind::Server,
            3 => Kind::Client,
            _ => Kind::Other,
        };
        Ok(Self {
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            kind,
            attributes: attributes(span),
            resource: resource.clone(),
        })
    }

    /// Empty: it does not have it.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}
