//! What longer prompts cost.

use super::{Notes, spread};
use crate::bench::contenders::{Contender, not_measured, per_kilobyte};
use crate::bench::lane::{Lane, Turn, Work, find};

pub fn prompts(lanes: &[Lane], contenders: &[Contender]) {
    let mut notes = Notes::default();
    println!(
        "\n{:<26}{:>9}{:>9}{:>9}   {:<24}per KB, 100 KB to 1 MB",
        "CPU us by prompt", "2 KB", "100 KB", "1 MB", "per KB, 2 to 100 KB"
    );
    for contender in contenders {
        print!("{:<26}", contender.title);
        for work in [Work::Chats, Work::Prompt100K, Work::Prompt1M] {
            let lane = find(lanes, contender.name, work).ok_or_else(not_measured);
            let cost = lane.and_then(|lane| lane.samples(Turn::cpu));
            print!("{:>9}", notes.text(contender.title, &cost, |cost| format!("{:.0}", cost.median())));
        }
        let [small, large] = per_kilobyte(lanes, contender.name);
        let mut text = |samples| notes.text(contender.title, samples, |samples| spread(samples).replace('+', ""));
        println!("   {:<24}{}", text(&small), text(&large));
    }
    notes.print();
}
