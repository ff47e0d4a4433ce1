//! `cargo xtask test`, `check` and `bless`: which checks run, in which order. Cheap ones come first.

use std::path::Path;

use crate::artifacts;
use crate::check::{self, Tally};
use crate::documents;
use crate::lab;
use crate::lints;
use crate::needs;
use crate::repository;
use crate::setup;
use crate::shell::{self, Step};
use crate::trivy;
use crate::workspace::Workspace;

/// Runs everything.
pub fn all(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = setup::tools(workspace)?;
    let mut tally = Tally::default();
    check::formatting(workspace, &mut tally);
    tally.one("documented paths", documents::paths_exist(workspace));
    tally.one("documented tests", documents::tests_exist(workspace));
    tally.one("checklist", documents::checklist_is_whole(workspace));
    tally.one("keys", repository::no_keys(workspace));
    tally.one("build scripts", repository::build_scripts_are_alone(workspace));
    check::dependencies(workspace, &tools.cargo_deny, &mut tally);
    for (name, lint) in lints::ALL {
        tally.one(name, lint(workspace, &tools));
    }
    tally.one("Trivy on the repository", trivy::repository(workspace, &tools.trivy));
    let wasm = artifacts::filter(workspace)?;
    tally.one("size of filter.wasm", artifacts::filter_size(&wasm));
    check::lints(workspace, &wasm, &mut tally);
    tests(workspace, &wasm, None, &mut tally);
    match needs::no_lab() {
        None => tally.one("documented tests have run", documents::tests_ran(workspace, &tally.ran)),
        Some(lack) => tally.skip("documented tests have run", &format!("those in Kubernetes have not: {lack}")),
    }
    tally.close()
}

/// Runs the tests whose names contain this.
pub fn some(workspace: &Workspace, name: &str) -> anyhow::Result<()> {
    setup::tools(workspace)?;
    let mut tally = Tally::default();
    let wasm = artifacts::filter(workspace)?;
    tests(workspace, &wasm, Some(name), &mut tally);
    anyhow::ensure!(tally.passed + tally.failed + tally.skipped > 0, "no test's name contains {name}");
    tally.close()
}

/// Runs the tests in a real Istio: all, or those whose names contain this. No other command runs them.
pub fn mesh(workspace: &Workspace, name: Option<&str>) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    if let Some(lack) = needs::no_istio().or_else(needs::no_lab) {
        tally.skip("tests in a real Istio", &format!("this machine lacks {lack}"));
        return tally.close();
    }
    setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    artifacts::debug(workspace, &wasm)?;
    lab::for_lab(workspace)?;
    check::in_istio(workspace, name, &mut tally);
    tally.close()
}

fn tests(workspace: &Workspace, wasm: &Path, name: Option<&str>, tally: &mut Tally) {
    check::unit_tests(workspace, wasm, name, tally);
    check::tests_of_tests(workspace, name, tally);
    match artifacts::debug(workspace, wasm) {
        Ok(_) => {
            tally.one(
                "wheel",
                setup::tools(workspace).and_then(|tools| artifacts::debug_wheel(workspace, &tools)).map(drop),
            );
            match lab::for_end_to_end(workspace) {
                Ok(()) => {
                    for form in check::FORMS {
                        check::end_to_end(workspace, wasm, form, name, tally);
                    }
                }
                Err(error) => tally.one("building the collector", Err(error)),
            }
            in_kubernetes(workspace, name, tally);
        }
        Err(error) => tally.one("building tollgate", Err(error)),
    }
}

/// What these tests need takes minutes to build the first time, so it is built only if one of them is to run.
fn in_kubernetes(workspace: &Workspace, name: Option<&str>, tally: &mut Tally) {
    if name.is_some_and(|name| !check::any_in_kubernetes(workspace, name)) {
        return;
    }
    if let Some(lack) = needs::no_lab() {
        return tally.skip("tests in Kubernetes", &format!("this machine lacks {lack}"));
    }
    match lab::for_tests(workspace) {
        Ok(()) => {
            if name.is_none() {
                tally.one("manifests/tollgate.yaml", lab::manifest::check(workspace));
                tally.one("the chart", lab::chart::check(workspace));
                let scanned = setup::tools(workspace).and_then(|tools| lab::chart::scan(workspace, &tools.trivy));
                tally.one("Trivy on the chart", scanned);
            }
            check::in_kubernetes(workspace, name, tally);
        }
        Err(error) => tally.one("building the lab", Err(error)),
    }
}

/// Runs the fast loop.
pub fn fast(workspace: &Workspace) -> anyhow::Result<()> {
    setup::wasm_target(workspace)?;
    let mut tally = Tally::default();
    check::formatting(workspace, &mut tally);
    tally.one("documented paths", documents::paths_exist(workspace));
    tally.one("documented tests", documents::tests_exist(workspace));
    tally.one("checklist", documents::checklist_is_whole(workspace));
    tally.one("keys", repository::no_keys(workspace));
    tally.one("build scripts", repository::build_scripts_are_alone(workspace));
    let wasm = artifacts::filter(workspace)?;
    check::lints(workspace, &wasm, &mut tally);
    check::unit_tests(workspace, &wasm, None, &mut tally);
    tally.close()
}

/// Writes what is generated: from the types the definitions of our kinds and their reference, from what the code asks for
/// the roles, and from the chart the reference of its values, what kubectl applies, and which objects tests/chart makes.
pub fn generate(workspace: &Workspace) -> anyhow::Result<()> {
    let step = Step {
        what: "writing manifests/crds, manifests/rbac and docs/reference anew",
        takes: Some("a minute, to compile"),
        log: "gen",
    };
    step.run(
        workspace,
        shell::cargo(workspace).args(["test", "--package", "xtask", "--test", "crds"]).env("TOLLGATE_BLESS", "1"),
    )?;
    step.run(
        workspace,
        shell::cargo(workspace).args(["test", "--package", "tollgate", "manifests::"]).env("TOLLGATE_BLESS", "1"),
    )?;
    step.run(
        workspace,
        shell::cargo(workspace).args(["test", "--package", "xtask", "--test", "values"]).env("TOLLGATE_BLESS", "1"),
    )?;
    setup::tools(workspace)?;
    lab::manifest::write(workspace)?;
    lab::chart::write(workspace)
}

/// Writes the expected parts of the golden cases anew, to be reviewed as a diff.
pub fn bless(workspace: &Workspace) -> anyhow::Result<()> {
    let step = Step {
        what: "writing tests/cases anew from what the code does now",
        takes: Some("a minute, to compile"),
        log: "bless",
    };
    step.run(
        workspace,
        shell::cargo(workspace).args(["test", "--package", "tollgate-core"]).env("TOLLGATE_BLESS", "1"),
    )?;
    if !workspace.root().join(".git").exists() {
        println!("    done; without git's history there is nothing to compare with");
        return Ok(());
    }
    let changed = shell::read(std::process::Command::new("git").current_dir(workspace.root()).args([
        "status",
        "--short",
        "--",
        "tests/cases",
    ]))?;
    match changed.trim_end() {
        "" => println!("    nothing changed"),
        changed => println!("{changed}\n    review them: git diff tests/cases"),
    }
    Ok(())
}
