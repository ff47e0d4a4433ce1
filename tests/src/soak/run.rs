//! The whole run: start everything, kill some of it, compare.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::backend::{Backend, Port};
use super::books::{self, Verdict};
use super::load::Load;
use super::{Consumer, FIRST_TOKEN, Model};
use crate::config::{self, Target};
use crate::gateway::{RunningGateway, Setup};
use crate::poll;
use crate::process;
use crate::tools::Tools;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub minutes: f64,
    /// Also kill Envoy, by turns with the control plane.
    pub kill_envoy: bool,
}

/// So often something is killed.
const EVERY: Duration = Duration::from_secs(20);
/// A dead control plane stays dead for so long: the workers' reports pile up.
const AWAY: Duration = Duration::from_secs(2);
/// A request's usage is in the books so long after its end; twice that, on a busy machine.
const REPORTED: Duration = Duration::from_secs(4);
/// More than a run can use, so that no request is refused for it; the path is that of an enforced budget all the same.
const BUDGET: u64 = 10_000_000_000;

/// False: the books are wrong.
///
/// # Errors
/// When it could not be found out.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let tools = Tools::find()?;
    let backend = Backend::start(Ipv4Addr::LOCALHOST.into()).await?;
    let setup = Setup::new(&tools, "soak")?;
    let port = setup.port();
    let mut gateway = setup
        .file("soak.yaml", &configuration(port, &backend))?
        .arguments(&["--concurrency", "2", "--lease-ttl", "10s"])
        .start()
        .await?;
    let load = Load::start(&gateway.url(), &Consumer::RICH);
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let mut excused = BTreeSet::new();
    let (mut kills, mut envoy_kills) = (0, 0);
    while Instant::now() + EVERY < end {
        sleep(EVERY).await;
        if options.kill_envoy && kills > envoy_kills {
            kill_envoy(&mut gateway, &load, &backend, &mut excused).await?;
            envoy_kills += 1;
        } else {
            gateway.process().kill()?;
            sleep(AWAY).await;
            gateway.restart().await?;
            kills += 1;
        }
        println!(
            "{:>5} s left, {} requests, control plane killed {kills} times, Envoy {envoy_kills} times",
            end.saturating_duration_since(Instant::now()).as_secs(),
            load.count()
        );
    }
    sleep(end.saturating_duration_since(Instant::now())).await;
    let sent = load.stop().await?;
    println!("\n{}", books::sent(&sent));

    // What is right stays right, so the first time that it is right is enough; the last word is the verdict else.
    let last = std::sync::Mutex::new(Verdict::default());
    let looked = poll::until("the books are right", || async {
        let rows = gateway.admin().usage("").await?;
        let verdict = books::compare(&Consumer::RICH, &rows, &backend.count(), &sent, &excused);
        let right = verdict.wrong.is_empty();
        *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = verdict;
        anyhow::ensure!(right, "they are not");
        Ok(())
    })
    .await;
    let verdict = last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{}", verdict.table);
    for wrong in &verdict.wrong {
        println!("WRONG: {wrong}");
    }
    println!("killed: control plane {kills} times, Envoy {envoy_kills} times; {} requests excused", excused.len());
    Ok(looked.is_ok())
}

/// Those who stay are done and reported before it: their books stay exact. Of those who leave, whoever is under way or
/// not yet reported is excused.
async fn kill_envoy(
    gateway: &mut RunningGateway,
    load: &Load,
    backend: &Backend,
    excused: &mut BTreeSet<u64>,
) -> anyhow::Result<()> {
    load.hold().await?;
    let reported: BTreeSet<u64> = backend.count().into_keys().collect();
    sleep(REPORTED).await;
    process::signal_process(gateway.envoy_id()?, Signal::KILL)?;
    let known = backend.count();
    let young = known.iter().filter(|(number, work)| work.consumer == Consumer::Leaves && !reported.contains(number));
    excused.extend(young.map(|(number, _)| *number));
    gateway.status_when("Envoy is back", |status| status.get("ready") == Some(&true.into())).await?;
    poll::until("the gateway answers", || async {
        gateway.without_key().get("/v1/models").await?.expect(401).map(drop)
    })
    .await?;
    load.go_on();
    Ok(())
}

fn configuration(port: u16, backend: &Backend) -> String {
    let flaky_first = [Target::new("flaky"), Target::new("steady").priority(1)];
    let steady = [Target::new("steady")];
    let models: Vec<(&str, &[Target<'_>], Option<u32>)> = Model::ALL
        .into_iter()
        .map(|model| match model {
            Model::Steady | Model::Slow => (model.name(), &steady[..], Some(0)),
            Model::Sleeps | Model::Busy | Model::Broken | Model::Resets | Model::Down => {
                (model.name(), &flaky_first[..], Some(1))
            }
        })
        .collect();
    let timeouts = format!("timeouts: {{connect: 2s, firstToken: {}s, idle: 10s}}", FIRST_TOKEN.as_secs());
    let mut parts = vec![
        config::entry(port),
        config::pool("Required", &models),
        config::backend("flaky", "OpenAI", backend.port(Port::Flaky), &timeouts),
        config::backend("steady", "OpenAI", backend.port(Port::Steady), &timeouts),
        config::budget(BUDGET, ""),
    ];
    parts.extend(Consumer::RICH.map(|consumer| config::consumer(consumer.name(), consumer.key(), "")));
    config::documents(&parts)
}
