//! The base URL of a runner, as its SDKs are told it, said as a ModelBackend says it.

use std::str::FromStr;

use reqwest::Url;

use super::text;

/// Where a runner answers OpenAI's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    host: String,
    port: u16,
    tls: bool,
    path: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidRunner {
    #[error("this is no URL (http://127.0.0.1:8081/v1, say)")]
    NoUrl,
    #[error("a runner is called by http or https, and this is {0}")]
    OtherScheme(String),
    #[error("a user, a query or a fragment has no place here")]
    TooMuch,
}

impl FromStr for Runner {
    type Err = InvalidRunner;

    fn from_str(said: &str) -> Result<Self, InvalidRunner> {
        let url = Url::parse(said).map_err(|_| InvalidRunner::NoUrl)?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(InvalidRunner::OtherScheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidRunner::TooMuch);
        }
        let host = url.host_str().ok_or(InvalidRunner::NoUrl)?;
        let port = url.port_or_known_default().ok_or(InvalidRunner::NoUrl)?;
        let path = match url.path().trim_end_matches('/') {
            "" => "/v1",
            path => path,
        };
        // An address of IPv6 has brackets in a URL alone.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, tls, path: path.to_owned() })
    }
}

// === impl Runner ===

impl Runner {
    pub fn fill(&self, template: &str) -> String {
        template
            .replace("@host@", &text(&self.host))
            .replace("@port@", &self.port.to_string())
            .replace("@tls@", if self.tls { "Simple" } else { "None" })
            .replace("@path@", &text(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        let runner = |said: &str| said.parse::<Runner>();
        let of = |host: &str, port, tls, path: &str| Runner { host: host.into(), port, tls, path: path.into() };
        assert_eq!(runner("http://127.0.0.1:11434/v1/").unwrap(), of("127.0.0.1", 11434, false, "/v1"));
        assert_eq!(runner("http://localhost:8081").unwrap(), of("localhost", 8081, false, "/v1"));
        assert_eq!(runner("https://llm.example/api/v3").unwrap(), of("llm.example", 443, true, "/api/v3"));
        assert_eq!(runner("http://[::1]:8081").unwrap(), of("::1", 8081, false, "/v1"));
        for wrong in ["127.0.0.1:8081", "ftp://a", "http://", "http://me:pw@a/v1", "http://a/v1?key=b", "http://a/#b"] {
            assert!(runner(wrong).is_err(), "{wrong}");
        }
    }
}
