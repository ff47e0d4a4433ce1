//! What is in force after a restart, and what a first start does with a broken policy.

use std::fs;
use std::path::PathBuf;

use tollgate_core::status::{Reason, Severity};

use super::Folder;
use super::folder_test::{Followed, Read, backend, read};

/// A folder with one pool route and a policy on it, and where its state goes.
struct Start {
    dir: tempfile::TempDir,
}

const ENTRY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: tollgate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{group: tollgate.dev, kind: ModelPool, name: chat}]}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: ModelPool
metadata: {name: chat}
spec: {models: [{name: smol, targets: [{backendRef: {name: a}}]}]}
---
";
const POLICY: &str = "\
apiVersion: tollgate.dev/v1alpha1
kind: TokenPolicy
metadata: {name: budget}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}]
  limits: [{name: day, tokens: 1000, window: 1d}]
";

impl Start {
    fn new(policy: &str) -> Self {
        let start = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(start.path("conf")).unwrap();
        fs::write(start.path("conf/entry.yaml"), format!("{ENTRY}{}", backend("a"))).unwrap();
        start.write(policy);
        start
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, policy: &str) {
        fs::write(self.path("conf/policy.yaml"), policy).unwrap();
    }

    /// A new process with the old state.
    fn folder(&self) -> Followed {
        Followed::new(Folder::with_state(&self.path("conf"), &self.path("state")).unwrap())
    }
}

/// What holds on the route: the size of its budget, or the policy that closes it.
fn holds(reading: &Read) -> String {
    use tollgate_core::ir::Action;
    let ir = tollgate_core::translate::translate(&reading.objects, tollgate_core::placement::Placement::OneHost).ir;
    let route = ir.gateways.values().next().unwrap().routes().next().unwrap().clone();
    let Action::Pool { closed_by, limits, .. } = route.action else { panic!("no pool") };
    let tokens = ir.limits.values().filter(|limit| limits.contains(&limit.id)).map(|limit| limit.tokens).sum::<u64>();
    closed_by.map_or(format!("{tokens} tokens"), |policy| format!("closed by {policy}"))
}

#[test]
fn a_policy_that_was_never_good_closes_its_route_until_it_is_mended() {
    for broken in [POLICY.replace("1d", "1 dy"), POLICY.replace("limits:", "limit:"), POLICY.replace("v1alpha1", "v1")]
    {
        let start = Start::new(&broken);
        assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget", "{broken}");
        // The next process finds the route closed as well.
        let mut folder = start.folder();
        assert_eq!(holds(&read(&mut folder)), "closed by default/budget");
        // Worse than before: the file cannot be read at all.
        start.write(&format!("{broken}  }}"));
        assert_eq!(holds(&read(&mut folder)), "closed by default/budget");
        assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget");
        start.write(POLICY);
        assert_eq!(holds(&read(&mut folder)), "1000 tokens");
    }
    let start = Start::new(&POLICY.replace("spec:", "spec: {"));
    assert_eq!(holds(&read(&mut start.folder())), "closed by default/(unnamed)");
    // Not even text.
    fs::write(start.path("conf/policy.yaml"), b"\xff\xfe").unwrap();
    assert_eq!(holds(&read(&mut start.folder())), "closed by default/(unnamed)");
    // A policy in Shadow mode would refuse nobody, so it closes nothing.
    let start = Start::new(&POLICY.replace("1d", "1 dy").replace("spec:", "spec:\n  mode: Shadow"));
    assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
    // Somebody else's broken file closes nothing.
    let start = Start::new("{{ template }}");
    assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
}

#[test]
fn a_restart_changes_nothing() {
    let start = Start::new(POLICY);
    assert_eq!(holds(&read(&mut start.folder())), "1000 tokens");
    for broken in [
        POLICY.replace("1d", "1 dy"),
        POLICY.replace("kind: TokenPolicy", "kind: TokenPolcy"),
        POLICY.replace("metadata: {name: budget}", "metadata: {}"),
        POLICY.replace("spec:", "spec: {"),
    ] {
        start.write(&broken);
        // There are two starts, because what is kept is written down again.
        for _ in 0..2 {
            let reading = read(&mut start.folder());
            assert_eq!(holds(&reading), "1000 tokens", "{broken}");
            let kept = reading.findings.iter().find(|finding| finding.reason == Reason::LastGood).unwrap();
            assert_eq!(kept.severity, Severity::Warning);
            assert!(kept.message.contains("20") && kept.message.contains('T'), "{kept}");
        }
    }
    // An object that the user removes is meant to go.
    start.write("# nothing");
    assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
    start.write(&POLICY.replace("1d", "1 dy"));
    assert_eq!(holds(&read(&mut start.folder())), "closed by default/budget");
    fs::remove_file(start.path("conf/policy.yaml")).unwrap();
    assert_eq!(holds(&read(&mut start.folder())), "0 tokens");
}

#[test]
fn the_state_is_private_and_holds_no_value_of_a_reference() {
    use std::os::unix::fs::PermissionsExt as _;
    let start = Start::new(POLICY);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nfile: {apiKey: ../key}\n";
    fs::write(start.path("key"), "the-value-of-the-key").unwrap();
    fs::write(start.path("conf/secret.yaml"), secret).unwrap();
    let reading = read(&mut start.folder());
    assert!(reading.objects.secrets.get("default", "s").is_some());
    for entry in fs::read_dir(start.path("state")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("the-value-of-the-key"));
    }
    // The next process reads the key again, although the document is broken.
    fs::write(start.path("conf/secret.yaml"), secret.replace("file:", "fil:")).unwrap();
    let reading = read(&mut start.folder());
    assert!(reading.objects.secrets.get("default", "s").is_some());
    // State of another folder, and state that cannot be read, count for nothing.
    fs::rename(start.path("conf"), start.path("other")).unwrap();
    let reading = read(&mut Followed::new(Folder::with_state(&start.path("other"), &start.path("state")).unwrap()));
    assert!(reading.objects.secrets.get("default", "s").is_none());
    for entry in fs::read_dir(start.path("state")).unwrap() {
        fs::write(entry.unwrap().path(), "{\"version\": 99}").unwrap();
    }
    fs::write(start.path("other/policy.yaml"), POLICY.replace("1d", "1 dy")).unwrap();
    let reading = read(&mut Followed::new(Folder::with_state(&start.path("other"), &start.path("state")).unwrap()));
    assert_eq!(holds(&reading), "closed by default/budget");
}

#[test]
fn what_could_not_be_written_is_written_with_the_next_change() {
    let start = Start::new(POLICY);
    let mut folder = start.folder();
    assert_eq!(holds(&read(&mut folder)), "1000 tokens");
    // As on a full disk.
    fs::rename(start.path("state"), start.path("elsewhere")).unwrap();
    start.write(&POLICY.replace("1000", "2000"));
    fs::write(start.path("conf/new.yaml"), backend("b")).unwrap();
    assert_eq!(holds(&read(&mut folder)), "2000 tokens");
    fs::rename(start.path("elsewhere"), start.path("state")).unwrap();
    fs::write(start.path("conf/newer.yaml"), backend("c")).unwrap();
    read(&mut folder);
    drop(folder);
    for file in ["policy", "new", "newer"] {
        fs::write(start.path(&format!("conf/{file}.yaml")), "kind: [").unwrap();
    }
    let reading = read(&mut start.folder());
    assert_eq!(holds(&reading), "2000 tokens");
    assert_eq!(reading.objects.model_backends.iter().count(), 3);
}
