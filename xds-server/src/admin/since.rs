//! Spans of time as people write them: `30m`, `1h30m`, `7d`.

use std::time::Duration;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time")]
pub(super) struct InvalidSpan(String);

pub(super) fn parse(text: &str) -> Result<Duration, InvalidSpan> {
    let invalid = || InvalidSpan(text.chars().take(64).collect());
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit: u64 = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(invalid()),
        };
        let count: u64 = number.parse().map_err(|_| invalid())?;
        let more = count.checked_mul(unit).and_then(|more| seconds.checked_add(more));
        (seconds, rest) = (more.ok_or_else(invalid)?, tail.as_str());
    }
    if seconds == 0 { Err(invalid()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let seconds = |text| parse(text).map(|span| span.as_secs()).ok();
        for (text, expected) in [("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in
            ["", "0s", "1", "h", "1y", "-1h", "1h 30m", "1.5h", "99999999999999999999h", "18446744073709551615w", "1ü"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
