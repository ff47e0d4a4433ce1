//! Why there is no number. A number that cannot be trusted is not printed; its place has the reason.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Requests failed, or had wrong answers.
    Failed { connections: usize, of: usize, first: String },
    /// Other processes used so many percent of all CPUs, and this one most of it.
    Busy { percent: f64, most: Option<String> },
    /// What was to be measured has ended.
    Gone { what: String },
    /// Too few rounds are left. This is the last reason of those that are not.
    Rounds { refused: usize, of: usize, last: Box<Self> },
    /// It was not tried, or it did not start.
    Skipped { reason: String },
}

/// The kernel counts in such steps, for several processes one after the other. So much is an error, and no load.
const ERROR_SECONDS: f64 = 0.03;

// === impl Refusal ===

impl Refusal {
    pub fn skipped(error: &anyhow::Error) -> Self {
        Self::Skipped { reason: format!("{error:#}") }
    }

    /// The rule about busy machines: other processes used `others` seconds of the `capacity` seconds of all CPUs, and may
    /// use so many percent. `most` finds the name of the busiest of them.
    pub fn if_busy(
        others: f64,
        capacity: f64,
        at_most: f64,
        most: impl FnOnce() -> Option<String>,
    ) -> Result<(), Self> {
        if others <= capacity * at_most / 100.0 + ERROR_SECONDS {
            return Ok(());
        }
        Err(Self::Busy { percent: others / capacity * 100.0, most: most() })
    }

    /// The rule about rounds: at least half of them must be left. Returns those.
    pub fn unless_half<T: Clone>(rounds: &[Result<T, Self>]) -> Result<Vec<T>, Self> {
        let good: Vec<T> = rounds.iter().flatten().cloned().collect();
        let Some(last) = rounds.iter().rev().find_map(|round| round.as_ref().err()) else {
            return Ok(good);
        };
        if good.len() * 2 >= rounds.len() {
            return Ok(good);
        }
        Err(Self::Rounds { refused: rounds.len() - good.len(), of: rounds.len(), last: Box::new(last.clone()) })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { connections, of, first } => {
                write!(out, "requests failed on {connections} of {of} connections, the first with: {first}")
            }
            Self::Busy { percent, most: None } => write!(out, "other processes used {percent:.0} % of the CPUs"),
            Self::Busy { percent, most: Some(name) } => {
                write!(out, "other processes used {percent:.0} % of the CPUs, {name} most of it")
            }
            Self::Gone { what } => write!(out, "{what}"),
            Self::Rounds { refused, of, last } => write!(out, "{refused} of {of} rounds refused, the last one: {last}"),
            Self::Skipped { reason } => write!(out, "SKIPPED: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_busy_when_others_use_more_than_they_may() {
        let if_busy =
            |others, capacity, at_most| Refusal::if_busy(others, capacity, at_most, || Some("rustc".to_owned()));
        assert_eq!(if_busy(0.2, 2.0, 10.0), Ok(()));
        let refused = if_busy(0.4, 2.0, 10.0).unwrap_err();
        assert_eq!(refused.to_string(), "other processes used 20 % of the CPUs, rustc most of it");
        assert_eq!(if_busy(0.4, 2.0, 20.0), Ok(()));
        // Some ticks in a short round are no load.
        assert_eq!(if_busy(0.03, 0.1, 10.0), Ok(()));
    }

    #[test]
    fn a_figure_is_refused_when_most_of_its_rounds_are() {
        let busy = || Err(Refusal::Busy { percent: 50.0, most: None });
        assert_eq!(Refusal::unless_half(&[Ok(1), busy(), Ok(3), busy()]), Ok(vec![1, 3]));
        let refused = Refusal::unless_half(&[Ok(1), busy(), busy()]).unwrap_err();
        assert_eq!(refused.to_string(), "2 of 3 rounds refused, the last one: other processes used 50 % of the CPUs");
    }
}
