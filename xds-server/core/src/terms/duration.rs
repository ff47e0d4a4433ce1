//! Durations as users write them: the Gateway API's format (GEP-2257: `1h30m`, `500ms`) and days.

use std::time::Duration;

use super::redact::Shown;

/// How a duration is written.
pub const HINT: &str = "a number with a unit, for example 500ms, 30s, 5m, 2h, 1d or 1h30m";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error("an empty duration")]
    Empty,
    #[error("{} has no unit", Shown(.0))]
    NoUnit(String),
    #[error("{} is not a duration", Shown(.0))]
    Malformed(String),
    #[error("{} is longer than 99999 days", Shown(.0))]
    TooLong(String),
}

const MAX: Duration = Duration::from_secs(99_999 * 86_400);

/// # Errors
/// When the text is no duration.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    if text.is_empty() {
        return Err(InvalidDuration::Empty);
    }
    let malformed = || InvalidDuration::Malformed(text.to_owned());
    let mut total = Duration::ZERO;
    let mut rest = text;
    for _ in 0..5 {
        if rest.is_empty() {
            break;
        }
        let digits =
            rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| InvalidDuration::NoUnit(text.to_owned()))?;
        let (number, tail) = rest.split_at(digits);
        if !(1..=5).contains(&number.len()) {
            return Err(malformed());
        }
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3_600),
            "d" => Duration::from_secs(number * 86_400),
            _ => return Err(malformed()),
        };
        rest = tail;
    }
    match rest {
        "" if total <= MAX => Ok(total),
        "" => Err(InvalidDuration::TooLong(text.to_owned())),
        _ => Err(malformed()),
    }
}

/// `1h30m`, as users write it.
pub fn duration_as_text<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let (mut seconds, mut text) = (duration.as_secs(), String::new());
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
        if seconds >= unit {
            text.push_str(&format!("{}{name}", seconds / unit));
            seconds %= unit;
        }
    }
    match duration.subsec_millis() {
        0 if text.is_empty() => text.push_str("0s"),
        0 => {}
        millis => text.push_str(&format!("{millis}ms")),
    }
    serializer.serialize_str(&text)
}

/// The same for a duration that may be absent.
pub fn optional_duration<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_as_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_and_combinations() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("0s", 0)] {
            assert_eq!(parse(text).unwrap().as_millis(), millis, "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1.5s", "1w", "1s ", "123456s", "1s1s1s1s1s1s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_built_is_read(d in 0u64..999, h in 0u64..24, m in 0u64..60, s in 0u64..60, ms in 0u64..1000) {
            let text = format!("{d}d{h}h{m}m{s}s{ms}ms");
            prop_assert_eq!(parse(&text).unwrap(), Duration::from_millis((((d * 24 + h) * 60 + m) * 60 + s) * 1000 + ms));
        }
    }
}
