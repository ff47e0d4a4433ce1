//! The status of a Consumer at a time: which of its keys count, which end soon, and when it was used last.
//!
//! What it says of a key does not depend on how soon the key ends, so a status changes when a key comes near its end,
//! when it ends, and at no other time.

use std::time::Duration;

use jiff::Timestamp;

use super::{Brief, Condition, ConditionType, ObjectStatus, Reason};

/// A key that a Consumer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEnd {
    /// How people find it in the Consumer: `sha256 2bb80d53…` or `secretRef app`.
    pub name: String,
    /// Unix seconds after which it is refused.
    pub not_after: Option<i64>,
}

/// The time, and how long before its end a key is warned of. Both in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    now: i64,
    warning: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Lasting,
    Ending,
    Ended,
}

/// A Consumer's last use is written into a cluster only if it is so many seconds later than what stands there.
const STEP: i64 = 300;

// === impl Horizon ===

impl Horizon {
    pub fn new(now: Timestamp, warning: Duration) -> Self {
        Self { now: now.as_second(), warning: i64::try_from(warning.as_secs()).unwrap_or(i64::MAX) }
    }

    pub fn phase(self, not_after: i64) -> Phase {
        if self.now > not_after {
            Phase::Ended
        } else if self.now >= not_after.saturating_sub(self.warning) {
            Phase::Ending
        } else {
            Phase::Lasting
        }
    }

    /// When a key with this end comes into its next phase. None: it has ended.
    pub fn turn(self, not_after: i64) -> Option<i64> {
        match self.phase(not_after) {
            Phase::Lasting => Some(not_after.saturating_sub(self.warning)),
            Phase::Ending => Some(not_after.saturating_add(1)),
            Phase::Ended => None,
        }
    }

    /// Keys that end later are in their first phase.
    pub fn end(self) -> i64 {
        self.now.saturating_add(self.warning)
    }
}

// === impl Phase ===

impl Phase {
    /// What a condition says of a key in this phase. None: nothing.
    pub fn sentence(self, name: &str, not_after: i64) -> Option<String> {
        let end = Timestamp::from_second(not_after).map_or_else(|_| not_after.to_string(), |end| end.to_string());
        match self {
            Self::Lasting => None,
            Self::Ending => Some(format!("the key with {name} ends at {end}")),
            Self::Ended => Some(format!("the key with {name} has ended at {end}")),
        }
    }

    /// Of a sentence that says so.
    pub(crate) fn reason_of(sentence: &str) -> Reason {
        if sentence.contains(" has ended at ") { Reason::KeyEnded } else { Reason::KeyEnds }
    }
}

// === impl ObjectStatus ===

impl ObjectStatus {
    /// Adds what the time does to the keys of a Consumer.
    pub fn age(&mut self, horizon: Horizon) {
        let Brief::Consumer { keys, ends } = &mut self.brief else { return };
        let phases: Vec<(&KeyEnd, i64, Phase)> =
            ends.iter().filter_map(|key| Some((key, key.not_after?, horizon.phase(key.not_after?)))).collect();
        *keys = ends.len() - phases.iter().filter(|(_, _, phase)| *phase == Phase::Ended).count();
        let sentences: Vec<String> =
            phases.iter().filter_map(|(key, end, phase)| phase.sentence(&key.name, *end)).collect();
        let condition = match phases.iter().any(|(_, _, phase)| *phase == Phase::Ending) {
            _ if sentences.is_empty() => return,
            true => Condition::bad(ConditionType::KeysExpiring, Reason::KeyEnds, sentences.join("; ")),
            false => Condition {
                message: sentences.join("; "),
                ..Condition::good(ConditionType::KeysExpiring, Reason::KeyEnded)
            },
        };
        self.status.conditions.set(condition);
        self.status.observe();
    }
}

/// What a cluster should say of a Consumer's last use, in Unix seconds: what it says already, until that is too old.
pub fn coarse(said: Option<i64>, last: Option<i64>) -> Option<i64> {
    match (said, last) {
        (Some(said), Some(last)) if last < said.saturating_add(STEP) => Some(said),
        (said, last) => last.or(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Status, StatusKind, Verdict};

    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    /// 2026-12-08.
    const END: i64 = 1_796_688_000;

    fn at(now: i64, ends: &[Option<i64>]) -> ObjectStatus {
        let ends: Vec<KeyEnd> = ends
            .iter()
            .zip('a'..)
            .map(|(end, name)| KeyEnd { name: format!("sha256 {name}"), not_after: *end })
            .collect();
        let brief = Brief::Consumer { keys: ends.len(), ends };
        let status = Status::default();
        let (namespace, name) = ("a".to_owned(), "n".to_owned());
        let mut object = ObjectStatus { kind: StatusKind::Consumer, namespace, name, brief, status };
        object.age(Horizon::new(Timestamp::from_second(now).unwrap(), WEEK));
        object
    }

    fn told(now: i64, ends: &[Option<i64>]) -> Option<(Verdict, Reason, String)> {
        let object = at(now, ends);
        let condition = object.status.conditions.get(ConditionType::KeysExpiring)?;
        Some((condition.verdict, condition.reason, condition.message.clone()))
    }

    #[test]
    fn a_key_is_warned_of_from_one_second_to_another_and_says_the_same_all_the_time() {
        let ends = "the key with sha256 a ends at 2026-12-08T00:00:00Z".to_owned();
        let week = 7 * 86_400;
        assert_eq!(told(END - week - 1, &[Some(END), None]), None);
        for now in [END - week, END - 1, END] {
            assert_eq!(told(now, &[Some(END), None]), Some((Verdict::True, Reason::KeyEnds, ends.clone())));
        }
        let ended = "the key with sha256 a has ended at 2026-12-08T00:00:00Z".to_owned();
        assert_eq!(told(END + 1, &[Some(END), None]), Some((Verdict::False, Reason::KeyEnded, ended.clone())));
        let both = format!("{ended}; the key with sha256 b ends at 2026-12-08T00:00:01Z");
        assert_eq!(told(END + 1, &[Some(END), Some(END + 1)]), Some((Verdict::True, Reason::KeyEnds, both)));
    }

    #[test]
    fn a_key_that_has_ended_is_none() {
        for (now, keys) in [(END, 3), (END + 1, 2), (END + 2, 1)] {
            let Brief::Consumer { keys: count, .. } = at(now, &[Some(END), Some(END + 1), None]).brief else {
                panic!()
            };
            assert_eq!(count, keys);
        }
    }

    #[test]
    fn the_next_turn_of_a_key_is_when_its_phase_changes() {
        let mut now = END - 30 * 86_400;
        let mut phases = Vec::new();
        loop {
            let horizon = Horizon::new(Timestamp::from_second(now).unwrap(), WEEK);
            phases.push(horizon.phase(END));
            let Some(turn) = horizon.turn(END) else { break };
            assert!(turn > now, "{turn}");
            let before = Horizon::new(Timestamp::from_second(turn - 1).unwrap(), WEEK);
            assert_eq!(before.phase(END), horizon.phase(END));
            now = turn;
        }
        assert_eq!(phases, [Phase::Lasting, Phase::Ending, Phase::Ended]);
    }

    #[test]
    fn a_last_use_is_written_once_in_some_minutes() {
        assert_eq!(coarse(None, Some(7)), Some(7));
        assert_eq!(coarse(Some(7), None), Some(7));
        assert_eq!(coarse(Some(1000), Some(1299)), Some(1000));
        assert_eq!(coarse(Some(1000), Some(1300)), Some(1300));
        assert_eq!(coarse(Some(1000), Some(400)), Some(1000), "it never goes back");
        assert_eq!(coarse(None, None), None);
    }
}
