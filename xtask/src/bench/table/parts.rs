//! What this build costs, over plain Envoy and part by part.

use std::path::Path;

use super::{Notes, base, spread};
use crate::bench::lane::{Build, Lane, Turn, Way, Work};

/// `control_plane` says which build that is.
pub fn parts(lanes: &[Lane], wasm: &Path, control_plane: &str) -> anyhow::Result<()> {
    println!(
        "\nCPU microseconds per request on 8 connections, 2 KB request, 1 KB answer (events: 10 of them)\n\
         filter.wasm {} KB; Envoy's lowest round and quartiles of the rounds; differences are of the same round;\n\
         beside: the median of the other processes ({control_plane})\n",
        std::fs::metadata(wasm)?.len().div_ceil(1024)
    );
    println!("{:<26}{:>7}{:>7}{:>7}{:>7}{:>8}   Envoy over plain", "", "lowest", "25 %", "50 %", "75 %", "beside");
    let shown = |lane: &&Lane| {
        matches!(lane.work, Work::Chats | Work::Events)
            && !matches!(lane.way, Way::Bare(Build::Other) | Way::Chain(Build::Other) | Way::Peer(_))
    };
    let shown: Vec<&Lane> = lanes.iter().filter(shown).collect();
    let mut notes = Notes::default();
    for lane in &shown {
        let line = notes.text(lane.name, &lane.samples(|turn| turn.envoy), |envoy| {
            let of = |part: f64| envoy.quantile(part);
            format!("{:>7.1}{:>7.1}{:>7.1}{:>7.1}", of(0.0), of(0.25), of(0.5), of(0.75))
        });
        let beside = lane.samples(|turn| turn.beside).map_or(f64::NAN, |beside| beside.median());
        print!("{:<26}{line:>28}{beside:>8.1}", lane.name);
        if let (Some(_), Some(base)) = (lane.over, base(lanes, lane)) {
            let over = lane.minus(base, |turn| turn.envoy);
            let ratio =
                |turn: fn(&Turn) -> f64| Some(lane.samples(turn).ok()?.median() / base.samples(turn).ok()?.median());
            let over = notes.text(lane.name, &over, spread);
            print!("   {over}, x{:.2}", ratio(|turn| turn.envoy).unwrap_or(f64::NAN));
        }
        println!();
    }
    if shown.iter().any(|lane| !lane.means.is_empty()) {
        println!("\nwhere it goes (each line over the one above it)");
    }
    for lane in shown.into_iter().filter(|lane| !lane.means.is_empty()) {
        if let Some(over) = lanes.iter().find(|other| Some(other.name) == lane.over) {
            println!("{:<36}{}", lane.means, notes.text(lane.name, &lane.minus(over, |turn| turn.envoy), spread));
        }
    }
    notes.print();
    Ok(())
}
