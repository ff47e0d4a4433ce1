//! The port for sidecars as members of the mesh meet it: keys and ledger under real TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_core::envoy::{
    FilterCode as EnvoyCode, FilterSetup, Ports as EnvoyPorts, RouteTables, Signals, Surroundings,
};
use tollgate_core::mesh::Mesh;
use tollgate_core::objects::{Changes, NoSecretSource, Objects};
use tollgate_core::placement::{Placement, Setting, Sidecars as Filters};
use tollgate_core::snapshot::ResourceType;
use tollgate_proto::v1::ledger_client::LedgerClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};
use tonic::{Code, Request, Status, Streaming};

use super::super::ads::{Ads, Envoys};
use super::members::SCOPE;
use super::{Ports, Sidecars};
use crate::filter_code::{FilterCode, Form};
use crate::ledger::{self, Embedded};
use crate::pipeline::Publisher;
use crate::report::board::Board;
use crate::report::{self, Consumers, Metrics};

const PATIENCE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_millis(50);
const RUNNER: &str = "spiffe://cluster.local/ns/default/sa/runner";
const SCOPE_OF_RUNNER: &str = "workload/default/runner/inbound";
const FIRST: &str = "4bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const SECOND: &str = "5bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Two workloads with accounts of their own, and one Consumer with these keys.
fn objects(keys: &[&str]) -> String {
    let hashes: Vec<String> = keys.iter().map(|key| format!("{{sha256: {key}}}")).collect();
    let workload = |name: &str, ip: &str| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [{ip}], targetRef: {{kind: Pod, name: {name}-0, namespace: default}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-0, labels: {{app: {name}, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: {name}, containers: []}}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{kind: Service, name: {name}}}]
  limits: [{{name: day, tokens: 1000, window: 1d}}]
"
        )
    };
    format!(
        "apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {{name: app}}
spec: {{keys: [{}]}}
{}{}",
        hashes.join(", "),
        workload("runner", "10.0.0.1"),
        workload("other", "10.0.0.2")
    )
}

/// An authority of a mesh, and what it signs.
struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

struct World {
    ca: Ca,
    publisher: Publisher,
    before: Objects,
    address: std::net::SocketAddr,
    dir: tempfile::TempDir,
    metrics: Metrics,
    _sidecars: Sidecars,
}

struct Client {
    channel: Channel,
}

/// A stream of keys.
struct Keys {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

// === impl Ca ===

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate: certificate.clone(), issuer: Issuer::from_ca_cert_pem(&certificate, key).unwrap() }
    }

    /// A certificate and its key, as Istio's agents have them. Only the port's own has a name of a host besides, because
    /// the client of this test asks for one.
    fn issue(&self, uris: &[&str], host: Option<&str>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        let host = host.map(|host| SanType::DnsName(host.try_into().unwrap()));
        params.subject_alt_names = uris.chain(host).collect();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn put_own(&self, folder: &Path) {
        let own = self.issue(&["spiffe://cluster.local/ns/tollgate/sa/tollgate"], Some("localhost"));
        let texts = [own.0, own.1, self.certificate.clone()];
        for (name, text) in Mesh::FILES.iter().zip(texts) {
            fs::write(folder.join(name), text).unwrap();
        }
    }
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let world = Self::without_certificate().await;
        world.ca.put_own(world.dir.path());
        world.until_open().await;
        world
    }

    async fn without_certificate() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mesh = Arc::new(Mesh {
            trust_domain: "cluster.local".to_owned(),
            aliases: vec!["old.local".to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            certificates: "/elsewhere".to_owned(),
        });
        let setting = Setting { placement: Placement::OneHost, mesh: Some(Arc::clone(&mesh)), sidecars: Filters::Both };
        let publisher = Publisher::new(
            setting,
            Surroundings {
                route_tables: RouteTables::default(),
                bind: "127.0.0.1".to_owned(),
                ports: EnvoyPorts::Shared,
                filter: FilterSetup::of_gateways(EnvoyCode::File("filter.wasm".to_owned())),
                signals: Signals::default(),
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let published = publisher.published();
        let metrics = Metrics::default();
        let ads = Ads { published, board: Board::default(), metrics: metrics.clone(), envoys: Envoys::Any };
        let books = dir.path().join("ledger");
        let lease = Duration::from_secs(30);
        let ledger = Embedded::open(&books, publisher.for_ledger(), lease, ledger::Metrics::new()).unwrap();
        let code = Arc::new(FilterCode { form: Form::Wasm, sha256: "f".to_owned(), bytes: "code".into() });
        let ports = Ports { listener, code: None, mesh, certificates: dir.path().to_owned() };
        let sidecars = Sidecars::looking(ports, ads, ledger::service(Arc::new(ledger)), code, SOON);
        let ca = Ca::new();
        let mut world = Self { ca, publisher, before: Objects::default(), address, dir, metrics, _sidecars: sidecars };
        world.publish(&objects(&[FIRST]));
        world
    }

    fn publish(&mut self, text: &str) {
        let mut objects = Objects::default();
        objects.add_yaml("case", text, &NoSecretSource);
        self.publisher.publish(Changes::between(&self.before, &objects), Vec::new());
        self.before = objects;
    }

    async fn until_open(&self) {
        let open = async {
            while self.client(&self.ca, &[RUNNER]).await.is_none() {
                sleep(SOON).await;
            }
        };
        timeout(PATIENCE, open).await.expect("it is never open");
    }

    /// A member with these names, certified by this authority. None: it is not let in.
    async fn client(&self, ca: &Ca, uris: &[&str]) -> Option<Client> {
        let (certificate, key) = ca.issue(uris, None);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca.certificate))
            .identity(TlsIdentity::from_pem(certificate, key))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap();
        let channel = timeout(PATIENCE, endpoint.connect()).await.expect("no answer").ok()?;
        let client = Client { channel };
        // With TLS 1.3 the refusal comes after the client believes that it is connected.
        match client.sync(&[]).await {
            Err(status) if status.code() == Code::PermissionDenied => Some(client),
            other => {
                assert!(other.is_err(), "a call without a workload is answered");
                None
            }
        }
    }

    async fn runner(&self) -> Client {
        self.client(&self.ca, &[RUNNER]).await.expect("a member is let in")
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> CertificateDer<'static> {
        let (certificate, key) = self.ca.issue(&[RUNNER], None);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        connection.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

// === impl Client ===

fn with_scopes<T>(message: T, scopes: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for scope in scopes {
        request.metadata_mut().append(SCOPE, MetadataValue::try_from(*scope).unwrap());
    }
    request
}

impl Client {
    async fn sync(&self, scopes: &[&str]) -> Result<(), Status> {
        let call = ledger::tests::request(1, 1);
        let mut client = LedgerClient::new(self.channel.clone());
        timeout(PATIENCE, client.sync(with_scopes(call, scopes))).await.expect("no answer").map(|_| ())
    }

    async fn keys(&self, scopes: &[&str]) -> Result<Keys, Status> {
        let (requests, receiver) = mpsc::channel(8);
        let first = DeltaDiscoveryRequest {
            type_url: ResourceType::ApiKey.type_url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let stream = with_scopes(ReceiverStream::new(receiver), scopes);
        let answers = timeout(PATIENCE, client.delta_aggregated_resources(stream)).await.expect("no answer")?;
        Ok(Keys { requests, answers: answers.into_inner() })
    }
}

// === impl Keys ===

impl Keys {
    /// The names that come and those that go, after which the answer is taken.
    async fn next(&mut self) -> Result<(Vec<String>, Vec<String>), Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("nothing comes")?.expect("it ends");
        let taken = DeltaDiscoveryRequest {
            type_url: answer.type_url.clone(),
            response_nonce: answer.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        let _it_may_end = self.requests.send(taken).await;
        Ok((answer.resources.into_iter().map(|key| key.name).collect(), answer.removed_resources))
    }

    /// Waits for the end. Returns what is taken away before it.
    async fn ends(&mut self) -> (Vec<String>, Status) {
        let mut removed = Vec::new();
        loop {
            match self.next().await {
                Ok((_, gone)) => removed.extend(gone),
                Err(status) => return (removed, status),
            }
        }
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn an_account_of_a_workload_has_its_keys_and_the_ledger() {
    let mut world = World::new().await;
    let runner = world.runner().await;
    runner.sync(&[SCOPE_OF_RUNNER]).await.unwrap();
    let mut keys = runner.keys(&[SCOPE_OF_RUNNER]).await.unwrap();
    assert_eq!(keys.next().await.unwrap(), (names(&[FIRST]), vec![]));
    world.publish(&objects(&[FIRST, SECOND]));
    assert_eq!(keys.next().await.unwrap(), (names(&[SECOND]), vec![]));
    world.publish(&objects(&[SECOND]));
    assert_eq!(keys.next().await.unwrap(), (vec![], names(&[FIRST])));
    // The same account in a domain that the mesh had before.
    let old = world.client(&world.ca, &["spiffe://old.local/ns/default/sa/runner"]).await.unwrap();
    old.sync(&[SCOPE_OF_RUNNER]).await.unwrap();
}

#[tokio::test]
async fn nobody_speaks_for_a_workload_that_is_not_theirs() {
    let world = World::new().await;
    let runner = world.runner().await;
    let (other, both) = ("workload/default/other/inbound", [SCOPE_OF_RUNNER, "workload/default/other/inbound"]);
    let refused: [&[&str]; 9] = [
        &[],
        &[other],
        &both,
        &[SCOPE_OF_RUNNER, SCOPE_OF_RUNNER],
        &["default/runner"],
        &["workload/default/runner/outbound"],
        &["workload/default/absent/inbound"],
        &["workload/default/runner"],
        &["spiffe://tollgate/workload/default/runner/inbound"],
    ];
    for scopes in refused {
        assert_eq!(runner.sync(scopes).await.unwrap_err().code(), Code::PermissionDenied, "{scopes:?}");
        let refused = runner.keys(scopes).await.err().expect("it is refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{scopes:?}");
        assert!(!refused.message().is_empty());
    }
    let stranger = world.client(&world.ca, &["spiffe://cluster.local/ns/default/sa/stranger"]).await.unwrap();
    assert_eq!(stranger.sync(&[SCOPE_OF_RUNNER]).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_is_no_member_is_not_let_in() {
    let world = World::new().await;
    assert!(world.client(&Ca::new(), &[RUNNER]).await.is_none(), "of another CA");
    for uris in [
        &["spiffe://other.local/ns/default/sa/runner"][..],
        &["spiffe://cluster.local"],
        &["spiffe://cluster.local.evil/ns/default/sa/runner"],
        &["spiffe://tollgate/gateway/default/runner"],
        &[RUNNER, "spiffe://cluster.local/ns/default/sa/other"],
        &[],
    ] {
        assert!(world.client(&world.ca, uris).await.is_none(), "{uris:?}");
    }
    let text = world.metrics.text(&report::Status::default(), Consumers::LeftOut).unwrap();
    let refused =
        |reason: &str| format!("tollgate_tls_handshake_failures_total{{port=\"sidecars\",reason=\"{reason}\"}} ");
    let count = |reason: &str| text.lines().find_map(|line| line.strip_prefix(&refused(reason))).unwrap().to_owned();
    assert_ne!(count("UnknownAuthority"), "0", "{text}");
    assert_ne!(count("UnknownName"), "0", "{text}");
    assert!(text.contains("tollgate_certificate_expiry_seconds{certificate=\"sidecars\"} "), "{text}");
    assert!(text.contains("tollgate_certificate_lifetime_seconds{certificate=\"sidecars\"} "), "{text}");
}

#[tokio::test]
async fn the_stream_of_a_workload_that_goes_ends() {
    let mut world = World::new().await;
    let runner = world.runner().await;
    let mut keys = runner.keys(&[SCOPE_OF_RUNNER]).await.unwrap();
    keys.next().await.unwrap();
    let text = objects(&[FIRST]);
    world.publish(
        &text.replace("targetRefs: [{kind: Service, name: runner}]", "targetRefs: [{kind: Service, name: gone}]"),
    );
    let (removed, status) = keys.ends().await;
    assert_eq!((removed, status.code()), (names(&[FIRST]), Code::PermissionDenied));
    assert_eq!(runner.sync(&[SCOPE_OF_RUNNER]).await.unwrap_err().code(), Code::PermissionDenied);
    world.publish(&text);
    assert_eq!(runner.keys(&[SCOPE_OF_RUNNER]).await.unwrap().next().await.unwrap().0, names(&[FIRST]));
}

#[tokio::test]
async fn the_stream_of_an_account_that_its_pods_do_not_run_as_any_more_ends() {
    let mut world = World::new().await;
    let runner = world.runner().await;
    let mut keys = runner.keys(&[SCOPE_OF_RUNNER]).await.unwrap();
    keys.next().await.unwrap();
    world.publish(&objects(&[FIRST]).replace("serviceAccountName: runner", "serviceAccountName: newer"));
    let (removed, status) = keys.ends().await;
    assert_eq!((removed, status.code()), (names(&[FIRST]), Code::PermissionDenied));
    let newer = world.client(&world.ca, &["spiffe://cluster.local/ns/default/sa/newer"]).await.unwrap();
    newer.sync(&[SCOPE_OF_RUNNER]).await.unwrap();
}

/// Between the two publications the stream is told that there is nothing. It must be told of what did not change.
#[tokio::test]
async fn an_account_that_comes_back_at_once_has_its_keys() {
    let mut world = World::new().await;
    let runner = world.runner().await;
    let mut keys = runner.keys(&[SCOPE_OF_RUNNER]).await.unwrap();
    keys.next().await.unwrap();
    let text = objects(&[FIRST]);
    world.publish(&text.replace("serviceAccountName: runner", "serviceAccountName: newer"));
    let removed = timeout(PATIENCE, keys.answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(removed.removed_resources, names(&[FIRST]));
    world.publish(&text);
    sleep(SOON).await;
    let taken = DeltaDiscoveryRequest {
        type_url: removed.type_url,
        response_nonce: removed.nonce,
        ..DeltaDiscoveryRequest::default()
    };
    keys.requests.send(taken).await.unwrap();
    assert_eq!(keys.next().await.unwrap(), (names(&[FIRST]), vec![]));
}

#[tokio::test]
async fn the_certificate_is_replaced_and_streams_go_on() {
    let mut world = World::without_certificate().await;
    assert!(world.client(&world.ca, &[RUNNER]).await.is_none(), "there is no certificate yet");
    world.ca.put_own(world.dir.path());
    world.until_open().await;
    let first = world.shown().await;
    let mut keys = world.runner().await.keys(&[SCOPE_OF_RUNNER]).await.unwrap();
    keys.next().await.unwrap();

    fs::write(world.dir.path().join("key.pem"), "broken").unwrap();
    sleep(SOON * 4).await;
    assert_eq!(world.shown().await, first, "the last good one stays");

    world.ca.put_own(world.dir.path());
    let replaced = async {
        while world.shown().await == first {
            sleep(SOON).await;
        }
    };
    timeout(PATIENCE, replaced).await.expect("the old one is shown for ever");
    world.publish(&objects(&[FIRST, SECOND]));
    assert_eq!(keys.next().await.unwrap().0, names(&[SECOND]));
}
