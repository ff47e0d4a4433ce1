//! Lints of what is no Rust: the workflows of `.github/` and the Dockerfiles. A lint that finds nothing in a file that is
//! bad on purpose would find nothing in ours, so each has to find that first.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::lab::go::Go;
use crate::repository;
use crate::setup::Tools;
use crate::shell::Step;
use crate::workspace::Workspace;

type Lint = fn(&Workspace, &Tools) -> anyhow::Result<()>;

/// What `cargo xtask test` runs, each with its name.
pub const ALL: [(&str, Lint); 3] = [("actionlint", actionlint), ("zizmor", zizmor), ("hadolint", hadolint)];

/// A step that takes a title for its commands, and an action that whoever owns its tag can change.
const BAD_WORKFLOW: &str = "\
on: pull_request
jobs:
  bad:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v7
      - run: echo ${{ github.event.pull_request.title }}
      - run: echo ${{ steps.none.outputs.nothing }}
";

/// A base that is another one every day.
const BAD_DOCKERFILE: &str = "FROM debian:latest\n";

/// Whether workflows mean something: keys, expressions, names of steps and jobs.
fn actionlint(workspace: &Workspace, _: &Tools) -> anyhow::Result<()> {
    let program = workspace.target().join("lints/actionlint");
    let mut build = Go::find(workspace)?.command(&workspace.root().join("tests/lint"));
    build.args(["build", "-mod=readonly", "-buildvcs=false", "-o"]).arg(&program);
    Step { what: "building actionlint", takes: Some("half a minute the first time"), log: "build-actionlint" }
        .run(workspace, build.arg("github.com/rhysd/actionlint/cmd/actionlint"))
        .context("the Go module proxy must be reachable the first time")?;
    let lint = |files: &[PathBuf]| {
        let mut command = Command::new(&program);
        // These two would be asked where a machine happens to have them.
        command.args(["-no-color", "-shellcheck=", "-pyflakes="]).args(files);
        command
    };
    let ours = ours(workspace, |file| file.parent() == Some(Path::new(".github/workflows")))?;
    both(workspace, "actionlint", &ours, ("bad.yml", BAD_WORKFLOW, "\"none\" is not defined"), lint)
}

/// Whether workflows let somebody in: actions without a commit, rights that are too wide, texts of strangers as commands.
fn zizmor(workspace: &Workspace, tools: &Tools) -> anyhow::Result<()> {
    let lint = |files: &[PathBuf]| {
        let mut command = Command::new(&tools.zizmor);
        command.args(["--offline", "--no-progress", "--color=never"]).args(files);
        command
    };
    let ours = ours(workspace, |file| {
        file.parent() == Some(Path::new(".github/workflows")) || file == Path::new(".github/dependabot.yml")
    })?;
    both(workspace, "zizmor", &ours, ("bad.yml", BAD_WORKFLOW, "unpinned-uses"), lint)
}

fn hadolint(workspace: &Workspace, tools: &Tools) -> anyhow::Result<()> {
    let lint = |files: &[PathBuf]| {
        let mut command = Command::new(&tools.hadolint);
        command.arg("--no-color").args(files);
        command
    };
    let ours = ours(workspace, |file| file.to_string_lossy().ends_with("Dockerfile"))?;
    both(workspace, "hadolint", &ours, ("Dockerfile", BAD_DOCKERFILE, "DL3007"), lint)
}

fn ours(workspace: &Workspace, is_it: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = repository::files(workspace)?;
    files.retain(|file| is_it(file));
    anyhow::ensure!(!files.is_empty(), "the repository has none of these files any more");
    Ok(files)
}

/// Has the lint find what is bad (in a file of this name, with this text, said by these words), and nothing in our files.
fn both(
    workspace: &Workspace,
    name: &str,
    ours: &[PathBuf],
    (file, text, words): (&str, &str, &str),
    lint: impl Fn(&[PathBuf]) -> Command,
) -> anyhow::Result<()> {
    println!("==> {name}");
    let folder = workspace.target().join("lints").join(format!("{name}-bad"));
    std::fs::create_dir_all(&folder)?;
    let bad = folder.join(file);
    std::fs::write(&bad, text)?;
    let (fine, said) = run(workspace, &mut lint(&[bad]))?;
    anyhow::ensure!(!fine && said.contains(words), "{name} does not find what is bad on purpose:\n{said}");
    let (fine, said) = run(workspace, &mut lint(ours))?;
    anyhow::ensure!(fine, "\n{said}");
    println!("    ok");
    Ok(())
}

fn run(workspace: &Workspace, command: &mut Command) -> anyhow::Result<(bool, String)> {
    let output = command
        .current_dir(workspace.root())
        // With a token it would ask GitHub.
        .env_remove("GH_TOKEN")
        .env_remove("GITHUB_TOKEN")
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
