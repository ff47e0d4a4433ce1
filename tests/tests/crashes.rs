//! kill -9, and a VM that dies: what was acknowledged stays, nothing counts twice, a lost lease is charged and no more.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tollgate_tests::client::{Traffic, chat, chat_stream, long_stream};
use tollgate_tests::config;
use tollgate_tests::poll;
use tollgate_tests::process;
use tollgate_tests::tap::Behaviour;
use tollgate_tests::usage::Usage;

use crate::edge;
use crate::fixtures::{APP_KEY, Basic};
use crate::suite::{Shared, e2e};

e2e! {
    a_killed_control_plane_loses_nothing,
    a_killed_envoys_lease_is_charged,
    a_worker_whose_vm_dies_is_replaced_and_charged,
}

/// How long a lease lives that nobody reports. Longer than the looks at it take, and waited for once.
const LEASE: &str = "8s";

/// The control plane dies under traffic: requests inside their leases go on, the new one takes over
/// the running Envoy, and in the end the ledger's sum is the sum of the answers.
async fn a_killed_control_plane_loses_nothing(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut basic = Basic::start_with(&shared, "a_killed_control_plane_loses_nothing", |setup, _| {
        setup.arguments(&["--concurrency", "2"]).file("budget.yaml", &config::budget(10_000_000, ""))
    })
    .await?;
    let envoy = basic.gateway.envoy_id()?;
    let bodies = [chat("smol", 6), chat_stream("smol", 6), chat("smol", 6)];
    let traffic = Traffic::start(&basic.client(), "/v1/chat/completions", &bodies);
    for _ in 0..2 {
        traffic.more(8).await?;
        basic.gateway.process().kill()?;
        traffic.more_answered(4).await?;
        basic.gateway.restart().await?;
        traffic.more(8).await?;
    }
    let answers = traffic.stop().await?;
    anyhow::ensure!(basic.gateway.envoy_id()? == envoy, "another Envoy serves now");
    let mut answered = 0;
    for answer in &answers {
        let answer = answer.as_ref().map_err(|error| anyhow::anyhow!("a dropped request: {error}"))?;
        match answer.status {
            200 => answered += 1,
            // Outside its lease a request is refused while the ledger is away, and says so.
            503 => anyhow::ensure!(answer.text().contains("backend_unavailable"), "{}", answer.text()),
            other => anyhow::bail!("{other}: {}", answer.text()),
        }
    }
    let seen = basic.tap.settled().await?;
    anyhow::ensure!(seen.len() == answered, "{} at the backend, {answered} answers", seen.len());
    println!("{answered} of {} requests were answered through two kills", answers.len());
    exact(&basic, answered as u64).await
}

/// Rows and budgets say what the backend's answers say.
async fn exact(basic: &Basic, requests: u64) -> anyhow::Result<()> {
    let said: Usage = basic.tap.seen().iter().filter_map(|seen| seen.usage()).sum();
    let rows = basic.gateway.admin().usage_of("consumer=app", requests).await?;
    let counted: Usage = rows.iter().map(|row| row.usage()).sum();
    anyhow::ensure!(counted == said, "counted {counted:?}, but the answers say {said:?}");
    let budgets = basic.gateway.admin().settled_budgets().await?;
    let spent: u64 = budgets.iter().map(|budget| budget.spent).sum();
    anyhow::ensure!(spent == said.total(), "{budgets:?}, but the answers say {}", said.total());
    Ok(())
}

/// Envoy dies with a lease in its memory: the control plane starts another, and charges the lost
/// lease when it ends, not more.
async fn a_killed_envoys_lease_is_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let basic = Basic::start_with(&shared, "a_killed_envoys_lease_is_charged", |setup, _| {
        setup.arguments(&["--lease-ttl", LEASE]).file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    let client = basic.client();
    for _ in 0..3 {
        client.chat("smol").await?.expect(200)?;
    }
    let said: u64 = basic.tap.settled().await?.iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    let admin = basic.gateway.admin();
    let leased = || async {
        let budgets = admin.budgets().await?;
        let [budget] = budgets.as_slice() else { anyhow::bail!("{budgets:?}") };
        anyhow::ensure!(budget.spent == said && budget.leased > 0, "{budget:?} after {said}");
        Ok(budget.leased)
    };
    let envoy = basic.gateway.envoy_id()?;
    // It stands still meanwhile, so that it dies with the lease that was seen.
    let leased = poll::until("the requests are settled and the rest is leased", || async {
        leased().await?;
        process::signal_process(envoy, rustix::process::Signal::STOP)?;
        match (leased().await, leased().await) {
            (Ok(one), Ok(other)) if one == other => Ok(one),
            looks => {
                process::signal_process(envoy, rustix::process::Signal::CONT)?;
                anyhow::bail!("it changes: {looks:?}")
            }
        }
    })
    .await?;
    process::signal_process(envoy, rustix::process::Signal::KILL)?;

    let budgets = admin.settled_budgets().await?;
    let spent = budgets.first().context("a budget")?.spent;
    anyhow::ensure!(spent == said + leased, "{spent} is not {said} + the lost lease of {leased}");

    // A new Envoy serves, with the keys, and counts from there.
    poll::until("a new Envoy answers", || async {
        client.chat("smol").await?.expect(200)?;
        Ok(())
    })
    .await?;
    anyhow::ensure!(basic.gateway.envoy_id()? != envoy, "the same Envoy");
    let now: u64 = basic.tap.settled().await?.iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    let budgets = admin.settled_budgets().await?;
    let spent = budgets.first().context("a budget")?.spent;
    anyhow::ensure!(spent == now + leased, "{spent} is not {now} + the lost lease of {leased}");
    let rows = admin.usage_of("consumer=app", 4).await?;
    let counted: u64 = rows.iter().map(|row| row.usage().total()).sum();
    anyhow::ensure!(counted == now, "a lost lease is no usage: {rows:?}");
    Ok(())
}

/// The only worker's VM dies under a running request. The next request has a new VM, with the keys and the lease, and
/// what the old one had taken is charged, once.
async fn a_worker_whose_vm_dies_is_replaced_and_charged(shared: Arc<Shared>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let wasm = dir.path().join("filter.wasm");
    dies_of_trailers(&shared.tools.filter, &wasm)?;
    let basic = Basic::start_with(&shared, "a_worker_whose_vm_dies_is_replaced_and_charged", |setup, _| {
        setup
            .arguments(&["--concurrency", "1", "--wasm", &wasm.display().to_string()])
            .file("budget.yaml", &config::budget(1_000_000, ""))
    })
    .await?;
    let (client, admin, envoy) = (basic.client(), basic.gateway.admin(), basic.gateway.envoy()?);
    client.chat("smol").await?.expect(200)?;
    let began = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"}}]}\n\n".to_vec();
    basic.tap.behave(Behaviour::Hang { content_type: "text/event-stream", body: began });
    let path = "/v1/chat/completions";
    let running = client.clone();
    let running = tokio::spawn(async move { running.post(path, long_stream("smol", 500).to_string()).await });
    poll::until("the long request is at the backend", || async {
        anyhow::ensure!(basic.tap.seen().len() == 2, "not yet");
        Ok(())
    })
    .await?;
    basic.tap.behave(Behaviour::Forward);

    let request = hyper::Request::post(path)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {APP_KEY}"))
        .header("content-type", "application/json");
    let mut killer = edge::connect(&basic.gateway).await?.ready().await?;
    let (answer, mut body) = killer.send_request(request.body(())?, false)?;
    body.send_data(chat("smol", 4).to_string().into(), false)?;
    body.send_trailers([("x-end".parse()?, "1".parse()?)].into_iter().collect())?;
    if let Ok(answer) = answer.await {
        anyhow::ensure!(answer.status() == 503, "{}", answer.status());
    }

    // The connections of before were counted in the old VM, and end with it.
    let client = basic.client();
    poll::until("a new VM answers", || async {
        client.chat("smol").await?.expect(200)?;
        Ok(())
    })
    .await?;
    poll::until("the dead worker is found", || async {
        let lost = envoy.stat("wasmcustom.tollgate.workers_lost")?;
        anyhow::ensure!(lost == 1, "{lost} workers lost");
        Ok(())
    })
    .await?;
    // Those of before are settled, so that what comes on top is what the dead worker had taken.
    admin.usage_of("consumer=app", 2).await?;
    let said: u64 = basic.tap.seen().iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    let charged = poll::until("what it had taken is charged", || async {
        let spent = admin.budgets().await?.first().context("a budget")?.spent;
        anyhow::ensure!(spent > said, "{spent} after {said}");
        Ok(spent)
    })
    .await?;
    // The slice that it kept is for 32 requests at most.
    anyhow::ensure!(charged < said + 33 * 1_100, "{charged} after {said}");
    client.chat("smol").await?.expect(200)?;
    let rows = admin.usage_of("consumer=app", 3).await?;
    let counted: u64 = rows.iter().map(|row| row.usage().total()).sum();
    let now: u64 = basic.tap.seen().iter().filter_map(|seen| Some(seen.usage()?.total())).sum();
    anyhow::ensure!(counted == now, "{rows:?}, but the answers say {now}");
    poll::until("the last request is charged, and nothing else", || async {
        let spent = admin.budgets().await?.first().context("a budget")?.spent;
        anyhow::ensure!(spent == charged + now - said, "{spent}: {charged} and {now} - {said}");
        Ok(())
    })
    .await?;
    running.abort();
    Ok(())
}

/// The filter, but its VM dies of the trailers of a request.
fn dies_of_trailers(filter: &Path, changed: &Path) -> anyhow::Result<()> {
    const TRAILERS: &str = "proxy_on_request_trailers";
    let mut module = walrus::Module::from_file(filter)?;
    let parameters = [walrus::ValType::I32, walrus::ValType::I32];
    let mut trap = walrus::FunctionBuilder::new(&mut module.types, &parameters, &[walrus::ValType::I32]);
    trap.func_body().unreachable();
    let arguments = parameters.map(|parameter| module.locals.add(parameter)).to_vec();
    let trap = trap.finish(arguments, &mut module.funcs);
    module.exports.remove(TRAILERS)?;
    module.exports.add(TRAILERS, trap);
    module.emit_wasm_file(changed)
}
