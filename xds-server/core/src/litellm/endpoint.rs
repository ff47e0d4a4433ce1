//! `api_base` as the endpoint, TLS and path of a ModelBackend.

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

use crate::objects::is_dns_subdomain;

use super::provider::{Base, Provider};

/// Where a backend is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) hostname: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Without a `/` at its end; empty for none.
    pub(super) path: String,
}

/// Why an `api_base` cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidBase {
    #[error("it is no URL")]
    NotAUrl,
    #[error("it begins neither with http:// nor with https://")]
    Scheme,
    #[error("its hostname is none that DNS knows")]
    Hostname,
    #[error("it has a user, and a password perhaps")]
    User,
    #[error("it has a query, which the paths of requests would follow")]
    Query,
    #[error("its path has characters or segments that no path of ours has")]
    Path,
    #[error("it names the path of a deployment, and Azure's v1 API names the deployment as the model")]
    Deployment,
}

// === impl InvalidBase ===

impl InvalidBase {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::NotAUrl | Self::Scheme => "for example http://127.0.0.1:8000/v1",
            Self::Hostname => "letters, digits, `-` and `.`, or an IP address",
            Self::User => "give the credential as api_key",
            Self::Query => "leave it out",
            Self::Path => "letters, digits and `-._~%`",
            Self::Deployment => "https://NAME.openai.azure.com",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of a provider that is at this base.
    ///
    /// # Errors
    /// When the base is no URL that a backend can have.
    pub(super) fn parse(base: &str, provider: Provider) -> Result<Self, InvalidBase> {
        let uri: Uri = base.trim().parse().map_err(|_| InvalidBase::NotAUrl)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidBase::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidBase::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(InvalidBase::User);
        }
        if uri.query().is_some() {
            return Err(InvalidBase::Query);
        }
        let host = authority.host().to_ascii_lowercase();
        let hostname = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().map_err(|_| InvalidBase::Hostname)?.to_string(),
            None if is_dns_subdomain(&host) => host,
            None => return Err(InvalidBase::Hostname),
        };
        // The crate takes any digits for a port, and has none then.
        let port = match authority.as_str().get(authority.host().len()..) {
            Some("") if tls => 443,
            Some("") => 80,
            Some(_) | None => authority.port_u16().filter(|port| *port > 0).ok_or(InvalidBase::NotAUrl)?,
        };
        Ok(Self { hostname, port, tls, path: path(uri.path(), provider)? })
    }

    /// What people call it: `gpu-1-8000`, or `my-resource` where the rest is the provider's.
    pub(super) fn name(&self) -> String {
        let host = match self.hostname.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => self.hostname.split('.').next().unwrap_or_default().to_owned(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}-{port}"),
        }
    }
}

/// Where the paths below our `/v1` are.
fn path(path: &str, provider: Provider) -> Result<String, InvalidBase> {
    let path = path.trim_end_matches('/');
    if path.contains("/openai/deployments") {
        return Err(InvalidBase::Deployment);
    }
    let is_fine = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte))
    };
    if path.len() > 900 || !path.split('/').skip(1).all(is_fine) {
        return Err(InvalidBase::Path);
    }
    Ok(match provider.base {
        Base::Whole(_) => path.to_owned(),
        // Some write the ending, which LiteLLM does not add twice then.
        Base::Before(ending, _) => {
            let path = path.strip_suffix("/messages").unwrap_or(path);
            format!("{}{ending}", path.strip_suffix(ending).unwrap_or(path))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::provider::{Named, named};
    use super::*;

    fn parse(provider: &str, base: &str) -> Result<Endpoint, InvalidBase> {
        let Named::Ours(provider) = named(provider) else { panic!("{provider}") };
        Endpoint::parse(base, provider)
    }

    fn of(provider: &str, base: &str) -> String {
        let Endpoint { hostname, port, tls, path } = parse(provider, base).unwrap();
        format!("{hostname} {port} {tls} {path}")
    }

    #[test]
    fn a_base_is_what_stands_before_the_paths_of_the_provider() {
        for (provider, base, expected) in [
            ("openai", "http://127.0.0.1:8000/v1", "127.0.0.1 8000 false /v1"),
            ("openai", "https://LLM.example.com/v1/", "llm.example.com 443 true /v1"),
            ("openai", "http://h", "h 80 false "),
            ("hosted_vllm", "http://[::1]:8000/a/b", "::1 8000 false /a/b"),
            ("ollama", "http://h:11434", "h 11434 false /v1"),
            ("ollama", "http://h:11434/v1/", "h 11434 false /v1"),
            ("anthropic", "https://h/proxy", "h 443 true /proxy/v1"),
            ("anthropic", "https://h/v1/messages", "h 443 true /v1"),
            ("azure", "https://n.openai.azure.com/", "n.openai.azure.com 443 true /openai/v1"),
            ("azure", "https://n.openai.azure.com/openai/v1/", "n.openai.azure.com 443 true /openai/v1"),
        ] {
            assert_eq!(of(provider, base), expected, "{provider} {base}");
        }
    }

    #[test]
    fn what_no_backend_can_have_is_refused() {
        for (base, expected) in [
            ("", InvalidBase::NotAUrl),
            ("h:8000", InvalidBase::Scheme),
            ("ftp://h", InvalidBase::Scheme),
            ("http://", InvalidBase::NotAUrl),
            ("http://h:0/", InvalidBase::NotAUrl),
            ("http://h:99999/", InvalidBase::NotAUrl),
            ("http://a_b/v1", InvalidBase::Hostname),
            ("http://[::1", InvalidBase::NotAUrl),
            ("https://user:password@h/v1", InvalidBase::User),
            ("https://h/v1?key=1", InvalidBase::Query),
            ("https://h/a//b", InvalidBase::Path),
            ("https://h/a/../b", InvalidBase::Path),
            ("https://h/a;b", InvalidBase::Path),
            ("https://h/openai/deployments/gpt/", InvalidBase::Deployment),
        ] {
            assert_eq!(parse("openai", base), Err(expected), "{base}");
        }
        assert!(parse("openai", &format!("http://h/{}", "a".repeat(899))).is_ok());
        assert_eq!(parse("openai", &format!("http://h/{}", "a".repeat(900))), Err(InvalidBase::Path));
    }

    #[test]
    fn a_name_says_which_host_and_port() {
        for (base, name) in [
            ("http://gpu-1.example.com:8000/v1", "gpu-1-8000"),
            ("https://eu.example.com/v1", "eu"),
            ("http://eu.example.com/v1", "eu"),
            ("http://eu.example.com:443/v1", "eu-443"),
            ("http://10.0.0.7:80/v1", "10.0.0.7"),
        ] {
            assert_eq!(parse("openai", base).unwrap().name(), name, "{base}");
        }
    }
}
