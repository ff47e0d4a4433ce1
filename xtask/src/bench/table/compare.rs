//! This build over another one.

use super::{Notes, spread};
use crate::bench::lane::{Build, Lane, Way};

/// Compares the two. What else the machine does adds to a round and never takes from it. So the lower quartiles are
/// compared: of all rounds, and of each start.
pub fn compare(lanes: &[Lane], rounds_per_start: usize) {
    println!(
        "\n{:<26}{:>8}{:>8}{:>8}   of each start            of each pair of rounds",
        "this build over another", "another", "this", ""
    );
    let mut notes = Notes::default();
    for other in lanes.iter().filter(|lane| matches!(lane.way, Way::Bare(Build::Other) | Way::Chain(Build::Other))) {
        let same = |lane: &&Lane| lane.name == other.name && lane.work == other.work && lane.way != other.way;
        let Some(this) = lanes.iter().find(same) else {
            continue;
        };
        let both = this.samples(|turn| turn.envoy).and_then(|this| Ok((this, other.samples(|turn| turn.envoy)?)));
        let line = notes.text(other.name, &both, |(of_this, of_other)| {
            let (of_this, of_other) = (of_this.quantile(0.25), of_other.quantile(0.25));
            format!("{of_other:>8.1}{of_this:>8.1}{:>+8.1}", of_this - of_other)
        });
        print!("{:<26}{line:>24}  ", other.name);
        for (this, other) in this.starts(rounds_per_start).zip(other.starts(rounds_per_start)) {
            print!("{:>+6.1}", this.quantile(0.25) - other.quantile(0.25));
        }
        println!("   {}", notes.text(other.name, &this.minus(other, |turn| turn.envoy), spread));
    }
    notes.print();
}
