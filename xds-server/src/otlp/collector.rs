//! Where a collector is, and what it wants to see of whoever calls it. The names and forms are those of OpenTelemetry's
//! specification (OTLP exporter configuration), so that its variables work as they do elsewhere.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tollgate_core::terms::SecretText;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use url::Url;

/// The variable that has credentials of the collector. A flag would show them to everybody who lists processes.
pub const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// A collector that speaks OTLP over gRPC.
#[derive(Debug, Clone)]
pub struct Collector {
    /// `http://host:port` or `https://host:port`.
    pub url: Url,
    /// Who vouches for it, if it speaks TLS.
    pub authorities: Authorities,
    /// What is sent along with each call. The values are credentials, mostly.
    pub headers: Vec<(String, SecretText)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    OfTheSystem,
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidCollector {
    #[error("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is not a URL: {0}")]
    NoUrl(url::ParseError),
    #[error("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is for http:// and https://")]
    Scheme,
    #[error(
        "--otlp-endpoint has a user or a password in it, which everybody sees who lists processes (OTEL_EXPORTER_OTLP_HEADERS is for credentials)"
    )]
    Credential,
    #[error(
        "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) has a path; name the collector's gRPC port, which has none (4317, mostly)"
    )]
    Path,
    // The text itself may be a secret.
    #[error("OTEL_EXPORTER_OTLP_HEADERS: entry {0} is not name=value, with a name and a value that HTTP allows")]
    Header(usize),
}

// === impl Collector ===

impl Collector {
    /// # Errors
    /// When that is no URL of a gRPC server.
    pub fn new(
        url: &str,
        authorities: Authorities,
        headers: Vec<(String, SecretText)>,
    ) -> Result<Self, InvalidCollector> {
        let url = Url::parse(url).map_err(InvalidCollector::NoUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidCollector::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidCollector::Credential);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidCollector::Path);
        }
        Ok(Self { url, authorities, headers })
    }

    pub fn has_tls(&self) -> bool {
        self.url.scheme() == "https"
    }
}

/// `name=value,name=value`, in which values are written as in a URL.
///
/// # Errors
/// When one is not.
pub fn headers(text: &str) -> Result<Vec<(String, SecretText)>, InvalidCollector> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.enumerate().map(|(place, entry)| header(entry).ok_or(InvalidCollector::Header(place + 1))).collect()
}

fn header(entry: &str) -> Option<(String, SecretText)> {
    let (name, value) = entry.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    AsciiMetadataKey::from_bytes(name.as_bytes()).ok()?;
    AsciiMetadataValue::try_from(&*value).ok()?;
    Some((name, SecretText::new(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_server_of_grpc_and_no_more() {
        let at = |url| Collector::new(url, Authorities::OfTheSystem, Vec::new());
        for (url, tls) in [("http://localhost:4317", false), ("https://otel.example:4317/", true)] {
            assert_eq!(at(url).unwrap().has_tls(), tls, "{url}");
        }
        assert!(matches!(at("localhost:4317"), Err(InvalidCollector::Scheme)));
        assert!(matches!(at("4317"), Err(InvalidCollector::NoUrl(_))));
        assert!(matches!(at("http://me@localhost:4317"), Err(InvalidCollector::Credential)));
        assert!(matches!(at("http://:me@localhost:4317"), Err(InvalidCollector::Credential)));
        for url in ["http://localhost:4318/v1/logs", "http://localhost:4317?a=b", "http://localhost:4317#a"] {
            assert!(matches!(at(url), Err(InvalidCollector::Path)), "{url}");
        }
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them_and_are_secret() {
        let read = headers(" Authorization = Bearer%20s3cret ,, x-tenant=a=b").unwrap();
        let exposed: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(exposed, [("authorization", "Bearer s3cret"), ("x-tenant", "a=b")]);
        assert!(!format!("{read:?}").contains("s3cret"));
        assert_eq!(headers("").unwrap().len(), 0);
        for wrong in ["a=b, s3cret", "a=b,s3 cret=x", "a=b,x=s3cret%0A", "a=b,x=%FFs3cret"] {
            let error = headers(wrong).unwrap_err().to_string();
            assert!(error.contains("entry 2") && !error.contains("cret"), "{wrong}: {error}");
        }
    }
}
