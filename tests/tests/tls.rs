//! TLS through the real Envoy: passed on, terminated before TCP or HTTP on one port, and spoken to a Service.

use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tollgate_tests::tap::Behaviour;
use tollgate_tests::{client, config, poll, process};

use crate::suite::{Shared, e2e};

e2e! {
    connections_go_by_the_name_that_they_ask_for,
    clients_show_a_certificate_where_one_is_asked_for,
    backends_are_shown_the_certificate_of_the_gateway_that_asks,
}

type Issued = rcgen::CertifiedKey<rcgen::KeyPair>;

/// One port passes connections on for one name, and terminates TLS for two others. The Service behind it is a listener
/// of HTTPS of the same Gateway, which a BackendTLSPolicy makes reachable from plain HTTP as well.
async fn connections_go_by_the_name_that_they_ask_for(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: "here".to_owned() });
    let names = ["pass.test", "end.test", "web.test"].map(str::to_owned);
    let issued = rcgen::generate_simple_self_signed(names)?;
    let (edge, backend) = (process::free_port()?, process::free_port()?);
    let setup = shared.setup("connections_go_by_the_name_that_they_ask_for")?;
    let plain = setup.port();
    let gateway = setup
        .file("gateway.yaml", &gateway(plain, edge, backend))?
        .file("routes.yaml", &config::documents(&[ROUTES.to_owned(), config::service(tap.port()), itself(backend)]))?
        .file("certificate.yaml", &certificate(&issued))?
        .file("policy.yaml", &policy("pass.test"))?
        .start()
        .await?;
    let trusted = issued.cert.der().clone();
    for name in ["pass.test", "end.test", "web.test"] {
        poll::until("the name is served", || async {
            let answer = ask(edge, name, &trusted).await?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("here"), "{name}: {answer}");
            Ok(())
        })
        .await?;
    }
    anyhow::ensure!(ask(edge, "none.test", &trusted).await.is_err(), "a name that is nobody's is served");
    // What comes over the connection of another listener is sent back, and what is nobody's is not found.
    for (host, status) in [("web.test", 200), ("end.test", 421), ("pass.test", 421), ("none.test", 404)] {
        let answer = ask_as(edge, ("web.test", host), &trusted, None).await?;
        anyhow::ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    let status =
        || async { Ok(client::direct().get(format!("http://127.0.0.1:{plain}/")).send().await?.status().as_u16()) };
    poll::until("the Service is reached by TLS", || async {
        let status: anyhow::Result<u16> = status().await;
        let status = status?;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    for (what, policy) in [
        ("another name", policy("other.test")),
        ("no authority", policy("pass.test").replace("name: ca}", "name: none}")),
    ] {
        gateway.folder().write("policy.yaml", &policy)?;
        poll::until("the Service is not reached any more", || async {
            let status: anyhow::Result<u16> = status().await;
            let status = status?;
            anyhow::ensure!(status == 503, "{what}: {status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A port takes only clients of an authority, and another one takes all.
async fn clients_show_a_certificate_where_one_is_asked_for(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: "here".to_owned() });
    let issue = || rcgen::generate_simple_self_signed(["web.test".to_owned()]);
    let (known, stranger) = (issue()?, issue()?);
    let setup = shared.setup("clients_show_a_certificate_where_one_is_asked_for")?;
    let (closed, open) = (setup.port(), process::free_port()?);
    let _gateway = setup
        .file("gateway.yaml", &asking(closed, open))?
        .file("routes.yaml", &config::documents(&[FOR_ALL.to_owned(), config::service(tap.port())]))?
        .file("certificate.yaml", &certificate(&known))?
        .start()
        .await?;
    let trusted = known.cert.der();
    let is_here = |answer: &str| answer.starts_with("HTTP/1.1 200") && answer.contains("here");
    for (port, client, served) in [
        (closed, Some(&known), true),
        (closed, Some(&stranger), false),
        (closed, None, false),
        (open, Some(&known), true),
        (open, Some(&stranger), true),
        (open, None, true),
    ] {
        poll::until("clients are served or not", || async {
            let answer = ask_as(port, ("web.test", "web.test"), trusted, client).await.unwrap_or_default();
            let is_first = client.is_some_and(|client| client.cert.der() == trusted);
            anyhow::ensure!(is_here(&answer) == served, "{port}, of the authority {is_first}: {answer}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Two Gateways of one Envoy lead to one Service, which takes clients of an authority alone. One of them shows it a
/// certificate, the present one of its Secret.
async fn backends_are_shown_the_certificate_of_the_gateway_that_asks(shared: Arc<Shared>) -> anyhow::Result<()> {
    let tap = shared.tap().await?;
    tap.behave(Behaviour::Status { code: 200, headers: Vec::new(), body: "here".to_owned() });
    let issue = || rcgen::generate_simple_self_signed(["web.test".to_owned()]);
    let (known, stranger) = (issue()?, issue()?);
    let setup = shared.setup("backends_are_shown_the_certificate_of_the_gateway_that_asks")?;
    let (shows, shows_nothing, backend) = (setup.port(), process::free_port()?, process::free_port()?);
    let gateway = setup
        .file("gateway.yaml", &showing(shows, shows_nothing, backend))?
        .file("routes.yaml", &config::documents(&[TWICE.to_owned(), config::service(tap.port()), itself(backend)]))?
        .file("certificate.yaml", &certificate(&known))?
        .file("client.yaml", &secret("client", &stranger))?
        .file("policy.yaml", &policy("web.test"))?
        .start()
        .await?;
    let status = |port: u16| async move {
        Ok(client::direct().get(format!("http://127.0.0.1:{port}/")).send().await?.status().as_u16())
    };
    for (client, expected) in [(Some(&stranger), 503), (Some(&known), 200), (None, 503), (Some(&known), 200)] {
        match client {
            Some(client) => gateway.folder().write("client.yaml", &secret("client", client))?,
            None => gateway.folder().write("client.yaml", "")?,
        }
        poll::until("the Service takes the certificate or not", || async {
            let answered: anyhow::Result<u16> = status(shows).await;
            let answered = answered?;
            anyhow::ensure!(answered == expected, "{answered}, and not {expected}");
            Ok(())
        })
        .await?;
        let beside: anyhow::Result<u16> = status(shows_nothing).await;
        anyhow::ensure!(beside? == 503, "the other Gateway shows a certificate");
    }
    Ok(())
}

/// What is answered to a request under this name, over TLS.
async fn ask(port: u16, name: &'static str, trusted: &CertificateDer<'static>) -> anyhow::Result<String> {
    ask_as(port, (name, name), trusted, None).await
}

/// The same under another name than the one of TLS, for a client that has this certificate.
async fn ask_as(
    port: u16,
    (name, host): (&'static str, &str),
    trusted: &CertificateDer<'static>,
    client: Option<&Issued>,
) -> anyhow::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone())?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let key = PrivatePkcs8KeyDer::from(client.signing_key.serialize_der());
            config.with_client_auth_cert(vec![client.cert.der().clone()], key.into())?
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from(name)?, stream).await.context("no handshake")?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A server may close without the word that TLS has for it.
    let _end = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn gateway(plain: u16, edge: u16, backend: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  listeners:
  - {{name: plain, port: {plain}, protocol: HTTP}}
  - {{name: backend, port: {backend}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: pass, port: {edge}, protocol: TLS, hostname: pass.test, tls: {{mode: Passthrough}}}}
  - {{name: end, port: {edge}, protocol: TLS, hostname: end.test, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: web, port: {edge}, protocol: HTTPS, hostname: web.test, tls: {{certificateRefs: [{{name: cert}}]}}}}
"
    )
}

/// The second port lets strangers in.
fn asking(closed: u16, open: u16) -> String {
    let authority = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  tls:
    frontend:
      default: {{validation: {{{authority}}}}}
      perPort: [{{port: {open}, tls: {{validation: {{mode: AllowInsecureFallback, {authority}}}}}}}]
  listeners:
  - {{name: closed, port: {closed}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: open, port: {open}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
"
    )
}

/// The first Gateway shows backends a certificate, and has the listener that asks for one.
fn showing(shows: u16, shows_nothing: u16, backend: u16) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: llm}}
spec:
  gatewayClassName: tollgate
  tls:
    backend: {{clientCertificateRef: {{name: client}}}}
    frontend: {{default: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}}}
  listeners:
  - {{name: plain, port: {shows}, protocol: HTTP}}
  - {{name: backend, port: {backend}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: beside}}
spec: {{gatewayClassName: tollgate, listeners: [{{name: plain, port: {shows_nothing}, protocol: HTTP}}]}}
"
    )
}

const TWICE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec: {parentRefs: [{name: llm, sectionName: backend}], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: again}
spec: {parentRefs: [{name: llm, sectionName: plain}, {name: beside}], rules: [{backendRefs: [{name: itself, port: 443}]}]}
";

const FOR_ALL: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: llm}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
";

const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: llm, sectionName: backend}, {name: llm, sectionName: web}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: again}
spec:
  parentRefs: [{name: llm, sectionName: plain}]
  rules: [{backendRefs: [{name: itself, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: pass}
spec: {parentRefs: [{name: llm, sectionName: pass}], hostnames: [pass.test], rules: [{backendRefs: [{name: itself, port: 443}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: end}
spec: {parentRefs: [{name: llm, sectionName: end}], hostnames: [end.test], rules: [{backendRefs: [{name: app, port: 80}]}]}
";

/// A Service whose endpoint is the Gateway's own listener of HTTPS.
fn itself(port: u16) -> String {
    config::service(port)
        .replace("{name: app}", "{name: itself}")
        .replace("app-1", "itself-1")
        .replace("service-name: app", "service-name: itself")
        .replace("ports: [{port: 80}]", "ports: [{port: 443}]")
}

fn certificate(issued: &Issued) -> String {
    let authority = format!(
        "\
apiVersion: v1
kind: ConfigMap
metadata: {{name: ca}}
data:
  ca.crt: |
    {chain}
",
        chain = block(&issued.cert.pem())
    );
    config::documents(&[secret("cert", issued), authority])
}

fn secret(name: &str, issued: &Issued) -> String {
    let (chain, key) = (block(&issued.cert.pem()), block(&issued.signing_key.serialize_pem()));
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData:
  tls.crt: |
    {chain}
  tls.key: |
    {key}
"
    )
}

fn block(pem: &str) -> String {
    pem.trim_end().replace('\n', "\n    ")
}

fn policy(hostname: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: itself}}
spec:
  targetRefs: [{{group: '', kind: Service, name: itself}}]
  validation: {{hostname: {hostname}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}
"
    )
}
