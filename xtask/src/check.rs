//! The checks. Each is one step with a name, and gives how many tests passed, failed or were skipped.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::artifacts;
use crate::said::{self, Said};
use crate::setup::WASM_TARGET;
use crate::shell::{self, Outcome, Step};
use crate::workspace::Workspace;

/// The result of one check or of all.
#[derive(Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// One line for each failure, with where to read more.
    pub failures: Vec<String>,
    /// What the failed ones said.
    said: Vec<Said>,
    /// Names of tests that ran, without their modules, and of checks that passed.
    pub ran: BTreeSet<String>,
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.said.extend(other.said);
        self.ran.extend(other.ran);
    }

    /// Counts a check that is one test by itself.
    pub fn one(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                self.ran.insert(name.to_owned());
            }
            Err(error) => self.failure(format!("{name}: {error:#}")),
        }
    }

    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("==> {name}\n    SKIP: {reason}");
        self.skipped += 1;
    }

    /// Counts a step by its exit code.
    pub fn step(&mut self, workspace: &Workspace, step: &Step<'_>, command: &mut Command) {
        match step.outcome(workspace, command) {
            Ok(outcome) if outcome.success => self.passed += 1,
            Ok(outcome) => {
                let said = Said::new(step.what, &shell::read_log(&outcome.log));
                print!("{}", said.at_most(said::OF_ONE));
                self.said.push(said);
                self.failure(format!("{}: {}", step.what, outcome.log.display()));
            }
            Err(error) => self.failure(format!("{}: {error:#}", step.what)),
        }
    }

    /// Counts the tests that a step ran.
    pub fn tests(&mut self, workspace: &Workspace, step: &Step<'_>, command: &mut Command) {
        match step.outcome(workspace, command) {
            Ok(outcome) => {
                let text = shell::read_log(&outcome.log);
                let counted = count(step, &outcome, &text);
                for said in &counted.said {
                    print!("{}", said.at_most(said::OF_ONE));
                }
                println!("    {} passed, {} failed", counted.passed, counted.failed);
                self.add(counted);
            }
            Err(error) => self.failure(format!("{}: {error:#}", step.what)),
        }
    }

    fn failure(&mut self, line: String) {
        self.failed += 1;
        self.failures.push(line);
    }

    /// Prints what failed and where to read it, then the closing line. What the failed ones said is repeated before it: the end
    /// of a long output may be all that one gets to see.
    pub fn close(self) -> anyhow::Result<()> {
        print!("{}", said::repeated(&self.said));
        if !self.failures.is_empty() {
            println!("\nfailed:");
            for failure in &self.failures {
                println!("  {failure}");
            }
        }
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        anyhow::ensure!(self.failed == 0, "{} failed", self.failed);
        Ok(())
    }
}

/// Reads the results that cargo's test runners have printed into the log.
fn count(step: &Step<'_>, outcome: &Outcome, text: &str) -> Tally {
    let mut found = Tally::default();
    for line in text.lines() {
        if let Some(result) = line.trim().strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                let number = words.next().and_then(|word| word.parse::<usize>().ok());
                match (number, words.next()) {
                    (Some(number), Some("passed")) => found.passed += number,
                    (Some(number), Some("failed")) => found.failed += number,
                    (Some(number), Some("ignored")) => found.skipped += number,
                    _ => {}
                }
            }
        } else if let Some(name) = test_that_ran(line) {
            found.ran.insert(name.to_owned());
        } else if let Some(name) = failed_test(line) {
            found.failures.push(format!("{name}: {}", outcome.log.display()));
        }
    }
    if outcome.success {
        return found;
    }
    found.said = said::by_failed_tests(text);
    if found.failed == 0 {
        found.said.push(Said::new(step.what, text));
        found.failure(format!("it did not run to its end: {}", outcome.log.display()));
    }
    found
}

/// Its name without its modules. What it prints stands before its outcome, or in its place.
fn test_that_ran(line: &str) -> Option<&str> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ...")?;
    let name = name.trim_end().trim_end_matches(" - should panic");
    let ran = !outcome.trim_start().starts_with("ignored") && !outcome.trim_end().ends_with("FAILED");
    ran.then(|| name.rsplit("::").next().unwrap_or(name))
}

fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix("FAILED")?.split(" ...").next().map(str::trim)
}

// What to check.

pub fn formatting(workspace: &Workspace, tally: &mut Tally) {
    tally.step(
        workspace,
        &Step { what: "formatting", takes: None, log: "fmt" },
        shell::cargo(workspace).args(["fmt", "--all", "--check"]),
    );
}

pub fn lints(workspace: &Workspace, wasm: &Path, tally: &mut Tally) {
    tally.step(
        workspace,
        &Step { what: "lints, native", takes: Some("minutes the first time"), log: "clippy" },
        artifacts::built_in(workspace, wasm, &mut shell::cargo(workspace)).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    tally.step(
        workspace,
        &Step { what: "lints, wasm32", takes: None, log: "clippy-wasm32" },
        shell::cargo(workspace).args([
            "clippy",
            "--package",
            "tollgate-filter",
            "--target",
            WASM_TARGET,
            "--",
            "-D",
            "warnings",
        ]),
    );
}

pub fn unit_tests(workspace: &Workspace, wasm: &Path, name: Option<&str>, tally: &mut Tally) {
    let mut command = shell::cargo(workspace);
    command.args(["test", "--workspace", "--exclude", "tollgate-tests", "--no-fail-fast", "--"]).args(name);
    artifacts::built_in(workspace, wasm, &mut command);
    let step = Step { what: "unit and golden tests", takes: Some("minutes the first time, to compile"), log: "unit" };
    tally.tests(workspace, &step, &mut command);
}

/// What the other tests are made of has tests of its own. They need no Envoy, and what they compile is compiled for those others.
pub fn tests_of_tests(workspace: &Workspace, name: Option<&str>, tally: &mut Tally) {
    let mut command = shell::cargo(workspace);
    command.args(["test", "--package", "tollgate-tests", "--lib", "--"]).args(name);
    let step =
        Step { what: "tests of what end-to-end tests are made of", takes: Some("minutes, to compile"), log: "tests" };
    tally.tests(workspace, &step, &mut command);
}

/// The forms in which the end-to-end tests run the filter, each with the name of its log.
pub const FORMS: [(&str, &str); 2] = [("wasm", "e2e"), ("native", "e2e-native")];

pub fn end_to_end(
    workspace: &Workspace,
    wasm: &Path,
    (form, log): (&str, &str),
    name: Option<&str>,
    tally: &mut Tally,
) {
    let mut command = shell::cargo(workspace);
    command.env("TOLLGATE_TEST_FILTER", form);
    artifacts::built_in(workspace, wasm, &mut command);
    command.args(["test", "--package", "tollgate-tests", "--test", "e2e", "--"]).args(name);
    let what = format!("end-to-end tests: SDKs, Envoy with the filter ({form}), a real LLM");
    let step = Step { what: &what, takes: Some("about five minutes"), log };
    tally.tests(workspace, &step, &mut command);
}

/// Whether a test in Kubernetes has a name that contains this.
pub fn any_in_kubernetes(workspace: &Workspace, name: &str) -> bool {
    let list = shell::read(in_kubernetes_command(workspace).args(["--list", name]));
    // If they cannot be compiled, running them says why.
    list.map_or(true, |list| list.lines().any(|line| line.ends_with(": test")))
}

pub fn in_kubernetes(workspace: &Workspace, name: Option<&str>, tally: &mut Tally) {
    let step = Step { what: "tests in Kubernetes", takes: Some("some minutes"), log: "lab" };
    tally.tests(workspace, &step, in_kubernetes_command(workspace).args(name));
}

fn in_kubernetes_command(workspace: &Workspace) -> Command {
    let mut command = shell::cargo(workspace);
    command.args([
        "test",
        "--no-fail-fast",
        "--package",
        "tollgate-tests",
        "--test",
        "lab",
        "--test",
        "installed",
        "--",
    ]);
    command
}

pub fn in_istio(workspace: &Workspace, name: Option<&str>, tally: &mut Tally) {
    let step = Step { what: "tests in a real Istio", takes: Some("some minutes"), log: "istio" };
    let mut command = shell::cargo(workspace);
    command.args(["test", "--package", "tollgate-tests", "--test", "istio", "--"]).args(name);
    tally.tests(workspace, &step, &mut command);
}

/// Licences, sources and bans of what we depend on.
pub fn dependencies(workspace: &Workspace, cargo_deny: &Path, tally: &mut Tally) {
    tally.step(
        workspace,
        &Step { what: "dependencies: licences, sources, bans", takes: None, log: "deny" },
        Command::new(cargo_deny)
            .current_dir(workspace.root())
            .args(["deny", "--all-features", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
    );
    tally.skip("dependencies: advisories", "the advisory database is a git repository, not in a package registry");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_ran_are_known_by_name() {
        assert_eq!(test_that_ran("test a::b::c ... ok"), Some("c"));
        assert_eq!(test_that_ran("test whole       ... ok"), Some("whole"));
        assert_eq!(test_that_ran("test says ...     18 places"), Some("says"));
        assert_eq!(test_that_ran("test a::panics - should panic ... ok"), Some("panics"));
        for other in ["test a::b ... FAILED", "test a::b ... ignored, why", "test result: ok. 1 passed", "a ... ok"] {
            assert_eq!(test_that_ran(other), None, "{other}");
        }
    }
}
