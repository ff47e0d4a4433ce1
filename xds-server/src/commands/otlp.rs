//! The collector of OpenTelemetry, if there is one. The variables are OpenTelemetry's own.

use std::path::PathBuf;

use crate::otlp::{Authorities, Collector, HEADERS, InvalidCollector, headers};

#[derive(Debug, clap::Args)]
pub struct OtlpArgs {
    /// Collector of OpenTelemetry that is told of usage, by OTLP over gRPC: http://host:4317 or https://host:4317. What
    /// it wants to see of us (name=value,...) is in the variable OTEL_EXPORTER_OTLP_HEADERS alone, because that is secret
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// File with the CA that vouches for it, if it speaks TLS [default: those that the system trusts]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "PATH")]
    otlp_ca: Option<PathBuf>,
}

// === impl OtlpArgs ===

impl OtlpArgs {
    /// # Errors
    /// When that is no collector.
    pub fn collector(&self) -> Result<Option<Collector>, InvalidCollector> {
        // An empty variable is one that is not set (OpenTelemetry's specification).
        let Some(url) = self.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let file = self.otlp_ca.clone().filter(|path| !path.as_os_str().is_empty());
        let authorities = file.map_or(Authorities::OfTheSystem, Authorities::File);
        let headers = headers(&std::env::var(HEADERS).unwrap_or_default())?;
        Collector::new(url, authorities, headers).map(Some)
    }
}
