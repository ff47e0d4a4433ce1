//! The result in tables.

use std::path::Path;

use super::{Lane, Way};
use crate::bench::stats::Samples;

/// Prints what this build costs, over plain Envoy and part by part.
pub fn print(lanes: &[Lane], wasm: &Path) -> anyhow::Result<()> {
    println!(
        "\nCPU microseconds of Envoy per request, 2 KB request, 1 KB answer (events: 10 of them)\n\
         filter.wasm {} KB; lowest round, quartiles of the rounds; differences are of the same round\n",
        std::fs::metadata(wasm)?.len().div_ceil(1024)
    );
    println!("{:<26}{:>7}{:>7}{:>7}{:>7}   over plain Envoy", "", "lowest", "25 %", "50 %", "75 %");
    for lane in lanes {
        let of = |part: f64| lane.of_this().quantile(part);
        print!("{:<26}{:>7.1}{:>7.1}{:>7.1}{:>7.1}", lane.name, of(0.0), of(0.25), of(0.5), of(0.75));
        if let (Some(_), Some(base)) = (lane.over, base(lanes, lane)) {
            let ratio = of(0.5) / base.of_this().quantile(0.5);
            print!("   {}, x{ratio:.2}", spread(&lane.of_this().minus(base.of_this())));
        }
        println!();
    }
    let parts: Vec<&Lane> = lanes.iter().filter(|lane| !lane.means.is_empty()).collect();
    if !parts.is_empty() {
        println!("\nwhere it goes (each line over the one above it)");
    }
    for lane in parts {
        if let Some(over) = lane.over.and_then(|index| lanes.get(index)) {
            println!("{:<36}{}", lane.means, spread(&lane.of_this().minus(over.of_this())));
        }
    }
    println!("\nother gateways are not part of this run yet");
    Ok(())
}

/// Compares this build with the other one. What else the machine does adds to a round and never takes from it. So the
/// lower quartiles are compared: of all rounds, and of each start.
pub fn compare(lanes: &[Lane], rounds_per_start: usize) {
    println!(
        "\n{:<26}{:>8}{:>8}{:>8}   of each start            of each pair of rounds",
        "this build over another", "another", "this", ""
    );
    for lane in lanes.iter().filter(|lane| lane.way != Way::Plain) {
        let [this, other] = &lane.samples;
        let (of_this, of_other) = (this.quantile(0.25), other.quantile(0.25));
        print!("{:<26}{of_other:>8.1}{of_this:>8.1}{:>+8.1}  ", lane.name, of_this - of_other);
        for (this, other) in this.parts(rounds_per_start).zip(other.parts(rounds_per_start)) {
            print!("{:>+6.1}", this.quantile(0.25) - other.quantile(0.25));
        }
        println!("   {}", spread(&this.minus(other)));
    }
}

/// The median, and the quartiles.
fn spread(samples: &Samples) -> String {
    let of = |part: f64| samples.quantile(part);
    format!("{:+.1} ({:+.1} to {:+.1})", of(0.5), of(0.25), of(0.75))
}

/// The plain Envoy's lane that a lane's chain of comparisons ends at.
fn base<'a>(lanes: &'a [Lane], lane: &'a Lane) -> Option<&'a Lane> {
    let mut at = lane;
    while let Some(over) = at.over {
        at = lanes.get(over)?;
    }
    Some(at)
}

// === impl Lane ===

impl Lane {
    fn of_this(&self) -> &Samples {
        let [this, _] = &self.samples;
        this
    }
}
