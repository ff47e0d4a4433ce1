//! The results as text.

mod compare;
mod gateways;
mod parts;
mod prompts;
mod targets;

pub use compare::compare;
pub use gateways::{Rest, gateways};
pub use parts::parts;
pub use prompts::prompts;
pub use targets::targets;

use crate::bench::lane::Lane;
use crate::bench::refusal::Refusal;
use crate::bench::stats::Samples;

/// The median, and the quartiles. Large ones need no fractions.
fn spread(samples: &Samples) -> String {
    let digits = if samples.median().abs() < 200.0 { 1 } else { 0 };
    let of = |part: f64| samples.quantile(part);
    format!("{:+.digits$} ({:+.digits$} to {:+.digits$})", of(0.5), of(0.25), of(0.75))
}

/// The first reason of each row, to stand below the table.
#[derive(Default)]
struct Notes(Vec<(String, String)>);

// === impl Notes ===

impl Notes {
    /// The value, or a sign that a note says why there is none.
    fn text<T>(&mut self, row: &str, value: &Result<T, Refusal>, show: impl FnOnce(&T) -> String) -> String {
        match value {
            Ok(value) => show(value),
            Err(refusal) => {
                if !self.0.iter().any(|(noted, _)| noted == row) {
                    self.0.push((row.to_owned(), refusal.to_string()));
                }
                "refused".to_owned()
            }
        }
    }

    fn print(&self) {
        for (row, reason) in &self.0 {
            println!("refused: {row}: {reason}");
        }
    }
}

/// The lane at the end of a lane's comparisons.
fn base<'a>(lanes: &'a [Lane], lane: &'a Lane) -> Option<&'a Lane> {
    let mut at = lane;
    while let Some(over) = at.over {
        at = lanes.iter().find(|lane| lane.name == over)?;
    }
    Some(at)
}
