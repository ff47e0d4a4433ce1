//! Questions to the admin API of a running control plane.

use std::path::PathBuf;

use anyhow::Context as _;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use tollgate_core::terms::SecretText;

/// Where the admin API is, unless the user says otherwise.
pub const DEFAULT: &str = "127.0.0.1:19000";
/// The token itself, for those who have it in no file.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// Where the admin API is, and what it is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminApi {
    /// Where the control plane's admin API is: an address, or a URL with the path that a proxy has put before it
    #[arg(long, default_value = DEFAULT, value_parser = base, value_name = "IP:PORT|URL")]
    admin: Url,
    /// Certificates (PEM) of the authorities that the API's own one is verified by [default: those of the system]
    #[arg(long, value_name = "PATH")]
    admin_ca: Option<PathBuf>,
    /// File with the token of the admin API [default: the token in TOLLGATE_ADMIN_TOKEN]
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
}

/// What is given as the place of the admin API is none.
#[derive(Debug, thiserror::Error)]
enum InvalidPlace {
    #[error("it is neither an address such as 127.0.0.1:19000 nor a URL: {0}")]
    Url(#[from] url::ParseError),
    #[error("a URL begins with http:// or https://")]
    Scheme,
    #[error("a URL here has no user, query or fragment; --admin-token-file names a file with the token")]
    More,
}

/// Why the token cannot be shown.
#[derive(Debug, thiserror::Error)]
enum InvalidToken {
    #[error("{path} cannot be read: {source} (--admin-token-file names the file with the admin API's token)")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the token of the admin API is one line of visible ASCII characters")]
    NoToken,
}

/// The base of all paths. It ends with a slash.
fn base(text: &str) -> Result<Url, InvalidPlace> {
    let mut url = if text.contains("://") { Url::parse(text)? } else { Url::parse(&format!("http://{text}"))? };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(InvalidPlace::Scheme);
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidPlace::More);
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

// === impl AdminApi ===

impl AdminApi {
    /// The answer of `GET path`, which begins with no slash.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
        let answer = self.answer(path, query).await?;
        let url = answer.url().to_string();
        answer.json().await.with_context(|| format!("{url} is not the admin API of tollgate"))
    }

    /// The same, as it comes.
    pub async fn answer(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Response> {
        let url = self.admin.join(path)?;
        let token = self.token()?;
        let mut get = self.client()?.get(url.clone()).query(query);
        if let Some(token) = &token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_not_visible| InvalidToken::NoToken)?;
            value.set_sensitive(true);
            get = get.header(AUTHORIZATION, value);
        }
        let answer = get
            .send()
            .await
            .with_context(|| format!("{url} does not answer (is tollgate running? --admin names its admin address)"))?;
        let status = answer.status();
        match status {
            _ if status.is_success() => {}
            StatusCode::UNAUTHORIZED if token.is_none() => anyhow::bail!(
                "{url} wants a token: --admin-token-file names a file that has it, or {TOKEN} is the token itself"
            ),
            StatusCode::UNAUTHORIZED => anyhow::bail!(
                "{url} does not take this token: --admin-token-file or {TOKEN} must have what the control plane has in \
                 its --admin-token-file"
            ),
            _ if status.is_redirection() => anyhow::bail!(
                "{url} answers {status} and leads elsewhere: --admin must name the URL of the admin API itself"
            ),
            _ => anyhow::bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default().trim()),
        }
        Ok(answer)
    }

    /// The token is for the API alone: no proxy gets it, and no redirect leads it elsewhere.
    fn client(&self) -> anyhow::Result<Client> {
        let mut client = Client::builder().no_proxy().redirect(redirect::Policy::none());
        if let Some(path) = &self.admin_ca {
            let what = || format!("--admin-ca {} has no certificates that can be used", path.display());
            let found = Certificate::from_pem_bundle(&std::fs::read(path).with_context(what)?).with_context(what)?;
            anyhow::ensure!(!found.is_empty(), what());
            client = client.tls_built_in_root_certs(false);
            client = found.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(client.build()?)
    }

    fn token(&self) -> Result<Option<SecretText>, InvalidToken> {
        let text = match &self.admin_token_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| InvalidToken::Unreadable { path: path.clone(), source })?,
            None => match std::env::var(TOKEN) {
                Ok(text) if !text.trim().is_empty() => text,
                _ => return Ok(None),
            },
        };
        let text = text.trim();
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_token { Ok(Some(SecretText::new(text))) } else { Err(InvalidToken::NoToken) }
    }
}

/// Asks until the answer is there.
pub fn block_on<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_url_with_a_prefix_lead_to_the_api() {
        for (text, expected) in [
            ("127.0.0.1:19000", "http://127.0.0.1:19000/api/usage"),
            ("[::1]:19000", "http://[::1]:19000/api/usage"),
            ("tollgate.ns.svc:19000", "http://tollgate.ns.svc:19000/api/usage"),
            ("http://localhost:1/", "http://localhost:1/api/usage"),
            ("https://llm.example/admin", "https://llm.example/admin/api/usage"),
            ("https://llm.example/a/b/", "https://llm.example/a/b/api/usage"),
        ] {
            assert_eq!(base(text).unwrap().join("api/usage").unwrap().as_str(), expected);
        }
        for wrong in ["", ":19000", "ftp://host/", "https://user:secret@host/", "http://host/?a=b", "http://host/#a"] {
            let error = base(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    /// The API behind a proxy that speaks TLS and adds a prefix, with a certificate of an authority of its own.
    #[tokio::test]
    async fn the_api_is_asked_over_https_with_a_given_authority() {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = format!("https://localhost:{}/prefix", listener.local_addr().unwrap().port());
        let answer = async |headers: axum::http::HeaderMap| {
            let shown =
                headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            axum::Json(serde_json::json!({ "shown": shown }))
        };
        let router = axum::Router::new().route("/prefix/api/status", axum::routing::get(answer));
        let tls = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
        tokio::spawn(crate::web::serve_tls(
            listener,
            "test",
            router,
            crate::web::Limits::PEOPLE,
            crate::web::Tls { acceptor: tls, failures: crate::handshakes::Handshakes::default() },
        ));

        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let api = AdminApi {
            admin: base(&admin).unwrap(),
            admin_ca: write("ca.pem", &certified.cert.pem()),
            admin_token_file: write("token", "a-token-in-a-file\n"),
        };
        let said: serde_json::Value = api.get("api/status", &[]).await.unwrap();
        assert_eq!(said["shown"], "Bearer a-token-in-a-file");

        let asked = async |api: AdminApi| api.get::<serde_json::Value>("api/status", &[]).await.unwrap_err();
        let of_system = format!("{:#}", asked(AdminApi { admin_ca: None, ..api.clone() }).await);
        assert!(of_system.contains("does not answer"), "the system does not know it: {of_system}");
        let empty = asked(AdminApi { admin_ca: write("empty.pem", ""), ..api.clone() }).await;
        assert!(empty.to_string().contains("--admin-ca"), "{empty}");
        let broken = asked(AdminApi { admin_token_file: write("broken", "two words"), ..api }).await;
        assert!(broken.to_string().contains("one line") && !broken.to_string().contains("two words"), "{broken}");
    }
}
