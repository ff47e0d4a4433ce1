//! What was set as a goal, and whether this run held it. A goal that is missed fails nothing: a benchmark tells.

use super::Rest;
use crate::bench::contenders::{DIRECT, not_measured, per_event_over};
use crate::bench::lane::{Lane, Turn, Work, find};
use crate::bench::parts::{BUDGET, FAILOVER, NATIVE, NATIVE_FAILOVER, PLAIN, PLAIN_HOST};
use crate::bench::peers::Peer;
use crate::bench::refusal::Refusal;
use crate::bench::streams::FLAT;

/// One goal.
struct Target {
    what: &'static str,
    unit: &'static str,
    value: Result<f64, Refusal>,
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// The filter in one of its two forms.
struct Form {
    name: &'static str,
    /// With a budget and failover.
    failover: &'static str,
    /// The most that Envoy may use for a key and a budget, over plain Envoy.
    goal: f64,
}

const WASM: Form = Form { name: BUDGET, failover: FAILOVER, goal: 45.0 };
const MODULE: Form = Form { name: NATIVE, failover: NATIVE_FAILOVER, goal: 25.0 };

pub fn targets(lanes: &[Lane], rest: &[Rest]) {
    for (form, title) in [(WASM, "as WebAssembly"), (MODULE, "as a dynamic module (--filter native)")] {
        println!("\ntargets (medians), the filter {title}");
        let of_form = rest.iter().find(|rest| rest.of.name == form.name);
        for target in of_form.into_iter().flat_map(|rest| all(lanes, &form, rest)) {
            println!("{}", target.line());
        }
    }
}

fn all(lanes: &[Lane], form: &Form, rest: &Rest) -> Vec<Target> {
    use Goal::{AtLeast, AtMost};
    let target = |what, unit, goal, value| Target { what, unit, value, goal };
    let envoy = |name| over_plain(lanes, name, |turn| turn.envoy);
    let added = over_plain(lanes, form.name, Turn::cpu);
    let times_less = |peer: Peer| Ok(over_plain(lanes, peer.name(), Turn::cpu)? / added.clone()?);
    let chunk = per_event_over(lanes, form.name, PLAIN).map(|chunk| chunk.median());
    vec![
        target("key and budget, Envoy over plain", "us", AtMost(form.goal), envoy(form.name)),
        target(
            "key and budget, control plane",
            "us",
            AtMost(5.0),
            median(lanes, form.name, Work::Chats, |turn| turn.beside),
        ),
        target("a host without pools, over plain", "us", AtMost(4.0), envoy(PLAIN_HOST)),
        target("with failover, over plain", "us", AtMost(60.0), envoy(form.failover)),
        target("a chunk of a stream, over plain", "us", AtMost(2.0), chunk),
        target(
            "p99 on one connection, of plain Envoy's",
            "times",
            AtMost(1.5),
            ratio(lanes, form.name, PLAIN, Work::OneByOne, |turn| turn.p99),
        ),
        target("added CPU less than Envoy AI Gateway's", "times", AtLeast(6.0), times_less(Peer::Aigw)),
        target("added CPU less than LiteLLM's", "times", AtLeast(100.0), times_less(Peer::Litellm)),
        target(
            "first byte of a stream at p99, over direct",
            "us",
            AtMost(1_000.0),
            over(lanes, form.name, DIRECT, Work::FirstByte, |turn| turn.first_byte_p99),
        ),
        target(
            "growth while 1,000 streams are open",
            "%",
            AtMost(FLAT),
            rest.streams.clone().map(|memory| memory.growth()),
        ),
        target("idle, both processes", "% CPU", AtMost(0.2), rest.idle.clone()),
    ]
}

fn median(lanes: &[Lane], name: &str, work: Work, number: impl Fn(&Turn) -> f64) -> Result<f64, Refusal> {
    Ok(find(lanes, name, work).ok_or_else(not_measured)?.samples(number)?.median())
}

fn over(lanes: &[Lane], name: &str, base: &str, work: Work, number: impl Fn(&Turn) -> f64) -> Result<f64, Refusal> {
    let lane = |name| find(lanes, name, work).ok_or_else(not_measured);
    Ok(lane(name)?.minus(lane(base)?, number)?.median())
}

fn over_plain(lanes: &[Lane], name: &str, number: impl Fn(&Turn) -> f64) -> Result<f64, Refusal> {
    over(lanes, name, PLAIN, Work::Chats, number)
}

fn ratio(lanes: &[Lane], name: &str, base: &str, work: Work, number: fn(&Turn) -> f64) -> Result<f64, Refusal> {
    Ok(median(lanes, name, work, number)? / median(lanes, base, work, number)?)
}

// === impl Target ===

impl Target {
    fn line(&self) -> String {
        let (sign, goal) = match self.goal {
            Goal::AtMost(goal) => ("at most", goal),
            Goal::AtLeast(goal) => ("at least", goal),
        };
        let (value, verdict) = match &self.value {
            Ok(value) => (format!("{value:.2}"), if self.goal.is_held(*value) { "held" } else { "MISSED" }.to_owned()),
            Err(refusal) => ("-".to_owned(), format!("not known: {refusal}")),
        };
        let goal = format!("{sign} {goal}");
        format!("{:<42}{value:>9} {:<6} {goal:<14} {verdict}", self.what, self.unit)
    }
}

// === impl Goal ===

impl Goal {
    fn is_held(self, value: f64) -> bool {
        match self {
            Self::AtMost(goal) => value <= goal,
            Self::AtLeast(goal) => value >= goal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contenders;

    fn verdict(value: Result<f64, Refusal>, goal: Goal) -> String {
        Target { what: "a", unit: "us", value, goal }.line()
    }

    #[test]
    fn a_goal_is_held_missed_or_not_known() {
        assert!(verdict(Ok(45.0), Goal::AtMost(45.0)).ends_with("held"));
        assert!(verdict(Ok(45.1), Goal::AtMost(45.0)).ends_with("MISSED"));
        assert!(verdict(Ok(5.9), Goal::AtLeast(6.0)).ends_with("MISSED"));
        assert!(verdict(Ok(f64::NAN), Goal::AtMost(1.0)).ends_with("MISSED"));
        let unknown = verdict(Err(not_measured()), Goal::AtLeast(6.0));
        assert!(unknown.contains("not known: SKIPPED"), "{unknown}");
    }

    #[test]
    fn what_was_not_measured_is_held_by_nobody() {
        let of = contenders::all(&[], 1).remove(0);
        let rest = Rest { of, memory: Err(not_measured()), streams: Err(not_measured()), idle: Ok(0.1) };
        let lines: Vec<String> = all(&[], &WASM, &rest).iter().map(Target::line).collect();
        assert_eq!(lines.iter().filter(|line| line.ends_with("held")).count(), 1, "{lines:#?}");
    }
}
