//! A control plane as its own process, and xDS clients of it that speak mTLS as an Envoy does.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tollgate_proto::v1::ledger_client::LedgerClient;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
pub const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
pub const KEY: &str = "type.googleapis.com/tollgate.v1.ApiKey";

/// Generous, because a busy machine is no failure; tests that pass never wait for it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Long enough for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(700);

/// `tollgate serve` over a folder of its own.
pub struct Server {
    dir: TempDir,
    process: Child,
    pub xds: String,
    pub admin: String,
    /// Address and port.
    pub metrics: String,
}

/// Repeats `look` until it gives `Ok`. What it said last is in the panic.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < end, "waited for: {what}; {last}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A client's certificate.
pub struct Client {
    ca: String,
    identity: Option<(String, String)>,
}

pub struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

pub struct StateOfTheWorld {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

// === impl Server ===

impl Server {
    pub fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[])
    }

    /// With further arguments of `tollgate serve`.
    pub fn start_with(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), files, arguments)
    }

    /// With variables of its environment, too.
    pub fn start_with_variables(files: &[(&str, &str)], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_all(tempfile::tempdir().unwrap(), files, arguments, variables)
    }

    /// In this folder, with what is in its state directory.
    pub fn start_in(dir: TempDir, files: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_all(dir, files, arguments, &[])
    }

    fn start_all(dir: TempDir, files: &[(&str, &str)], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        fs::create_dir(dir.path().join("conf")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("conf").join(name), text).unwrap();
        }
        fs::write(dir.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        let conf = dir.path().join("conf");
        Self::serve(dir, &["--source".as_ref(), conf.as_os_str()], arguments, variables)
    }

    /// With the cluster of this kubeconfig instead of a folder.
    pub fn of_cluster(kubeconfig: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        fs::write(&path, kubeconfig).unwrap();
        fs::write(dir.path().join("filter.wasm"), b"\0asm\x01\0\0\0").unwrap();
        Self::serve(dir, &["--source=kubernetes".as_ref(), "--kubeconfig".as_ref(), path.as_os_str()], &[], &[])
    }

    fn serve(dir: TempDir, source: &[&OsStr], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        // A file that may not grow is an error to it then, and not its end.
        let mut process = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve \"$@\"", env!("CARGO_BIN_EXE_tollgate")])
            .args(source)
            .arg("--state")
            .arg(dir.path().join("state"))
            .arg("--wasm")
            .arg(dir.path().join("filter.wasm"))
            .args(["--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--probes", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .env("RUST_LOG", "info")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let (mut xds, mut admin, mut metrics) = (String::new(), String::new(), String::new());
        let mut line = String::new();
        while xds.is_empty() {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the control plane has ended");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = value.pointer("/fields/xds").and_then(|value| value.as_str()) {
                xds = format!("https://{address}");
                admin = format!("http://{}", value.pointer("/fields/admin").unwrap().as_str().unwrap());
                value.pointer("/fields/metrics").unwrap().as_str().unwrap().clone_into(&mut metrics);
            }
        }
        // Nobody reads it, but the pipe must not fill up.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { dir, process, xds, admin, metrics }
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join("conf").join(file), text).unwrap();
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.dir.path().join("conf").join(file)).unwrap();
    }

    /// Its number.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The client certificate of an Envoy of this Gateway, as `tollgate bootstrap` makes it.
    pub fn client(&self, gateway: &str) -> Client {
        Client::made_in(&self.state(), gateway)
    }

    /// Asks it to end in order, and waits until it has.
    pub fn stop(mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }

    pub async fn status(&self) -> serde_json::Value {
        reqwest::get(format!("{}/api/status", self.admin)).await.unwrap().json().await.unwrap()
    }

    /// What a list of the admin API holds.
    pub async fn rows(&self, path: &str) -> Vec<serde_json::Value> {
        let answer = reqwest::get(format!("{}{path}", self.admin)).await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        answer["rows"].as_array().unwrap().clone()
    }

    /// The status as soon as it is as expected.
    pub async fn status_with(&self, expected: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        until("another status", async || {
            let status = self.status().await;
            if expected(&status) { Ok(status) } else { Err(format!("it stays {status:#}")) }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

// === impl Client ===

impl Client {
    /// With a certificate of the CA in this state directory.
    pub fn made_in(state: &Path, gateway: &str) -> Self {
        Self::living_for("24h", state, gateway)
    }

    /// Kept apart from the certificates that the server renews.
    pub fn living_for(lifetime: &str, state: &Path, gateway: &str) -> Self {
        let out = tempfile::tempdir().unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["bootstrap", "--gateway", gateway, "--certificate-lifetime", lifetime, "--state"])
            .arg(state)
            .arg("--out")
            .arg(out.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Found as Envoy finds it: the bootstrap names a file with the secret, and that names the certificate's.
        let read = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
        let bootstrap = read(&String::from_utf8(made.stdout).unwrap());
        let tls = "/static_resources/clusters/0/transport_socket/typed_config/common_tls_context";
        let secret = |config: &str, kind: &str| {
            let path = bootstrap.pointer(&format!("{tls}/{config}/sds_config/path_config_source/path")).unwrap();
            read(&fs::read_to_string(path.as_str().unwrap()).unwrap())["resources"][0][kind].take()
        };
        let file = |of: &serde_json::Value| fs::read_to_string(of["filename"].as_str().unwrap()).unwrap();
        let pair = secret("tls_certificate_sds_secret_configs/0", "tls_certificate");
        let authority =
            secret("combined_validation_context/validation_context_sds_secret_config", "validation_context");
        let identity = Some((file(&pair["certificate_chain"]), file(&pair["private_key"])));
        Self { ca: file(&authority["trusted_ca"]), identity }
    }

    #[must_use]
    pub fn without_certificate(mut self) -> Self {
        self.identity = None;
        self
    }

    /// Trusts this server although the certificate is from elsewhere.
    #[must_use]
    pub fn that_trusts(mut self, other: &Self) -> Self {
        self.ca.clone_from(&other.ca);
        self
    }

    pub async fn channel(&self, server: &Server) -> Result<Channel, tonic::transport::Error> {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca)).domain_name("tollgate-control");
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Endpoint::from_shared(server.xds.clone())?.tls_config(tls)?.connect().await
    }

    pub async fn delta(&self, server: &Server) -> Delta {
        self.try_delta(server).await.unwrap()
    }

    pub async fn try_delta(&self, server: &Server) -> Result<Delta, String> {
        let channel = self.channel(server).await.map_err(|error| format!("{error:?}"))?;
        let (requests, stream) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await;
        Ok(Delta { requests, responses: responses.map_err(|error| format!("{error:?}"))?.into_inner() })
    }

    pub async fn ledger(&self, server: &Server) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel(server).await.unwrap())
    }

    pub async fn state_of_the_world(&self, server: &Server) -> StateOfTheWorld {
        let (requests, stream) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel(server).await.unwrap());
        let responses = client.stream_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
        StateOfTheWorld { requests, responses }
    }
}

pub fn node() -> Option<Node> {
    Some(Node { id: "test-envoy".to_owned(), ..Node::default() })
}

pub fn nack(message: &str) -> Option<RpcStatus> {
    Some(RpcStatus { code: 3, message: message.to_owned(), ..RpcStatus::default() })
}

// === impl Delta ===

impl Delta {
    /// Asks for names of a type; none: for all.
    pub async fn ask(&mut self, kind: &str, names: &[&str]) {
        self.come_back(kind, names, &[]).await;
    }

    /// The same of a client that says which version of Envoy it is: major and minor.
    pub async fn ask_as(&mut self, (major_number, minor_number): (u32, u32), kind: &str) {
        let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
        let build = UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version, ..BuildVersion::default() });
        let node = node().map(|node| Node { user_agent_version_type: Some(build), ..node });
        self.send(DeltaDiscoveryRequest { node, type_url: kind.to_owned(), ..DeltaDiscoveryRequest::default() }).await;
    }

    /// The same of a client that has something already.
    pub async fn come_back(&mut self, kind: &str, names: &[&str], has: &[(String, String)]) {
        self.send(DeltaDiscoveryRequest {
            node: node(),
            type_url: kind.to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            initial_resource_versions: has.iter().cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub async fn send(&mut self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        timeout(PATIENCE, self.responses.message()).await.expect("no response").unwrap().expect("the stream ended")
    }

    /// The next response, accepted.
    pub async fn take(&mut self, kind: &str) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        assert_eq!(response.type_url, kind);
        self.answer(&response, None).await;
        response
    }

    /// What was on its way comes first; all of it takes something away. Then the stream ends, with this.
    pub async fn refusal(&mut self) -> (Vec<String>, tonic::Status) {
        let mut removed = Vec::new();
        loop {
            match timeout(PATIENCE, self.responses.message()).await.expect("the stream goes on") {
                Ok(Some(response)) => {
                    assert!(response.resources.is_empty(), "{response:?}");
                    self.answer(&response, None).await;
                    removed.extend(response.removed_resources);
                }
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => return (removed, status),
            }
        }
    }

    pub async fn answer(&mut self, response: &DeltaDiscoveryResponse, error_detail: Option<RpcStatus>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub async fn assert_silent(&mut self) {
        let response = timeout(SILENCE, self.responses.message()).await;
        assert!(response.is_err(), "nothing was expected: {response:?}");
    }

    /// What an Envoy does at its start: everything of the Gateway, accepted.
    pub async fn take_all(&mut self, gateway: &str) -> Vec<DeltaDiscoveryResponse> {
        let mut all = Vec::new();
        self.ask(CLUSTER, &[]).await;
        all.push(self.take(CLUSTER).await);
        self.ask(LISTENER, &[]).await;
        let listeners = self.take(LISTENER).await;
        let listener = names(&listeners).remove(0);
        all.push(listeners);
        self.ask(EXTENSION, &[&format!("tollgate/{gateway}/request")]).await;
        all.push(self.take(EXTENSION).await);
        self.ask(ROUTE, &[&listener]).await;
        all.push(self.take(ROUTE).await);
        all
    }
}

pub fn names(response: &DeltaDiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|resource| resource.name.clone()).collect()
}

pub fn versions(response: &DeltaDiscoveryResponse) -> Vec<(String, String)> {
    response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}

// === impl StateOfTheWorld ===

impl StateOfTheWorld {
    pub async fn ask(&mut self, kind: &str, names: &[&str]) {
        self.send(DiscoveryRequest {
            node: node(),
            type_url: kind.to_owned(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..DiscoveryRequest::default()
        })
        .await;
    }

    pub async fn send(&mut self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn next(&mut self) -> DiscoveryResponse {
        timeout(PATIENCE, self.responses.message()).await.expect("no response").unwrap().expect("the stream ended")
    }

    /// The next response, accepted.
    pub async fn take(&mut self, kind: &str, names: &[&str]) -> DiscoveryResponse {
        let response = self.next().await;
        assert_eq!(response.type_url, kind);
        self.send(DiscoveryRequest {
            type_url: kind.to_owned(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..DiscoveryRequest::default()
        })
        .await;
        response
    }

    /// The stream ends without another response.
    pub async fn refusal(&mut self) -> tonic::Status {
        let ended = timeout(PATIENCE, self.responses.message()).await.expect("the stream goes on");
        ended.expect_err("the stream goes on or ends without a word")
    }

    pub async fn assert_silent(&mut self) {
        let response = timeout(SILENCE, self.responses.message()).await;
        assert!(response.is_err(), "nothing was expected: {response:?}");
    }
}
