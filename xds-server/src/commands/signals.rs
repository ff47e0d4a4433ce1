//! The options for what Envoys tell of requests: their access log, spans, and the fields that our filter tells for both.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tollgate_core::envoy::{RequestFields, Sampling, Signals, Tracing};
use tollgate_core::terms::{Collector as EnvoyCollector, Security};

use crate::otlp::{Authorities, Collector};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Signals")]
pub struct SignalArgs {
    /// File of the access log of all Gateways, a line of JSON for each request, on the machines of their Envoys; `-` is
    /// their standard output, and that of `tollgate run`. No key is in it, and no query of a URL
    #[arg(long, value_name = "PATH")]
    access_log: Option<PathBuf>,
    /// The filter says what it knows of each request (docs/signals.md) also where nobody here reads it: in sidecars, for Istio's
    /// accessLogFormat and Telemetry. An access log and spans need no such word at Gateways
    #[arg(long)]
    request_fields: bool,
    /// Share of the requests that Envoys send a span of to the collector (--otlp-endpoint), in percent. A request that is
    /// part of a trace already (traceparent) has one if that trace is sampled. 0: there are no spans at all
    #[arg(long, default_value = "0", value_name = "PERCENT", value_parser = spans)]
    trace_sampling: Spans,
}

/// Of which requests there are spans.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spans {
    None,
    Of(Sampling),
}

/// Where the access log is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogPlace {
    Stdout,
    File(PathBuf),
}

/// Of the Envoy itself.
const STDOUT: &str = "/dev/stdout";

// === impl SignalArgs ===

impl SignalArgs {
    pub fn access_log(&self) -> Option<AccessLogPlace> {
        let path = self.access_log.as_ref()?;
        Some(if path == Path::new("-") { AccessLogPlace::Stdout } else { AccessLogPlace::File(path.clone()) })
    }

    /// What the filter tells where nobody here reads it.
    pub fn asked_fields(&self) -> RequestFields {
        if self.request_fields { RequestFields::Told } else { RequestFields::Kept }
    }

    /// For Envoys that are started elsewhere.
    ///
    /// # Errors
    /// As [`signals`](Self::signals).
    pub fn elsewhere(&self, collector: Option<&Collector>) -> anyhow::Result<Signals> {
        let access_log = self.access_log().map(|place| match place {
            AccessLogPlace::Stdout => STDOUT.into(),
            AccessLogPlace::File(path) => path,
        });
        self.signals(access_log.as_deref(), collector)
    }

    /// `access_log` is the file as Envoys have it.
    ///
    /// # Errors
    /// When spans have nobody to go to, or the file with the collector's authorities cannot be read.
    pub fn signals(&self, access_log: Option<&Path>, collector: Option<&Collector>) -> anyhow::Result<Signals> {
        let access_log = access_log.map(text).transpose()?;
        let tracing = match self.trace_sampling {
            Spans::None => None,
            Spans::Of(sampling) => Some(tracing(sampling, collector)?),
        };
        Ok(Signals { access_log, tracing })
    }
}

/// Envoy's files are named in text.
fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("--access-log: the path is not UTF-8")
}

fn tracing(sampling: Sampling, collector: Option<&Collector>) -> anyhow::Result<Tracing> {
    let collector = collector.context("--trace-sampling needs a collector to send spans to (--otlp-endpoint)")?;
    if !collector.headers.is_empty() {
        tracing::warn!("Envoys send spans without OTEL_EXPORTER_OTLP_HEADERS: their configuration can be read");
    }
    let host = collector.url.host_str().context("--otlp-endpoint has no host")?;
    let security = match &collector.authorities {
        _ if !collector.has_tls() => Security::None,
        Authorities::OfTheSystem => Security::SystemAuthorities,
        Authorities::File(path) => Security::Authorities(
            std::fs::read_to_string(path).with_context(|| format!("--otlp-ca {} cannot be read", path.display()))?,
        ),
    };
    let collector = EnvoyCollector {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: collector.url.port_or_known_default().context("--otlp-endpoint has no port")?,
        security,
    };
    Ok(Tracing { collector, sampling })
}

fn spans(text: &str) -> Result<Spans, &'static str> {
    const WRONG: &str = "not a share from 0 to 100";
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| WRONG)?;
    if percent == 0.0 { Ok(Spans::None) } else { Sampling::of_percent(percent).map(Spans::Of).ok_or(WRONG) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Call {
        #[command(flatten)]
        signals: SignalArgs,
    }

    fn args(arguments: &[&str]) -> SignalArgs {
        Call::try_parse_from(std::iter::once(&"tollgate").chain(arguments)).unwrap().signals
    }

    fn collector(url: &str, authorities: Authorities) -> Collector {
        Collector::new(url, authorities, Vec::new()).unwrap()
    }

    #[test]
    fn nothing_is_told_unless_it_is_asked_for() {
        let at = collector("http://otel:4317", Authorities::OfTheSystem);
        for arguments in [&[][..], &["--trace-sampling", "0"]] {
            let args = args(arguments);
            assert_eq!(args.signals(None, Some(&at)).unwrap(), Signals::default());
            assert_eq!((args.access_log(), args.asked_fields()), (None, RequestFields::Kept));
        }
        assert_eq!(args(&["--request-fields"]).asked_fields(), RequestFields::Told);
        assert_eq!(args(&["--access-log", "-"]).access_log(), Some(AccessLogPlace::Stdout));
        assert_eq!(args(&["--access-log", "./-"]).access_log(), Some(AccessLogPlace::File("./-".into())));
    }

    #[test]
    fn spans_go_to_the_collector_and_need_one() {
        let args = args(&["--trace-sampling", "2.5"]);
        let to = |url, authorities| {
            let tracing = args.signals(None, Some(&collector(url, authorities))).unwrap().tracing.unwrap();
            assert_eq!(tracing.sampling.percent(), 2.5);
            tracing.collector
        };
        let system = || Authorities::OfTheSystem;
        let plain = to("http://otel.observability.svc:4317", system());
        assert_eq!((plain.host.as_str(), plain.port), ("otel.observability.svc", 4317));
        assert_eq!(plain.security, Security::None);
        let tls = to("https://[::1]", system());
        assert_eq!((tls.host.as_str(), tls.port, &tls.security), ("::1", 443, &Security::SystemAuthorities));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a certificate").unwrap();
        let own = to("https://otel:4317", Authorities::File(file.path().to_owned()));
        assert_eq!(own.security, Security::Authorities("a certificate".to_owned()));
        let error = args.signals(None, None).unwrap_err().to_string();
        assert!(error.contains("--otlp-endpoint"), "{error}");
    }

    #[test]
    fn a_share_is_in_percent() {
        assert_eq!(spans("100%"), Ok(Spans::Of(Sampling::of_percent(100.0).unwrap())));
        assert_eq!(spans("0.0"), Ok(Spans::None));
        for wrong in ["-1", "100.5", "NaN", "all", ""] {
            assert!(spans(wrong).is_err(), "{wrong}");
        }
    }
}
