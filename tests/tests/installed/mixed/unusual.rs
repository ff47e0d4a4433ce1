//! Which ends of a request are documented, other than that a backend answers: docs/operations.md, "What happens when
//! something is down".

use std::collections::BTreeMap;

use tollgate_tests::soak::Consumer;
use tollgate_tests::soak::load::Unusual;

use super::disturbances::Disturbance;

/// What ends the process that has the ledger.
const LEDGER_AWAY: [Disturbance; 4] =
    [Disturbance::LeaderKilled, Disturbance::OtherKilled, Disturbance::ControlPlaneRolled, Disturbance::OtherCa];
const NO_LEDGER: &str = "503 The token budget cannot be checked at the moment.";

/// Until then a proxy is not ready, but who was ready before may be asked.
const NO_KEYS: &str = "503 The gateway has not loaded its API keys yet.";

/// A lease lasts until another control plane leads, unless its proxy has just begun and knows no rate yet. One request of so
/// many may find it used up.
const LEASE_USED_UP: &str = "a lease that is used up while the ledger is away";
const PER_USED_UP: u64 = 1000;

/// Prints all of them, and returns those that are not documented. `requests` is how many there were at all.
pub fn judge(unusual: &BTreeMap<Unusual, u64>, requests: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut documented: BTreeMap<_, u64> = BTreeMap::new();
    for (one, times) in unusual {
        let Unusual { during, consumer, model, end } = one;
        match why(one) {
            Some(why) => *documented.entry((*during, end.as_str(), why)).or_default() += times,
            None => wrong.push(format!(
                "{times} times \"{end}\" for {} of {} while {during}",
                consumer.name(),
                model.name()
            )),
        }
    }
    let used_up = documented.iter().filter(|((.., why), _)| *why == LEASE_USED_UP).map(|(_, times)| times).sum::<u64>();
    if used_up > requests / PER_USED_UP {
        wrong.push(format!("{used_up} of {requests} requests found their lease used up while the ledger was away"));
    }
    for ((during, end, why), times) in documented {
        println!("    {times} times \"{end}\" while {during}: {why}");
    }
    wrong
}

fn why(unusual: &Unusual) -> Option<&'static str> {
    let Unusual { during, consumer, end, .. } = unusual;
    let broke = end.ends_with("the connection ended") || end == "no connection";
    let leaves = *consumer == Consumer::Leaves;
    if *during == Disturbance::ProxyKilled.name() && broke {
        return Some("a proxy Pod, killed: its running requests break, and nobody listens there for a moment");
    }
    if *during == Disturbance::ProxyKilled.name() && end.starts_with(NO_KEYS) {
        return Some("a proxy Pod, killed: the one in its place has no keys yet");
    }
    if LEDGER_AWAY.iter().any(|away| away.name() == *during) && end.starts_with(NO_LEDGER) {
        return Some(match consumer {
            Consumer::Spends => "a budget that is all but spent, while the ledger is away: 503 in place of 429",
            _ => LEASE_USED_UP,
        });
    }
    // Those who leave are not held while a backend ends.
    if *during == Disturbance::SteadyRestarted.name() && leaves && end.starts_with("200, then") {
        return Some("a backend: the streams that it was writing break");
    }
    None
}
