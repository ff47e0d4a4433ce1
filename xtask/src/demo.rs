//! `cargo xtask demo`: runs the whole way of a request once, on real parts, for a person to read. Everything that it
//! prints is measured in that run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;

use crate::artifacts;
use crate::http;
use crate::process::{self, Process, Run};
use crate::setup::{self, Tools};
use crate::shell;
use crate::workspace::Workspace;

/// The ports in examples/demo. If one is taken, the demo uses another.
const GATEWAY_PORT: u16 = 8080;
const RUNNER_PORTS: [u16; 2] = [8081, 8082];
const ADMIN_PORT: u16 = 19000;
/// The Consumers of examples/demo, with the placeholders that stand there for their keys' hashes.
const CONSUMERS: [(&str, &str); 2] = [
    ("research-app", "0000000000000000000000000000000000000000000000000000000000000001"),
    ("trial-app", "0000000000000000000000000000000000000000000000000000000000000002"),
];

struct Demo {
    home: PathBuf,
    tollgate: PathBuf,
    tools: Tools,
    gateway_port: u16,
    runner_ports: [u16; 2],
    admin: String,
}

/// The consumers' keys, in the order of `CONSUMERS`.
struct Keys([String; 2]);

pub fn run(workspace: &Workspace, keep: bool) -> anyhow::Result<()> {
    println!(
        "The whole way: the official OpenAI SDK -> Envoy with filter.wasm -> two real model servers\n\
         (llama.cpp with SmolLM2-135M), all on this machine. The first run builds: some minutes.\n"
    );
    let tools = setup::tools(workspace)?;
    let wasm = artifacts::filter(workspace)?;
    let tollgate = artifacts::debug(workspace, &wasm)?;
    stop(workspace)?;
    let demo = Demo::new(workspace, tools, tollgate)?;
    let keys = demo.write_config(workspace)?;

    let started = Instant::now();
    let [port_a, port_b] = demo.runner_ports;
    let runner_a = process::llm(workspace, &demo.tools, port_a, &demo.home.join("runner-a.log"))?;
    let runner_b = process::llm(workspace, &demo.tools, port_b, &demo.home.join("runner-b.log"))?;
    let gateway = demo.start_gateway()?;
    println!(
        "\n{:.1} s to start: runner-a :{port_a}, runner-b :{port_b}, gateway :{}, admin http://{}/",
        started.elapsed().as_secs_f64(),
        demo.gateway_port,
        demo.admin
    );
    println!("configuration: {}", demo.config().display());

    demo.call(workspace, &keys, "tour")?;
    println!("\n5. runner-a is killed (process {}); the same request goes to runner-b", runner_a.id());
    process::signal(runner_a.id(), Signal::KILL)?;
    demo.call(workspace, &keys, "failover")?;
    demo.print_books()?;

    if keep {
        demo.keep(&keys, [&runner_b, &gateway])?;
        runner_b.let_go();
        gateway.let_go();
    } else {
        gateway.stop();
        runner_b.stop();
        println!("\nAll of it is stopped again; `cargo xtask demo --keep` leaves it running.");
    }
    runner_a.stop();
    Ok(())
}

/// Ends what an earlier `--keep` left running.
pub fn stop(workspace: &Workspace) -> anyhow::Result<()> {
    let file = home(workspace).join("pids");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(());
    };
    for id in text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()) {
        // The ids may be others' by now. Only a process that still runs from this checkout is ours.
        if is_ours(workspace, id) && process::signal(id, Signal::TERM).is_ok() {
            while is_ours(workspace, id) {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            println!("stopped process {id} of the last demo");
        }
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

fn is_ours(workspace: &Workspace, id: u32) -> bool {
    let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    workspace.target().to_str().is_some_and(|target| String::from_utf8_lossy(&line).contains(target))
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.target().join("demo")
}

// === impl Demo ===

impl Demo {
    fn new(workspace: &Workspace, tools: Tools, tollgate: PathBuf) -> anyhow::Result<Self> {
        let home = home(workspace);
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(home.join("config"))?;
        let [a, b] = RUNNER_PORTS;
        Ok(Self {
            home,
            tollgate,
            tools,
            gateway_port: process::port_or_free(GATEWAY_PORT)?,
            runner_ports: [process::port_or_free(a)?, process::port_or_free(b)?],
            admin: format!("127.0.0.1:{}", process::port_or_free(ADMIN_PORT)?),
        })
    }

    fn config(&self) -> PathBuf {
        self.home.join("config")
    }

    fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    /// Copies examples/demo, and puts in the hashes of new keys and the ports that are free.
    fn write_config(&self, workspace: &Workspace) -> anyhow::Result<Keys> {
        let [research, trial] = CONSUMERS.map(|(name, _)| self.new_key(name));
        let (research, trial) = (research?, trial?);
        let mut changes = vec![(format!("port: {GATEWAY_PORT},"), format!("port: {},", self.gateway_port))];
        for (before, now) in RUNNER_PORTS.iter().zip(self.runner_ports) {
            changes.push((format!("port: {before}}}"), format!("port: {now}}}")));
        }
        for ((_, before), (_, hash)) in CONSUMERS.iter().zip([&research, &trial]) {
            changes.push(((*before).to_owned(), hash.clone()));
        }
        for file in std::fs::read_dir(workspace.root().join("examples/demo"))?.flatten() {
            let mut text = std::fs::read_to_string(file.path())?;
            for (before, now) in &changes {
                text = text.replace(before, now);
            }
            std::fs::write(self.config().join(file.file_name()), text)?;
        }
        Ok(Keys([research.0, trial.0]))
    }

    /// Makes a key with `tollgate key new`. Returns the key and its hash.
    fn new_key(&self, consumer: &str) -> anyhow::Result<(String, String)> {
        let mut command = Command::new(&self.tollgate);
        let made = shell::read(command.args(["key", "new", "--consumer", consumer, "-o", "json"]))?;
        let made: Value = serde_json::from_str(&made)?;
        let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
        text("key").zip(text("sha256")).context("no key in what `tollgate key new` prints")
    }

    fn start_gateway(&self) -> anyhow::Result<Process> {
        Run {
            tollgate: &self.tollgate,
            tools: &self.tools,
            config: &self.config(),
            state: &self.state(),
            admin: &self.admin,
            arguments: &["--concurrency", "2"],
            log: &self.home.join("tollgate.log"),
        }
        .start()
    }

    /// Runs a part of tests/python/demo.py, which prints its own output.
    fn call(&self, workspace: &Workspace, keys: &Keys, part: &str) -> anyhow::Result<()> {
        let [research, trial] = &keys.0;
        let status = Command::new(&self.tools.python)
            .arg(workspace.root().join("tests/python/demo.py"))
            .args([&self.url(), part])
            .env("RESEARCH_KEY", research)
            .env("TRIAL_KEY", trial)
            .env("NO_PROXY", "127.0.0.1")
            .status()?;
        anyhow::ensure!(status.success(), "the demo's calls failed; logs: {}", self.home.display());
        Ok(())
    }

    /// Prints what the ledger says, once everything is in it.
    fn print_books(&self) -> anyhow::Result<()> {
        // Usage is in the ledger within two seconds of a request's end.
        std::thread::sleep(std::time::Duration::from_secs(2));
        println!("\n$ tollgate usage");
        let mut usage = Command::new(&self.tollgate);
        print!("{}", shell::read(usage.args(["usage", "--admin", &self.admin]))?);
        println!("\n$ curl http://{}/api/budgets", self.admin);
        print!("{}", budget_table(&http::get_json(&self.admin, "/api/budgets")?));
        Ok(())
    }

    fn keep(&self, keys: &Keys, running: [&Process; 2]) -> anyhow::Result<()> {
        let ids = running.map(|process| process.id().to_string()).join(" ");
        std::fs::write(self.home.join("pids"), &ids)?;
        let [research, _] = &keys.0;
        println!(
            "\nIt goes on running; the page for people is http://{}/. Try:\n\n  \
             curl {}/v1/chat/completions -H 'authorization: Bearer {research}' -H 'content-type: application/json' \\\n    \
             -d '{{\"model\": \"smol\", \"max_tokens\": 20, \"messages\": [{{\"role\": \"user\", \"content\": \"Hi!\"}}]}}'\n\n\
             Edit the files in {} and see them act.\n\
             Stop it: cargo xtask demo --stop   (or: kill {ids})",
            self.admin,
            self.url(),
            display(&self.config()),
        );
        Ok(())
    }
}

fn display(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn budget_table(budgets: &Value) -> String {
    let mut text = format!("{:<24} {:<16} {:>8} {:>8} {:>8}\n", "BUDGET", "SCOPE", "TOKENS", "SPENT", "LEASED");
    for row in budgets.get("rows").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<24} {:<16} {:>8} {:>8} {:>8}",
            format!("{}/{}", word("policy"), word("limit")),
            scope(row.get("scope")),
            number("tokens"),
            number("spent"),
            number("leased"),
        );
    }
    text
}

/// The values of a budget's scope.
fn scope(scope: Option<&Value>) -> String {
    let values = scope.and_then(Value::as_object).into_iter().flat_map(|parts| parts.values());
    values.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}
