//! Kills the ledger with SIGKILL in the middle of traffic, again and again. What was acknowledged must be there, and
//! nothing may be there twice.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tollgate_proto::v1::{self, SyncRequest};

use super::query::{Page, UsageQuery};
use super::tests::*;
use super::*;

const DIR: &str = "TOLLGATE_TEST_LEDGER_DIR";
const WORKERS: u64 = 8;
const LIVES: usize = 6;
const CALLS: u64 = 120;

/// The ledger that is killed: this test program again, running only `child`.
struct Victim {
    process: Child,
    address: String,
}

impl Victim {
    fn start(dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["ledger::durable_test::child", "--exact", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address =
            lines.map(Result::unwrap).find_map(|line| line.split_once("serves ").map(|(_, at)| at.to_owned()));
        Self { process, address: address.unwrap() }
    }
}

impl Drop for Victim {
    /// SIGKILL.
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "the process that the other test kills; it ends only so"]
async fn child() {
    let dir = std::env::var(DIR).unwrap();
    let ledger = Embedded::open(Path::new(&dir), limits(vec![consumer_limit(1_000_000)]), TTL, Metrics::new()).unwrap();
    println!("serves {}", serve(&ledger).await);
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_counts_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(dir.path());
    let address = watch::Sender::new(victim.address.clone());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (1..=WORKERS)
        .map(|worker| tokio::spawn(work(worker, address.subscribe(), Arc::clone(&acknowledged))))
        .collect();

    let mut killed = 0;
    while workers.iter().any(|worker| !worker.is_finished()) {
        // The kill falls somewhere into the next calls, not between them.
        let until = acknowledged.load(Ordering::SeqCst) + WORKERS * CALLS / LIVES as u64;
        while acknowledged.load(Ordering::SeqCst) < until && workers.iter().any(|worker| !worker.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(victim);
        victim = Victim::start(dir.path());
        killed += 1;
        address.send_replace(victim.address.clone());
    }
    let mut spent = 0;
    let mut leased = 0;
    for worker in workers {
        let (charged, outstanding) = worker.await.unwrap();
        spent += charged;
        leased += outstanding;
    }
    assert!(killed > 2, "killed {killed} times");
    drop(victim);

    let ledger = Embedded::open(dir.path(), limits(vec![consumer_limit(1_000_000)]), TTL, Metrics::new()).unwrap();
    let budget = ledger.budgets(Page::default()).await.unwrap().rows.remove(0);
    assert_eq!((budget.spent, budget.leased), (spent, leased));
    let rows = ledger.usage(UsageQuery::default()).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.totals.requests).sum::<u64>(), WORKERS * CALLS);
    assert_eq!(rows.iter().map(|row| row.totals.input_tokens).sum::<u64>(), spent);
}

/// One worker of a proxy: leases, settles, and sends a call again until it is answered.
async fn work(worker: u64, mut address: watch::Receiver<String>, acknowledged: Arc<AtomicU64>) -> (u64, u64) {
    let (mut spent, mut outstanding, mut window_start) = (0, 0, 0);
    for sequence in 1..=CALLS {
        let tokens = outstanding.min(worker + sequence % 7);
        let settlement =
            v1::Settlement { bucket: Some(bucket()), window_start, from_lease: tokens, charged: tokens, released: 0 };
        let call = SyncRequest {
            settlements: vec![settlement],
            usage: vec![used("app", "smol", tokens)],
            wants: want(20, 5),
            ..request(worker, sequence)
        };
        let answer = loop {
            let to = address.borrow_and_update().clone();
            if let Ok(mut client) = connect(&to).await
                && let Ok(answer) = client.sync(call.clone()).await
            {
                break answer.into_inner();
            }
            // The ledger is dead. Wait for the next one, or try again at once if it is there already.
            let _ = tokio::time::timeout(Duration::from_secs(1), address.changed()).await;
        };
        acknowledged.fetch_add(1, Ordering::SeqCst);
        assert_eq!(answer.sequence, sequence);
        window_start = answer.grants[0].window_start;
        spent += tokens;
        outstanding = outstanding - tokens + answer.grants[0].granted;
    }
    (spent, outstanding)
}
