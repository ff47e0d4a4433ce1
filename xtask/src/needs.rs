//! What a machine must have before a command starts. All that is missing is said at once and with what to install.
//! Otherwise it would come one thing after the other, and after minutes of compiling.
//!
//! What Rust needs to build this program (cargo, a linker) is there when this runs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::setup::{STATIC_TARGET, WASM_TARGET};
use crate::shell;
use crate::workspace::Workspace;

/// The oldest Python of the pinned wheels: Envoy, llama.cpp and the SDKs have none for older ones.
pub const OLDEST_PYTHON: (u32, u32) = (3, 11);

/// Where python3 is too old, another may be installed beside it.
const PYTHONS: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// One thing that a command needs.
#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    /// Envoy and llama.cpp, which are prebuilt.
    Platform,
    /// A Python that can make environments. It is needed only while the tools are not installed.
    Python,
    C,
    Formatter,
    Linter,
    Wasm,
    Static,
    /// What the lab makes a Kubernetes of.
    Lab,
    /// Istio's own programs.
    Istio,
}

/// What `demo`, `bench` and `test NAME` need.
pub const RUN: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Wasm];
/// What `lab up` and `conformance` need.
pub const LAB: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Wasm, Need::Lab];
/// What `demo --mesh` needs.
pub const MESH: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Wasm, Need::Lab, Need::Istio];
/// What `wheel` needs, and `bench --scale`, which measures what is released.
pub const RELEASED: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Wasm, Need::Static];
/// What `bench --kubernetes` needs.
pub const CLUSTER: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Wasm, Need::Static, Need::Lab];
/// What `test` needs.
pub const TEST: &[Need] = &[Need::Platform, Need::Python, Need::C, Need::Formatter, Need::Linter, Need::Wasm];
/// What `check` needs.
pub const CHECK: &[Need] = &[Need::C, Need::Formatter, Need::Linter, Need::Wasm];
/// What `build` needs.
pub const BUILD: &[Need] = &[Need::C, Need::Wasm];
/// What `dist` needs.
pub const DIST: &[Need] = &[Need::C, Need::Wasm, Need::Static];
/// What `setup` needs.
pub const SETUP: &[Need] = &[Need::Platform, Need::Python, Need::Wasm];

/// An error that names everything that is missing.
pub fn ensure(workspace: &Workspace, needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing(workspace)).collect();
    anyhow::ensure!(missing.is_empty(), "this machine lacks:\n  - {}", missing.join("\n  - "));
    Ok(())
}

/// A Python that can make the environment of the tools.
pub fn python() -> Result<&'static str, String> {
    let mut first = None;
    for name in PYTHONS {
        match fitness(read(Command::new(name).args(["-c", PROBE]))) {
            Ok(()) => return Ok(name),
            Err(why) => first.get_or_insert(why),
        };
    }
    Err(first.unwrap_or_default())
}

// === impl Need ===

impl Need {
    /// What to tell the user if it is missing.
    fn missing(self, workspace: &Workspace) -> Option<String> {
        match self {
            Self::Platform if cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) => None,
            Self::Platform => Some("Linux on x86-64 with glibc, for which Envoy and llama.cpp are prebuilt".to_owned()),
            Self::Python if workspace.has_tools() => None,
            Self::Python => python().err(),
            Self::C => no_compiler(&compiler(|name| std::env::var(name).ok())),
            Self::Formatter => no_component(workspace, "fmt", "rustfmt"),
            Self::Linter => no_component(workspace, "clippy", "clippy"),
            Self::Wasm => no_target(WASM_TARGET),
            Self::Static => no_target(STATIC_TARGET),
            Self::Lab => no_lab(),
            Self::Istio => no_istio(),
        }
    }
}

/// Prints the version, then the modules that are missing.
const PROBE: &str = "
import importlib.util, sys
print('%d.%d' % sys.version_info[:2])
for name in ('venv', 'ensurepip'):
    if importlib.util.find_spec(name) is None: print(name)
";

/// Whether a Python with this answer to the probe will do.
fn fitness(probe: Option<String>) -> Result<(), String> {
    let (major, minor) = OLDEST_PYTHON;
    let Some(probe) = probe else {
        return Err(format!(
            "Python {major}.{minor} or later, for Envoy, the LLM and the SDKs: on Debian and Ubuntu apt-get install python3-venv"
        ));
    };
    let mut lines = probe.lines();
    let version = lines.next().unwrap_or_default();
    let numbers = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if numbers.is_none_or(|numbers: (u32, u32)| numbers < OLDEST_PYTHON) {
        return Err(format!(
            "Python {major}.{minor} or later, for Envoy, the LLM and the SDKs (python3 is {version}): \
             install python3.12, say, beside it"
        ));
    }
    let modules: Vec<&str> = lines.collect();
    if modules.is_empty() {
        return Ok(());
    }
    let modules = modules.join(" and ");
    Err(format!("Python's module {modules}: on Debian and Ubuntu apt-get install python3-venv"))
}

/// The C compiler, found as the crate `cc` finds it.
fn compiler(variable: impl Fn(&str) -> Option<String>) -> String {
    let names = ["CC_x86_64-unknown-linux-gnu", "CC_x86_64_unknown_linux_gnu", "HOST_CC", "CC"];
    names
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "cc".to_owned())
}

fn no_compiler(compiler: &str) -> Option<String> {
    // It may be a wrapper with arguments, such as `ccache cc`.
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    works(command.args(words).arg("--version")).err().map(|()| {
        format!("a C compiler ({compiler} does not start), for the crate ring: on Debian and Ubuntu apt-get install gcc libc6-dev")
    })
}

fn no_component(workspace: &Workspace, command: &str, component: &str) -> Option<String> {
    works(shell::cargo(workspace).args([command, "--version"]))
        .err()
        .map(|()| format!("{component}: rustup component add {component}"))
}

/// None if the target is there, or if rustup can add it.
fn no_target(name: &str) -> Option<String> {
    if has_target(name) || works(Command::new("rustup").arg("--version")).is_ok() {
        return None;
    }
    Some(format!(
        "Rust's standard library for {name}: install Rust by rustup (https://rustup.rs), or this library \
         as your Rust was installed"
    ))
}

/// The programs that the lab and its tests start, and their packages in Debian.
const LAB_PROGRAMS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("curl", "curl"),
    ("openssl", "openssl"),
];

/// Makes what the lab makes: namespaces, a mount, links and rules. All of it is gone when this ends.
const LAB_PROBE: &str = "mount -t tmpfs tmpfs /mnt && ip link add lab0 type bridge && \
                         ip link add lab1 type veth peer name lab2 && nft add table ip lab";

/// Why the lab cannot run on this machine, if so.
pub fn no_lab() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root, for the lab's namespaces".to_owned());
    }
    for (program, package) in LAB_PROGRAMS {
        if works(Command::new("sh").args(["-c", "command -v \"$0\"", program])).is_err() {
            return Some(format!("{program}, for the lab: on Debian and Ubuntu apt-get install {package}"));
        }
    }
    let mut probe = Command::new("unshare");
    probe.args(["--pid", "--fork", "--mount", "--net", "--ipc", "--uts", "sh", "-c", LAB_PROBE]);
    let error = shell::read(&mut probe).err()?;
    Some(format!("the right to make namespaces and what the lab has in them: {error:#}"))
}

/// The programs that a real Istio is made of.
const ISTIO_PROGRAMS: [&str; 3] = ["pilot-discovery", "pilot-agent", "istioctl"];

/// Why there can be no real Istio on this machine, if so. Its programs are in no package registry, so nothing here gets them.
pub fn no_istio() -> Option<String> {
    const PROGRAMS: &str = "Istio's pilot-discovery, pilot-agent and istioctl";
    let Some(folder) = std::env::var_os("ISTIO_BIN") else {
        return Some(format!("{PROGRAMS}: ISTIO_BIN names no folder with them"));
    };
    let folder = Path::new(&folder);
    let missing = |program: &&&str| !folder.join(program).is_file();
    let program = ISTIO_PROGRAMS.iter().find(missing)?;
    Some(format!("{PROGRAMS}: {} has no {program}", folder.display()))
}

/// Whether the Rust that cargo uses here has this target.
pub fn has_target(name: &str) -> bool {
    read(Command::new("rustc").args(["--print", "sysroot"]))
        .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib").join(name).join("lib").is_dir())
}

fn works(command: &mut Command) -> Result<(), ()> {
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(()),
    }
}

fn read(command: &mut Command) -> Option<String> {
    shell::read(command).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(answer: &str) -> Result<(), String> {
        fitness(Some(answer.to_owned()))
    }

    #[test]
    fn a_python_that_cannot_make_environments_is_told_what_to_install() {
        assert_eq!(probe("3.11\n"), Ok(()));
        assert_eq!(probe("3.14\n"), Ok(()));
        assert!(fitness(None).unwrap_err().contains("3.11 or later"));
        assert!(probe("3.9\n").unwrap_err().contains("python3 is 3.9"));
        assert!(probe("2.7\n").is_err());
        assert!(probe("3.12\nensurepip\n").unwrap_err().contains("module ensurepip: on Debian"));
    }

    #[test]
    fn the_compiler_is_the_one_that_the_build_takes() {
        assert_eq!(compiler(|_| None), "cc");
        assert_eq!(compiler(|name| (name == "CC").then(|| "ccache gcc".to_owned())), "ccache gcc");
        assert_eq!(compiler(|name| (name == "CC").then(String::new)), "cc");
    }

    #[test]
    fn a_compiler_that_is_not_there_is_missing() {
        assert!(no_compiler("no-such-compiler --fast").unwrap().contains("ring"));
    }
}
