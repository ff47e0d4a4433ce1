//! Minutes of mixed load, while each part of the installation is killed, replaced or changed in turn: no token is lost, none
//! counts twice, no answer is a 5xx that is not documented, and memory stays as it is.
//!
//! ```text
//! clients of tests/src/soak (in the lab's network) -> two proxies of a Gateway -> three backends that count (the same)
//! disturbances.rs: what happens meanwhile    kills.rs, changes.rs: how         |
//! books.rs: budgets and rows of both control planes <--------------------------
//! unusual.rs: which other ends of a request are documented     memory.rs: what each process has
//! ```
//!
//! By itself each disturbance comes once, in some minutes. `cargo xtask soak --kubernetes --minutes 30` runs the same for so
//! long: all of them again and again, and for the last third only those that no process ends by, so that memory can be judged.

mod books;
mod changes;
mod disturbances;
mod kills;
mod memory;
mod objects;
mod unusual;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use tollgate_tests::lab::Lab;
use tollgate_tests::lab::network::Network;
use tollgate_tests::lab::suite::e2e;
use tollgate_tests::soak::Consumer;
use tollgate_tests::soak::backend::{Answer, Backend, Port};
use tollgate_tests::soak::load::{Load, Sent};

use books::Books;
use disturbances::Disturbance;
use memory::Memory;

e2e! {
    mixed_load_loses_no_token_while_everything_is_disturbed,
}

/// Where all of it is.
const PLACE: &str = "mixed";
const GATEWAY: &str = "llm";
/// The node's address, at which the backends listen.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// How many minutes are asked for.
const MINUTES: &str = "TOLLGATE_SOAK_MINUTES";
/// Of them, in percent, those in which processes end.
const ROUGH: u64 = 60;
/// Load without a disturbance, before the first one and between two of them.
const QUIET: Duration = Duration::from_secs(5);

/// What runs.
struct Run {
    lab: Arc<Lab>,
    /// Of the clients and backends.
    inside: Inside,
    load: Load,
    backend: Backend,
    url: String,
    /// A proxy that nobody ends, so that its memory tells something.
    witness: String,
    books: Books,
    /// Requests of which a killed proxy may have told nothing.
    excused: BTreeSet<u64>,
    /// How many changes of the route proxies have heard of.
    heard: u64,
    /// How often each disturbance was.
    times: BTreeMap<&'static str, u64>,
    memory: Memory,
    began: Instant,
    wrong: Vec<String>,
}

/// A runtime that may be dropped anywhere.
struct Inside(Option<Runtime>);

async fn mixed_load_loses_no_token_while_everything_is_disturbed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let minutes = std::env::var(MINUTES).ok().map(|text| text.parse::<f64>()).transpose().context(MINUTES)?;
    let mut run = Run::start(&lab).await?;
    sleep(QUIET * 2).await;
    match minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)) {
        None => run.each(&Disturbance::ALL, None).await?,
        Some(time) => {
            let end = run.began + time;
            let rough = run.began + time * u32::try_from(ROUGH)? / 100;
            while Instant::now() < rough {
                run.each(&Disturbance::ALL, Some(rough)).await?;
            }
            while Instant::now() < end {
                run.each(&Disturbance::GENTLE, Some(end)).await?;
            }
        }
    }
    run.end(minutes).await?;
    lab.upgrade(&[]).await
}

// === impl Run ===

impl Run {
    /// Two control planes, two proxies, three backends, and clients that ask.
    async fn start(lab: &Arc<Lab>) -> anyhow::Result<Self> {
        let runtime = Network::of(lab)?.runtime()?;
        let backend = runtime.spawn(Backend::start(NODE.into())).await??;
        let inside = Inside(Some(runtime));
        let (url, proxies) = objects::make(lab, &backend).await?;
        let witness = proxies.into_iter().next().context("there is no proxy")?;
        let load = inside.within(|| Load::start(&url, &Consumer::ALL))?;
        let memory = Memory::watch(lab);
        let (books, excused, heard, times) = (Books::default(), BTreeSet::new(), 0, BTreeMap::new());
        let (began, wrong) = (Instant::now(), Vec::new());
        let lab = Arc::clone(lab);
        Ok(Self { lab, inside, load, backend, url, witness, books, excused, heard, times, memory, began, wrong })
    }

    /// These, one after the other, until then.
    async fn each(&mut self, which: &[Disturbance], until: Option<Instant>) -> anyhow::Result<()> {
        for disturbance in which {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            let name = disturbance.name();
            self.load.during(name);
            let at = Instant::now();
            disturbance.happens(self).await.with_context(|| format!("while {name}"))?;
            sleep(QUIET).await;
            self.load.during("nothing");
            *self.times.entry(name).or_default() += 1;
            let (all, took) = (self.began.elapsed().as_secs(), at.elapsed().as_secs());
            println!(
                "    {:>2}:{:02}  {name} ({took} s); {} requests; {}",
                all / 60,
                all % 60,
                self.load.count(),
                self.memory.now()
            );
        }
        Ok(())
    }

    /// Compares and judges.
    async fn end(mut self, minutes: Option<f64>) -> anyhow::Result<()> {
        self.settled("at the end").await?;
        let seconds = self.began.elapsed().as_secs();
        let Self { load, backend, inside, books, excused, times, memory, mut wrong, .. } = self;
        let sent = inside.spawn(load.stop()).await??;
        println!("    {} requests in {seconds} s, {} of them for streams", requests(&sent), sent.streams);
        println!("    {} were answered by a backend that was not the first one", failovers(&backend));
        println!("    {} clients left before the answer; {} requests excused", sent.left.len(), excused.len());
        println!("    disturbed: {times:?}");
        print!("{}", tollgate_tests::soak::books::sent(&sent));
        print!("{}", books.table());
        wrong.extend(unusual::judge(&sent.unusual, requests(&sent)));
        wrong.extend(memory.judge(minutes));
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

fn requests(sent: &Sent) -> u64 {
    sent.ends.values().sum()
}

/// Requests that were answered by another target than their model's first one.
fn failovers(backend: &Backend) -> usize {
    let count = backend.count();
    let other = |work: &&tollgate_tests::soak::backend::Work| match work.answer {
        Answer::Whole(Port::Spare) => true,
        Answer::Whole(Port::Steady) => objects::first(work.model) == Port::Flaky,
        Answer::Whole(Port::Flaky) | Answer::Begun | Answer::None => false,
    };
    count.values().filter(other).count()
}

// === impl Inside ===

impl Inside {
    fn runtime(&self) -> anyhow::Result<&Runtime> {
        self.0.as_ref().context("it has ended")
    }

    /// Tasks that this starts run there.
    fn within<T>(&self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        let _entered = self.runtime()?.enter();
        Ok(start())
    }

    async fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
        Ok(self.runtime()?.spawn(task).await?)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
