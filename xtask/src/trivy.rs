//! Trivy: what it finds in the rendered chart, and in the repository as `.github/workflows/scan.yml` has it look there. What is
//! accepted stands with its reasons in one file for both, so that the workflow cannot be red while the suite is green.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::repository;
use crate::shell;
use crate::workspace::Workspace;

/// What is accepted, and why.
pub const IGNORED: &str = "tests/chart/trivyignore.yaml";
const WORKFLOW: &str = ".github/workflows/scan.yml";
const ACTION: &str = "aquasecurity/trivy-action@";
/// What the action says of reports and of vulnerabilities, for which a database must be fetched.
const OF_THE_WORKFLOW_ALONE: [&str; 5] =
    ["limit-severities-for-sarif", "ignore-unfixed", "format", "output", "exit-code"];

/// A Pod that may do everything.
pub const PLANTED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: planted, namespace: planted}
spec: {containers: [{name: planted, image: planted:1, securityContext: {privileged: true}}]}
";
/// What of it must be found.
pub const PLANTED_ID: &str = "KSV017";

/// How Trivy looks: what it is run as, and what for.
#[derive(Debug, PartialEq)]
pub struct Look {
    kind: String,
    severity: String,
    scanners: Option<String>,
    ignored: PathBuf,
}

/// Looks at the repository's files as the workflow does. Vulnerabilities are left out: `cargo deny` and the workflow look for them.
pub fn repository(workspace: &Workspace, trivy: &Path) -> anyhow::Result<()> {
    println!("==> Trivy on the repository");
    let look = Look::of_workflow(&std::fs::read_to_string(workspace.root().join(WORKFLOW))?).context(WORKFLOW)?;
    let tree = workspace.target().join("lints/trivy");
    let _absent = std::fs::remove_dir_all(&tree);
    // What git knows and nothing else, because a checkout has no more.
    for file in repository::files(workspace)? {
        let copy = tree.join(&file);
        // Deleted and not committed yet.
        if let Ok(content) = std::fs::read(workspace.root().join(&file)) {
            std::fs::create_dir_all(copy.parent().context("a folder")?)?;
            std::fs::write(copy, content)?;
        }
    }
    std::fs::write(tree.join("examples/planted.yaml"), PLANTED)?;
    let (planted, found): (BTreeSet<_>, BTreeSet<_>) =
        look.findings(workspace, trivy, &tree)?.into_iter().partition(|found| found.contains("planted.yaml"));
    anyhow::ensure!(
        planted.iter().any(|found| found.contains(PLANTED_ID)),
        "the planted Pod is not found: {planted:?}"
    );
    anyhow::ensure!(found.is_empty(), "{}", found.into_iter().collect::<Vec<_>>().join("\n"));
    println!("    ok: nothing but what {IGNORED} accepts");
    Ok(())
}

// === impl Look ===

impl Look {
    /// At the configuration of what is rendered.
    pub fn at_chart() -> Self {
        Self {
            kind: "config".to_owned(),
            severity: "HIGH,CRITICAL".to_owned(),
            scanners: None,
            ignored: IGNORED.into(),
        }
    }

    /// As the action's inputs say. One that is not known here could make the workflow look elsewhere.
    fn of_workflow(workflow: &str) -> anyhow::Result<Self> {
        let workflow: Value = serde_saphyr::from_str(workflow)?;
        let jobs = workflow.get("jobs").and_then(Value::as_object).context("it has no jobs")?;
        let mut steps = jobs.values().filter_map(|job| job.get("steps")?.as_array()).flatten();
        let uses =
            |step: &&Value| step.get("uses").and_then(Value::as_str).is_some_and(|uses| uses.starts_with(ACTION));
        let step = steps.find(uses).context("no step is Trivy's")?;
        let inputs = step.get("with").and_then(Value::as_object).context("Trivy has no inputs")?;
        let known = ["scan-type", "scanners", "severity", "trivyignores"];
        for name in inputs.keys().map(String::as_str) {
            let is_known = known.contains(&name) || OF_THE_WORKFLOW_ALONE.contains(&name);
            anyhow::ensure!(is_known, "the suite does not know Trivy's input {name}");
        }
        let input = |name: &str| {
            let text = inputs.get(name).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("Trivy has no input {name}"))
        };
        let scanners: Vec<String> =
            input("scanners")?.split(',').filter(|name| *name != "vuln").map(str::to_owned).collect();
        Ok(Self {
            kind: input("scan-type")?,
            severity: input("severity")?,
            scanners: Some(scanners.join(",")),
            ignored: input("trivyignores")?.into(),
        })
    }

    pub fn findings(&self, workspace: &Workspace, trivy: &Path, folder: &Path) -> anyhow::Result<BTreeSet<String>> {
        let mut command = Command::new(trivy);
        // Its checks are built in; it is not to look for others.
        command.current_dir(folder).args([&*self.kind, "--quiet", "--skip-check-update", "--format", "json"]);
        if let Some(scanners) = &self.scanners {
            command.args(["--scanners", scanners]);
        }
        command.args(["--severity", &self.severity, "--cache-dir"]).arg(workspace.tools().join("trivy-cache"));
        command.arg("--ignorefile").arg(workspace.root().join(&self.ignored)).arg(".");
        found(&serde_json::from_str(&shell::read(&mut command)?)?)
    }
}

fn found(report: &Value) -> anyhow::Result<BTreeSet<String>> {
    let results = report.get("Results").and_then(Value::as_array).context("Trivy has looked at nothing")?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = BTreeSet::new();
    for result in results {
        let of = |list: &str| result.get(list).and_then(Value::as_array).into_iter().flatten();
        let target = text(result, "Target");
        for one in of("Misconfigurations") {
            found.insert(format!("{target}: {} {} {}", text(one, "ID"), text(one, "Severity"), text(one, "Message")));
        }
        // Not what it is: that would be in the log.
        found.extend(of("Secrets").map(|one| format!("{target}: a secret ({})", text(one, "RuleID"))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = "
jobs:
  other: {uses: ./elsewhere.yml}
  trivy:
    steps:
    - uses: actions/checkout@1
    - uses: aquasecurity/trivy-action@2
      with: {scan-type: fs, scanners: 'vuln,secret,misconfig', severity: HIGH, trivyignores: why.yaml, format: sarif}
";

    #[test]
    fn it_looks_as_the_workflow_does() {
        let wanted = Look {
            kind: "fs".to_owned(),
            severity: "HIGH".to_owned(),
            scanners: Some("secret,misconfig".to_owned()),
            ignored: "why.yaml".into(),
        };
        assert_eq!(Look::of_workflow(STEP).unwrap(), wanted);
        for (from, to) in [("trivyignores", "trivyignore"), ("format", "skip-dirs"), ("severity: HIGH, ", "")] {
            assert!(Look::of_workflow(&STEP.replace(from, to)).is_err(), "{from}");
        }
    }

    #[test]
    fn findings_are_told_without_secrets() {
        let report = serde_json::json!({"Results": [
            {"Target": "a.yaml", "Misconfigurations": [{"ID": "K1", "Severity": "HIGH", "Message": "m"}]},
            {"Target": "b", "Secrets": [{"RuleID": "key", "Match": "planted"}]},
            {"Target": "c"},
        ]});
        let lines = ["a.yaml: K1 HIGH m".to_owned(), "b: a secret (key)".to_owned()];
        assert_eq!(found(&report).unwrap(), lines.into());
        assert!(found(&serde_json::json!({})).is_err());
    }
}
