//! How many tokens a Consumer has spent on a day. Days are those of UTC.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Spent {
    #[serde(serialize_with = "as_text")]
    pub date: Date,
    /// Of requests and answers together.
    pub tokens: u64,
}

/// Whether the status of a Consumer may be written because of tokens alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It was written not long ago.
    Waits,
    Writes,
}

/// What a cluster should say of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It says so already, or it is to say so now.
    Now(Option<Spent>),
    /// It says less, and is to say more later.
    Later(Spent),
}

// === impl Spent ===

impl Spent {
    /// The sum of two of the same day is the larger one: each is a sum that somebody knew, and sums only grow. Whoever
    /// becomes the leader may know less than the one before.
    pub fn say(said: Option<Self>, known: Option<Self>, today: Date, patience: Patience) -> Say {
        let of_today = |spent: &Self| spent.date == today;
        let [said_today, known] = [said, known].map(|spent| spent.filter(of_today));
        let most = [said_today, known].into_iter().flatten().max_by_key(|spent| spent.tokens);
        match said_today {
            Some(said) if most != Some(said) && patience == Patience::Waits => Say::Later(said),
            _ => Say::Now(most),
        }
    }
}

pub fn date_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

fn as_text<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(day: i8, tokens: u64) -> Option<Spent> {
        Some(Spent { date: Date::constant(2026, 12, day), tokens })
    }

    #[test]
    fn a_day_begins_with_nothing_and_a_sum_never_falls() {
        let say = |said, known, patience| Spent::say(said, known, Date::constant(2026, 12, 2), patience);
        for patience in [Patience::Waits, Patience::Writes] {
            assert_eq!(say(None, None, patience), Say::Now(None));
            assert_eq!(say(None, spent(2, 5), patience), Say::Now(spent(2, 5)), "the first tokens are no secret");
            assert_eq!(say(spent(1, 9), spent(1, 9), patience), Say::Now(None), "yesterday is over");
            assert_eq!(say(spent(1, 9), spent(2, 5), patience), Say::Now(spent(2, 5)));
            assert_eq!(say(spent(2, 9), spent(2, 5), patience), Say::Now(spent(2, 9)));
            assert_eq!(say(spent(2, 9), None, patience), Say::Now(spent(2, 9)));
        }
        assert_eq!(say(spent(2, 5), spent(2, 9), Patience::Writes), Say::Now(spent(2, 9)));
        assert_eq!(say(spent(2, 5), spent(2, 9), Patience::Waits), Say::Later(spent(2, 5).unwrap()));
    }

    #[test]
    fn a_date_is_that_of_utc() {
        let date = |text: &str| date_of(text.parse().unwrap()).to_string();
        assert_eq!(date("2026-12-01T23:59:59.9Z"), "2026-12-01");
        assert_eq!(date("2026-12-01T23:59:59-01:00"), "2026-12-02");
    }
}
