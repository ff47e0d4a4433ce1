//! Writes to the API server, on one connection of HTTP/2, as the administrator of the lab's kubeconfig.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use h2::client::SendRequest;
use hyper::body::Bytes;
use hyper::{Method, Request, http::request};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::lab::Lab;

/// So many writes are under way at once.
const AT_ONCE: usize = 64;

pub struct Api {
    connection: SendRequest<Bytes>,
    server: String,
}

/// When a write began and when the API server had answered it.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub began: Instant,
    pub answered: Instant,
}

// === impl Api ===

impl Api {
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        let server = kubeconfig(lab, "(index .clusters 0).cluster.server").await?;
        let authority = kubeconfig(lab, &decoded("clusters", "cluster", "certificate-authority-data")).await?;
        let certificate = kubeconfig(lab, &decoded("users", "user", "client-certificate-data")).await?;
        let key = kubeconfig(lab, &decoded("users", "user", "client-key-data")).await?;

        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(authority?)?;
        }
        let certificates = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];

        let address = server.strip_prefix("https://").context("the API server is not asked by TLS")?;
        let (host, _) = address.rsplit_once(':').context("the API server has no port")?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(host.to_owned())?, stream).await?;
        let (connection, driver) = h2::client::handshake(stream).await?;
        // Requests say it when the connection breaks.
        tokio::spawn(driver);
        Ok(Self { connection, server })
    }

    /// Creates these objects in their collections, many at once.
    pub async fn create(&self, objects: impl Iterator<Item = (String, Value)>) -> anyhow::Result<()> {
        let each = |(path, object): (String, Value)| async move {
            self.write(Method::POST, &path, "application/json", &object).await.map(drop)
        };
        futures::stream::iter(objects).map(each).buffer_unordered(AT_ONCE).try_collect().await
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = Request::get(format!("{}{path}", self.server));
        let (_, text) = self.send(request, String::new()).await.with_context(|| format!("GET {path}"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Changes these fields of an object.
    pub async fn patch(&self, path: &str, fields: &Value) -> anyhow::Result<Written> {
        self.write(Method::PATCH, path, "application/merge-patch+json", fields).await
    }

    async fn write(&self, method: Method, path: &str, kind: &str, body: &Value) -> anyhow::Result<Written> {
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        self.send(request.header("content-type", kind), body.to_string())
            .await
            .map(|(written, _)| written)
            .context(what)
    }

    /// Returns the body too.
    async fn send(&self, request: request::Builder, body: String) -> anyhow::Result<(Written, Vec<u8>)> {
        let mut connection = self.connection.clone().ready().await?;
        let request = request.body(())?;
        let began = Instant::now();
        let (answer, mut sending) = connection.send_request(request, false)?;
        sending.send_data(body.into(), true)?;
        let answer = answer.await?;
        let answered = Instant::now();
        let status = answer.status();
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            text.extend_from_slice(&part);
        }
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&text));
        Ok((Written { began, answered }, text))
    }
}

/// What this expression of a template gives.
async fn kubeconfig(lab: &Lab, expression: &str) -> anyhow::Result<String> {
    let template = format!("go-template={{{{{expression}}}}}");
    Ok(lab.kubectl(&["config", "view", "--raw", "-o", &template]).await?.success()?.out)
}

fn decoded(list: &str, of: &str, field: &str) -> String {
    format!("index (index .{list} 0).{of} \"{field}\" | base64decode")
}
