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

/// CustomResourceDefinitions that lie in the module of an API.
struct Definitions {
    /// The folder where they are left.
    name: &'static str,
    /// The folder of the module that says which version, below tests/lab.
    module: &'static str,
    api: &'static str,
    /// Their folder in the API's module.
    below: &'static str,
    /// The one that is needed, if it is not all of them.
    only: Option<&'static str>,
}

/// What a lab is made of: itself, a backend, an endpoint picker, and what installs Tollgate.
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

/// What the tests in Kubernetes need besides.
const TESTS: [Program; 1] = [Program {
    name: "cert-manager",
    module: "cert-manager",
    of: Of::Package("."),
    takes: "three minutes the first time",
}];

/// What the Gateway API's conformance suite needs besides.
const SUITE: [Program; 2] = [
    Program { name: "conformance.test", module: "conformance", of: Of::Tests, takes: "a minute the first time" },
    Program { name: "coredns", module: "coredns", of: Of::Package("."), takes: "half a minute the first time" },
];

/// What that of the Inference Extension needs.
const INFERENCE: [Program; 1] =
    [Program { name: "inference.test", module: "inference", of: Of::Tests, takes: "a minute the first time" }];

/// What the end-to-end tests need, which have no Kubernetes.
const END_TO_END: [Program; 1] =
    [Program { name: "collector", module: "collector", of: Of::Package("."), takes: "two minutes the first time" }];

/// The definitions that a lab may have.
const DEFINITIONS_OF_LAB: [Definitions; 3] = [
    Definitions {
        name: "gateway-api",
        module: "conformance",
        api: "sigs.k8s.io/gateway-api",
        below: "config/crd/standard",
        only: None,
    },
    Definitions {
        name: "inference-extension",
        module: "inference",
        api: "sigs.k8s.io/gateway-api-inference-extension",
        below: "config/crd/bases",
        only: None,
    },
    Definitions { name: "istio", module: "istio", api: "istio.io/api", below: "kubernetes", only: None },
];

/// And those that only the tests need.
const DEFINITIONS_OF_TESTS: [Definitions; 2] = [
    Definitions {
        name: "cert-manager-definitions",
        module: "cert-manager",
        api: "github.com/cert-manager/cert-manager",
        below: "deploy/crds",
        only: None,
    },
    Definitions {
        name: "external-secrets",
        module: "external-secrets",
        api: "github.com/external-secrets/external-secrets",
        below: "config/crds/bases",
        // It has two dozen kinds.
        only: Some("external-secrets.io_externalsecrets.yaml"),
    },
];

/// Builds what the end-to-end tests need.
pub fn for_end_to_end(workspace: &Workspace) -> anyhow::Result<()> {
    build(workspace, &END_TO_END)
}

/// Builds what a lab needs.
pub fn for_lab(workspace: &Workspace) -> anyhow::Result<()> {
    build(workspace, &LAB)?;
    leave(workspace, &DEFINITIONS_OF_LAB)
}

/// Builds what the tests in Kubernetes need.
pub fn for_tests(workspace: &Workspace) -> anyhow::Result<()> {
    for_lab(workspace)?;
    build(workspace, &TESTS)?;
    leave(workspace, &DEFINITIONS_OF_TESTS)
}

/// Builds what a conformance suite needs as well.
pub fn for_conformance(workspace: &Workspace, suite: Suite) -> anyhow::Result<()> {
    for_lab(workspace)?;
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

/// Leaves definitions in folders of the lab.
fn leave(workspace: &Workspace, all: &[Definitions]) -> anyhow::Result<()> {
    let go = Go::find(workspace)?;
    for definitions in all {
        let module = workspace.root().join("tests/lab").join(definitions.module);
        let sources = fingerprint(&module, &go, &definitions.which())?;
        let folder = workspace.lab().join(definitions.name);
        let stamp = workspace.lab().join(format!("{}.sources", definitions.name));
        if folder.exists() && std::fs::read_to_string(&stamp).is_ok_and(|text| text == sources) {
            continue;
        }
        definitions.write(&go, &module, &folder)?;
        std::fs::write(&stamp, sources)?;
    }
    Ok(())
}

// === impl Definitions ===

impl Definitions {
    /// Writes them into a folder: of the version that our module has.
    fn write(&self, go: &Go, module: &Path, folder: &Path) -> anyhow::Result<()> {
        let found = shell::read(go.command(module).args(["mod", "download", "-json", self.api]))?;
        let found: Value = serde_json::from_str(&found)?;
        let source = found.get("Dir").and_then(Value::as_str).context("the API's module has no folder")?;
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(Path::new(source).join(self.below))? {
            let entry = entry?;
            if self.wants(&entry.path()) {
                // Not a copy: files of Go's cache are read-only.
                std::fs::write(folder.join(entry.file_name()), std::fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    fn wants(&self, file: &Path) -> bool {
        let Some(name) = file.file_name() else { return false };
        match self.only {
            Some(only) => name == only,
            // kustomization.yaml is no object, and what is no YAML is none either.
            None => name != "kustomization.yaml" && file.extension().is_some_and(|ending| ending == "yaml"),
        }
    }

    fn which(&self) -> String {
        format!("{} {} {}", self.api, self.below, self.only.unwrap_or_default())
    }
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
