//! The Go programs of tests/lab, built into target/lab. Kubernetes is large, so a program is built again only if sources
//! or Go are others.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::go::Go;
use crate::shell::{self, Step};
use crate::workspace::Workspace;

/// Which conformance suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Of the Gateway API
    Gateway,
    /// Of its Inference Extension: InferencePools as backends
    Inference,
}

/// What is built of a module.
enum Of {
    Package(&'static str),
    Tests,
}

struct Program {
    name: &'static str,
    /// The folder of its module, below tests/lab.
    module: &'static str,
    of: Of,
    takes: &'static str,
}

/// What the tests need: the lab itself, a backend, an endpoint picker, and what installs Tollgate.
const LAB: [Program; 4] = [
    Program {
        name: "lab",
        module: "",
        of: Of::Package("."),
        takes: "all of Kubernetes: four minutes the first time on two cores",
    },
    Program {
        name: "echo-basic",
        module: "conformance",
        of: Of::Package("sigs.k8s.io/gateway-api/conformance/echo-basic"),
        takes: "half a minute the first time",
    },
    Program { name: "picker", module: "inference", of: Of::Package("./picker"), takes: "a minute the first time" },
    Program {
        name: "helm",
        module: "helm",
        of: Of::Package("helm.sh/helm/v3/cmd/helm"),
        takes: "two minutes the first time",
    },
];

/// What the Gateway API's conformance suite needs besides.
const SUITE: [Program; 2] = [
    Program { name: "conformance.test", module: "conformance", of: Of::Tests, takes: "a minute the first time" },
    Program { name: "coredns", module: "coredns", of: Of::Package("."), takes: "half a minute the first time" },
];

/// What that of the Inference Extension needs.
const INFERENCE: [Program; 1] =
    [Program { name: "inference.test", module: "inference", of: Of::Tests, takes: "a minute the first time" }];

/// Builds what the tests need.
pub fn for_tests(workspace: &Workspace) -> anyhow::Result<()> {
    build(workspace, &LAB)?;
    istio(workspace)
}

/// Leaves the definitions of Istio's kinds in a folder of the lab.
fn istio(workspace: &Workspace) -> anyhow::Result<()> {
    let go = Go::find(workspace)?;
    let module = workspace.root().join("tests/lab/istio");
    let sources = fingerprint(&module, &go, "")?;
    let stamp = workspace.lab().join("istio.sources");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == sources) {
        return Ok(());
    }
    definitions(&go, &module, ("istio.io/api", "kubernetes"), &workspace.lab().join("istio"))?;
    Ok(std::fs::write(&stamp, sources)?)
}

/// Builds what a conformance suite needs as well.
pub fn for_conformance(workspace: &Workspace, suite: Suite) -> anyhow::Result<()> {
    build(workspace, &LAB)?;
    match suite {
        Suite::Gateway => build(workspace, &SUITE),
        Suite::Inference => build(workspace, &INFERENCE),
    }
}

fn build(workspace: &Workspace, programs: &[Program]) -> anyhow::Result<()> {
    let go = Go::find(workspace)?;
    let home = workspace.lab();
    std::fs::create_dir_all(&home)?;
    for program in programs {
        let module = workspace.root().join("tests/lab").join(program.module);
        let flags = linker_flags(&module)?;
        let sources = fingerprint(&module, &go, &flags)?;
        let stamp = home.join(format!("{}.sources", program.name));
        let built = home.join(program.name);
        if built.exists() && std::fs::read_to_string(&stamp).is_ok_and(|text| text == sources) {
            continue;
        }
        let what = format!("building {}", program.name);
        let log = format!("build-{}", program.name);
        let mut command = go.command(&module);
        match program.of {
            Of::Package(_) => command.arg("build"),
            Of::Tests => command.args(["test", "-c"]),
        };
        command.args(["-v", "-mod=readonly", "-buildvcs=false", &flags, "-o"]).arg(&built);
        command.arg(match program.of {
            Of::Package(name) => name,
            Of::Tests => ".",
        });
        Step { what: &what, takes: Some(program.takes), log: &log }
            .run(workspace, &mut command)
            .context("the Go module proxy must be reachable the first time")?;
        match program.name {
            "echo-basic" => {
                let source = ("sigs.k8s.io/gateway-api", "config/crd/standard");
                definitions(&go, &module, source, &home.join("gateway-api"))?;
            }
            "picker" => {
                let source = ("sigs.k8s.io/gateway-api-inference-extension", "config/crd/bases");
                definitions(&go, &module, source, &home.join("inference-extension"))?;
            }
            _ => {}
        }
        std::fs::write(&stamp, sources)?;
    }
    Ok(())
}

/// Without tables for debuggers, and with the version that Kubernetes' own build would set: clients and charts ask for it.
fn linker_flags(module: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(module.join("go.mod"))?;
    let mut flags = "-ldflags=-s -w".to_owned();
    if let Some(version) = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v")) {
        let mut numbers = version.split('.');
        let (major, minor) = numbers.next().zip(numbers.next()).context("the version of Kubernetes has no minor")?;
        for (name, value) in [("Version", &*format!("v{version}")), ("Major", major), ("Minor", minor)] {
            flags.push_str(&format!(" -X k8s.io/component-base/version.git{name}={value}"));
        }
    }
    Ok(flags)
}

/// Leaves CustomResourceDefinitions in this folder: of an API, of the version that its suite has.
fn definitions(go: &Go, module: &Path, (api, below): (&str, &str), folder: &Path) -> anyhow::Result<()> {
    let found = shell::read(go.command(module).args(["mod", "download", "-json", api]))?;
    let found: Value = serde_json::from_str(&found)?;
    let source = found.get("Dir").and_then(Value::as_str).context("the API's module has no folder")?;
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(Path::new(source).join(below))? {
        let entry = entry?;
        // kustomization.yaml is no object.
        if entry.file_name() != "kustomization.yaml" {
            // Not a copy: files of Go's cache are read-only.
            std::fs::write(folder.join(entry.file_name()), std::fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Says which sources something was built of, and how.
fn fingerprint(module: &Path, go: &Go, flags: &str) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    (&go.version, flags).hash(&mut hasher);
    sources(module, &mut hasher)?;
    Ok(format!("{:016x}\n", hasher.finish()))
}

/// Hashes the sources of a module, without those of a module in one of its folders.
fn sources(folder: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            if !path.join("go.mod").exists() {
                sources(&path, hasher)?;
            }
        } else if path.extension().is_some_and(|ending| ["go", "mod", "sum"].iter().any(|source| ending == *source)) {
            entry.file_name().hash(hasher);
            std::fs::read(&path)?.hash(hasher);
        }
    }
    Ok(())
}
