//! `tollgate key`, as a user calls it: on a folder, and on an API server whose answers are made up. The real one is in
//! `tests/tests/lab/keys.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that meets the unexpected has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn tollgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).env_remove("KUBECONFIG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A request as the API server gets it.
struct Asked {
    line: String,
    body: String,
}

/// Answers one request after the other, and ends with the last of them.
fn api_server(folder: &Path, answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = folder.join("kubeconfig");
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "team"}}],
    });
    fs::write(&kubeconfig, config.to_string()).unwrap();
    let answering = std::thread::spawn(move || answers.into_iter().map(|answer| serve(&listener, &answer)).collect());
    (kubeconfig.to_str().unwrap().to_owned(), answering)
}

fn serve(listener: &TcpListener, (code, body): &(u16, Value)) -> Asked {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let mut asked = vec![0; length];
    reader.read_exact(&mut asked).unwrap();
    let body = if let Value::String(text) = body { text.clone() } else { body.to_string() };
    let head = format!(
        "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    Asked { line, body: text(&asked) }
}

fn failure(code: u16, reason: &str, kind: &str, name: &str) -> (u16, Value) {
    let details = json!({"kind": kind, "name": name, "group": "tollgate.dev"});
    let message = format!("{kind} {name}: {reason}");
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code, "details": details});
    (code, status)
}

fn consumer(version: &str, keys: &Value) -> (u16, Value) {
    let metadata = json!({"name": "alice", "namespace": "team", "uid": "u", "resourceVersion": version});
    (
        200,
        json!({"apiVersion": "tollgate.dev/v1alpha1", "kind": "Consumer", "metadata": metadata, "spec": {"keys": keys}}),
    )
}

fn missing() -> (u16, Value) {
    failure(404, "NotFound", "consumers", "alice")
}

#[test]
fn a_key_is_let_in_by_its_hash_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (kubeconfig, answering) = api_server(folder.path(), vec![missing(), consumer("1", &json!([]))]);
    let made = tollgate(&["key", "new", "--consumer", "alice", "--apply", "--kubeconfig", &kubeconfig]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let key = text(&made.stdout).trim().to_owned();
    assert!(key.starts_with("tg-") && key.len() >= 46 && !key.contains('\n'), "the key stands alone");
    let asked = answering.join().unwrap();
    assert!(
        asked[1].line.starts_with("POST /apis/tollgate.dev/v1alpha1/namespaces/team/consumers"),
        "{}",
        asked[1].line
    );
    let sent: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(sent["spec"]["keys"], json!([{"sha256": hex::encode(Sha256::digest(&key))}]));
    assert!(asked.iter().all(|asked| !asked.body.contains(&key) && !asked.line.contains(&key)));
    assert!(!text(&made.stderr).contains(&key) && text(&made.stderr).contains("Consumer team/alice: made"));
}

#[test]
fn what_others_write_in_between_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let before = json!([{"secretRef": {"name": "app"}}]);
    let meanwhile = json!([{"secretRef": {"name": "app"}}, {"sha256": "aa"}]);
    let conflict = failure(409, "Conflict", "consumers", "alice");
    let answers = vec![consumer("1", &before), conflict, consumer("2", &meanwhile), consumer("3", &json!([]))];
    let (kubeconfig, answering) = api_server(folder.path(), answers);
    let arguments = ["key", "new", "--consumer", "alice", "--expires", "90d", "--apply", "-o", "json", "--kubeconfig"];
    let made = tollgate(&[&arguments[..], &[&kubeconfig]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let printed: Value = serde_json::from_slice(&made.stdout).unwrap();
    let asked = answering.join().unwrap();
    let sent: Value = serde_json::from_str(&asked[3].body).unwrap();
    assert!(asked[3].line.starts_with("PATCH "), "{}", asked[3].line);
    assert_eq!((&sent["metadata"]["resourceVersion"], &sent["metadata"]["uid"]), (&json!("2"), &json!("u")));
    let new = json!({"sha256": printed["sha256"], "notAfter": printed["notAfter"]});
    assert_eq!(sent["spec"]["keys"], json!([meanwhile[0], meanwhile[1], new]));
    assert!(printed["notAfter"].is_string() && printed["consumer"] == "team/alice", "{printed}");
}

#[test]
fn an_error_says_what_is_missing_and_shows_no_key() {
    let page_not_found = (404, json!("404 page not found\n"));
    let forbidden = failure(403, "Forbidden", "consumers", "alice");
    let no_namespace = failure(404, "NotFound", "namespaces", "team");
    let refused = failure(422, "Invalid", "consumers", "alice");
    let cases = [
        ("new", vec![page_not_found.clone()], "install Tollgate's definitions"),
        ("new", vec![forbidden.clone()], "get of consumers.tollgate.dev is forbidden in namespace team"),
        ("new", vec![missing(), forbidden.clone()], "create of consumers.tollgate.dev is forbidden"),
        ("new", vec![missing(), no_namespace], "there is no namespace team"),
        ("new", vec![consumer("1", &json!([])), forbidden], "patch of consumers.tollgate.dev is forbidden"),
        ("new", vec![consumer("1", &json!([])), refused], "Consumer team/alice is refused: "),
        ("rotate", vec![missing()], "there is no Consumer team/alice (tollgate key new --apply makes it"),
        (
            "rotate",
            vec![consumer("1", &json!([{"sha256": "aa", "notAfter": "soon"}]))],
            "spec.keys[0].notAfter: `soon` is not a time",
        ),
    ];
    for (verb, answers, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (kubeconfig, answering) = api_server(folder.path(), answers);
        let failed = tollgate(&["key", verb, "--consumer", "alice", "--apply", "--kubeconfig", &kubeconfig]);
        answering.join().unwrap();
        assert_eq!(failed.status.code(), Some(2), "{verb}: {expected}");
        let told = text(&failed.stderr);
        assert!(told.contains(expected) && !told.contains("tg-"), "{expected} is not in {told}");
        assert_eq!(text(&failed.stdout), "");
    }
    let nowhere = tollgate(&["key", "new", "--consumer", "alice", "--apply", "--kubeconfig", "/nowhere"]);
    assert!(text(&nowhere.stderr).contains("--kubeconfig names another file"), "{}", text(&nowhere.stderr));
}

const ALICE: &str = "\
# of the team
kind: Namespace
apiVersion: v1
metadata: {name: team}
---
apiVersion: tollgate.dev/v1alpha1
kind: Consumer
metadata: {name: alice, labels: {team: a}}
spec:
  models: [smol]
  keys:
  - secretRef: {name: app}
  - sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    notAfter: \"2020-01-01T00:00:00Z\"
";

#[test]
fn a_consumer_of_a_folder_is_printed_as_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alice.yaml"), ALICE).unwrap();
    let path = folder.path().to_str().unwrap();
    let rotated = tollgate(&["key", "rotate", "--consumer", "alice", "-f", path, "-o", "json"]);
    let printed: Value = serde_json::from_slice(&rotated.stdout).unwrap();
    let keys = &printed["consumer"]["spec"]["keys"];
    assert_eq!(keys.as_array().unwrap().len(), 2, "the key that has ended is gone: {keys}");
    assert!(keys[0]["secretRef"]["name"] == "app" && keys[0]["notAfter"].is_string(), "{keys}");
    assert_eq!(keys[1], json!({"sha256": hex::encode(Sha256::digest(printed["key"].as_str().unwrap()))}));
    assert_eq!(printed["consumer"]["metadata"]["labels"]["team"], "a");
    assert_eq!(fs::read_to_string(folder.path().join("alice.yaml")).unwrap(), ALICE, "nothing is written");

    let yaml = tollgate(&["key", "rotate", "--consumer", "alice", "-f", path]);
    assert!(text(&yaml.stdout).contains("alice.yaml, line 6; 1 other key until 20"), "{}", text(&yaml.stdout));
    fs::write(folder.path().join("alice.yaml"), &yaml.stdout).unwrap();
    let again = tollgate(&["key", "rotate", "--consumer", "alice", "-f", path, "-o", "json"]);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["consumer"]["spec"]["keys"][0], yaml_keys(&yaml.stdout), "no key ends later than it did");

    let nobody = tollgate(&["key", "rotate", "--consumer", "bob", "-f", path]);
    assert!(text(&nobody.stderr).contains("there is no Consumer default/bob"), "{}", text(&nobody.stderr));
    let neither = tollgate(&["key", "rotate", "--consumer", "alice"]);
    assert_eq!(neither.status.code(), Some(2));
}

/// The first key of a printed Consumer.
fn yaml_keys(yaml: &[u8]) -> Value {
    let value: Value = serde_saphyr::from_str(&text(yaml)).unwrap();
    value["spec"]["keys"][0].clone()
}
