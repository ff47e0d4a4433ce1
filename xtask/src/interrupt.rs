//! What was started ends with this program, also when Ctrl-C or SIGTERM ends it. Without this it would run on: a signal
//! skips every destructor, and most children are in process groups of their own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The processes that run because of us. None of them was waited for, so none of these ids is another's yet; but for an
/// Envoy that is nobody's child.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static ENDING: AtomicBool = AtomicBool::new(false);

/// A process that does not end by itself within this time is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// From now on, a signal ends what was started, and then this program.
pub fn watch() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::SeqCst);
            eprintln!("\nending what was started");
            end_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

pub fn started(id: u32) {
    ids().insert(id);
}

/// To be said before or when it is waited for.
pub fn ended(id: u32) {
    ids().remove(&id);
}

/// What was started and has not ended.
pub fn running() -> Vec<u32> {
    ids().iter().copied().collect()
}

/// If a signal has come, what fails now fails because of it: nothing more is to be said.
pub fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn end_all() {
    let end = Instant::now() + PATIENCE;
    send(Signal::TERM);
    while ids().iter().any(|id| runs(*id)) {
        if Instant::now() > end {
            send(Signal::KILL);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn send(signal: Signal) {
    for id in ids().iter() {
        if let Some(id) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
            let _ended_meanwhile = kill_process(id, signal);
        }
    }
}

/// Whether it runs. One that has ended and was not waited for is a zombie (Z).
fn runs(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn ids() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_was_started_ends_and_what_was_let_go_runs_on() {
        let sleep = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut ours, mut free) = (sleep(), sleep());
        started(ours.id());
        started(free.id());
        ended(free.id());
        end_all();
        assert!(!runs(ours.id()));
        assert!(runs(free.id()));
        free.kill().unwrap();
        ended(ours.id());
        ours.wait().unwrap();
        free.wait().unwrap();
    }
}
