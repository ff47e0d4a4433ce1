//! Which window of a limit a moment falls into.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};

use crate::ir::{CalendarUnit, Window};

/// From `start` to before `end`, in unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: i64,
    /// 0: the window never ends.
    pub end: i64,
}

/// The window cannot be placed in time.
#[derive(Debug, thiserror::Error)]
#[error("the time zone {zone:?} is not known here: {source}; use an IANA name such as Europe/Berlin")]
pub struct UnknownWindow {
    zone: String,
    source: jiff::Error,
}

/// The window that `now` is in.
///
/// # Errors
/// When the time zone is not in the tz database, which translation has checked.
pub fn at(window: &Window, now: Timestamp) -> Result<Span, UnknownWindow> {
    match window {
        Window::Fixed(length) => Ok(fixed(*length, now.as_second())),
        Window::Calendar { unit, time_zone } => {
            calendar(*unit, time_zone, now).map_err(|source| UnknownWindow { zone: time_zone.clone(), source })
        }
    }
}

fn fixed(length: Duration, now: i64) -> Span {
    match i64::try_from(length.as_secs()) {
        Ok(length) if length > 0 => {
            let start = now.div_euclid(length).saturating_mul(length);
            Span { start, end: start.saturating_add(length) }
        }
        _ => Span { start: 0, end: 0 },
    }
}

fn calendar(unit: CalendarUnit, zone: &str, now: Timestamp) -> Result<Span, jiff::Error> {
    let zone = TimeZone::get(zone)?;
    let today = now.to_zoned(zone.clone()).date();
    let (first, next) = match unit {
        CalendarUnit::Day => (today, today.tomorrow()?),
        CalendarUnit::Week => {
            let monday = today.checked_sub(today.weekday().to_monday_zero_offset().days())?;
            (monday, monday.checked_add(1.week())?)
        }
        CalendarUnit::Month => (today.first_of_month(), today.first_of_month().checked_add(1.month())?),
    };
    Ok(Span { start: first_moment(first, &zone)?, end: first_moment(next, &zone)? })
}

/// Not always 00:00: a zone may change its clocks at midnight.
fn first_moment(date: Date, zone: &TimeZone) -> Result<i64, jiff::Error> {
    Ok(date.to_zoned(zone.clone())?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_zone(unit: CalendarUnit, zone: &str) -> Window {
        Window::Calendar { unit, time_zone: zone.to_owned() }
    }

    fn span(window: &Window, now: &str) -> (String, String) {
        let span = at(window, now.parse().unwrap()).unwrap();
        let text = |second| Timestamp::from_second(second).unwrap().to_string();
        (text(span.start), text(span.end))
    }

    fn expect(window: &Window, now: &str, start: &str, end: &str) {
        assert_eq!(span(window, now), (start.to_owned(), end.to_owned()), "{window:?} at {now}");
    }

    #[test]
    fn fixed_windows_count_from_the_epoch() {
        let day = Window::Fixed(Duration::from_secs(86_400));
        expect(&day, "2026-11-22T06:37:11.9Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        let ninety = Window::Fixed(Duration::from_secs(5400));
        expect(&ninety, "1970-01-01T01:29:59Z", "1970-01-01T00:00:00Z", "1970-01-01T01:30:00Z");
        expect(&ninety, "1970-01-01T01:30:00Z", "1970-01-01T01:30:00Z", "1970-01-01T03:00:00Z");
        let whole = at(&Window::Fixed(Duration::ZERO), Timestamp::now()).unwrap();
        assert_eq!(whole, Span { start: 0, end: 0 });
    }

    #[test]
    fn calendar_windows_follow_the_zone() {
        use CalendarUnit::{Day, Month, Week};
        expect(&in_zone(Day, "UTC"), "2026-11-22T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        expect(&in_zone(Day, "Asia/Kolkata"), "2026-11-22T18:29:59Z", "2026-11-21T18:30:00Z", "2026-11-22T18:30:00Z");
        // Sunday 23:30 UTC is Monday in Berlin.
        expect(&in_zone(Week, "Europe/Berlin"), "2026-11-22T23:30:00Z", "2026-11-22T23:00:00Z", "2026-11-29T23:00:00Z");
        expect(&in_zone(Week, "UTC"), "2026-11-22T23:30:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        expect(
            &in_zone(Month, "America/New_York"),
            "2027-01-01T04:59:59Z",
            "2026-12-01T05:00:00Z",
            "2027-01-01T05:00:00Z",
        );
        expect(&in_zone(Month, "UTC"), "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
    }

    #[test]
    fn days_of_23_and_25_hours() {
        use CalendarUnit::{Day, Month};
        let berlin = in_zone(Day, "Europe/Berlin");
        expect(&berlin, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        expect(&berlin, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        expect(
            &in_zone(Month, "Europe/Berlin"),
            "2026-03-31T21:00:00Z",
            "2026-02-28T23:00:00Z",
            "2026-03-31T22:00:00Z",
        );
        // Midnight does not exist: clocks go from 00:00 to 01:00.
        expect(&in_zone(Day, "Asia/Beirut"), "2022-03-27T10:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z");
        // Midnight comes twice: clocks go from 01:00 back to 00:00.
        expect(&in_zone(Day, "America/Havana"), "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // A date that does not exist: Samoa went from the 29th to the 31st.
        expect(&in_zone(Day, "Pacific/Apia"), "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
    }

    #[test]
    fn an_unknown_zone_is_an_error_that_names_it() {
        let error = at(&in_zone(CalendarUnit::Day, "Mars/Olympus"), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("Mars/Olympus"), "{error}");
    }

    proptest! {
        /// Windows tile time: each moment is in one, and the next begins where it ends.
        #[test]
        fn windows_tile_time(
            second in 0i64..4_102_444_800,
            unit in prop_oneof![Just(CalendarUnit::Day), Just(CalendarUnit::Week), Just(CalendarUnit::Month)],
            zone in prop_oneof![
                Just("UTC"), Just("Europe/Berlin"), Just("America/New_York"), Just("America/Sao_Paulo"),
                Just("Asia/Beirut"), Just("America/Havana"), Just("Pacific/Apia"), Just("Australia/Lord_Howe"),
                Just("Asia/Kolkata"), Just("Africa/Casablanca"), Just("Asia/Tehran"), Just("Pacific/Kiritimati"),
            ],
            length in 1u64..10_000_000,
        ) {
            for window in [in_zone(unit, zone), Window::Fixed(Duration::from_secs(length))] {
                let at = |second| at(&window, Timestamp::from_second(second).unwrap()).unwrap();
                let span = at(second);
                prop_assert!(span.start <= second && second < span.end, "{window:?} {second} {span:?}");
                prop_assert_eq!(at(span.start.max(0)), span);
                prop_assert_eq!(at(span.end - 1), span);
                prop_assert_eq!(at(span.end).start, span.end);
            }
        }
    }
}
