//! Whole gateways side by side, with all of their processes.

use super::{Notes, spread};
use crate::bench::contenders::{Contender, DIRECT, not_measured, per_event, per_event_over};
use crate::bench::lane::{Lane, Turn, Work, find};
use crate::bench::parts::PLAIN;
use crate::bench::refusal::Refusal;
use crate::bench::stats::Samples;
use crate::bench::streams::{Memory, STREAMS};

/// What is measured once and not in rounds.
pub struct Rest {
    pub of: Contender,
    /// MiB of all processes after the rounds.
    pub memory: Result<f64, Refusal>,
    pub streams: Result<Memory, Refusal>,
    /// Percent of a CPU.
    pub idle: Result<f64, Refusal>,
}

/// A gateway that used less of its CPU than this was not what held the load up.
const SATURATED: f64 = 0.9;

pub fn gateways(lanes: &[Lane], contenders: &[Contender], rest: &[Rest]) {
    let mut notes = Notes::default();
    println!(
        "\nall processes of each gateway; medians of the rounds (quartiles); added: over plain Envoy in the same round"
    );
    costs(lanes, contenders, &mut notes);
    latencies(lanes, contenders, &mut notes);
    streams(lanes, contenders, &mut notes);
    memories(rest, &mut notes);
    notes.print();
}

fn costs(lanes: &[Lane], contenders: &[Contender], notes: &mut Notes) {
    println!("\n{:<26}{:>10}   {:<26}{:>10}", "CPU us per request", "all", "added", "requests/s");
    for Contender { name, title, .. } in contenders {
        let lane = find(lanes, name, Work::Chats);
        let saturation = of(lane, |turn| turn.saturation).map_or(0.0, |part| part.median());
        let all = notes.text(title, &of(lane, Turn::cpu), |cpu| format!("{:.1}", cpu.median()));
        let added = notes.text(title, &over(lanes, lane, PLAIN, Work::Chats, Turn::cpu), spread);
        let rate = notes.text(title, &of(lane, |turn| turn.per_second), |rate| {
            format!("{}{:.0}", if saturation < SATURATED { ">= " } else { "" }, rate.median())
        });
        println!("{title:<26}{all:>10}   {added:<26}{rate:>10}");
    }
    println!("requests/s on 8 connections; >= : the gateway used less than 90 % of its CPU, so the load was the limit");
}

fn latencies(lanes: &[Lane], contenders: &[Contender], notes: &mut Notes) {
    println!("\n{:<26}{:>8}{:>8}   {:<26}p99 added", "one connection, us", "p50", "p99", "p50 added");
    for Contender { name, title, .. } in contenders {
        let lane = find(lanes, name, Work::OneByOne);
        let mut median =
            |number: fn(&Turn) -> f64| notes.text(title, &of(lane, number), |all| format!("{:.0}", all.median()));
        let (p50, p99) = (median(|turn| turn.p50), median(|turn| turn.p99));
        let mut added =
            |number: fn(&Turn) -> f64| notes.text(title, &over(lanes, lane, PLAIN, Work::OneByOne, number), spread);
        let (added50, added99) = (added(|turn| turn.p50), added(|turn| turn.p99));
        println!("{title:<26}{p50:>8}{p99:>8}   {added50:<26}{added99}");
    }
}

fn streams(lanes: &[Lane], contenders: &[Contender], notes: &mut Notes) {
    println!("\n{:<26}{:<26}{:<26}first byte p99, us over direct", "streams, CPU us", "per chunk", "added per chunk");
    for Contender { name, title, .. } in contenders {
        let lane = find(lanes, name, Work::FirstByte);
        let mut text = |samples: &Result<Samples, Refusal>| notes.text(title, samples, spread);
        let chunk = text(&per_event(lanes, name));
        let added = text(&per_event_over(lanes, name, PLAIN));
        let first = text(&over(lanes, lane, DIRECT, Work::FirstByte, |turn| turn.first_byte_p99));
        println!("{title:<26}{chunk:<26}{added:<26}{first}");
    }
}

fn memories(rest: &[Rest], notes: &mut Notes) {
    println!(
        "\n{:<26}{:>10}{:>14}{:>12}{:>10}{:>14}",
        "memory, MiB", "after", "1,000 streams", "at the end", "KiB each", "idle, % CPU"
    );
    for rest in rest {
        let title = rest.of.title;
        let mut text =
            |part: &Result<f64, Refusal>, digits: usize| notes.text(title, part, |value| format!("{value:.digits$}"));
        let after = text(&rest.memory, 1);
        let mut of = |part: fn(&Memory) -> f64| text(&rest.streams.as_ref().map(part).map_err(Clone::clone), 1);
        let (open, last) = (of(|memory| memory.all_open), of(|memory| memory.at_last));
        let each = of(Memory::per_stream);
        let idle = text(&rest.idle, 2);
        println!("{title:<26}{after:>10}{open:>14}{last:>12}{each:>10}{idle:>14}");
    }
    println!("{STREAMS} streams at once: when all of them were open for the first time, and for the last time");
}

fn of(lane: Option<&Lane>, number: impl Fn(&Turn) -> f64) -> Result<Samples, Refusal> {
    lane.ok_or_else(not_measured)?.samples(number)
}

/// A lane over another one that does the same work.
fn over(
    lanes: &[Lane],
    lane: Option<&Lane>,
    base: &str,
    work: Work,
    number: impl Fn(&Turn) -> f64,
) -> Result<Samples, Refusal> {
    let base = find(lanes, base, work).ok_or_else(not_measured)?;
    lane.ok_or_else(not_measured)?.minus(base, number)
}
