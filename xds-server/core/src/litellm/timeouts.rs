//! LiteLLM's timeouts as those of a ModelBackend. LiteLLM gives `timeout` to an HTTP client that bounds every wait for bytes
//! by it. So it bounds the answer as a whole where that comes at once, and every silence where it is streamed.

use std::time::Duration;

use super::notes::Notes;
use super::section::Section;

/// As they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Timeouts {
    pub(super) timeout: Option<Duration>,
    /// In place of `timeout` for answers that are streamed.
    pub(super) stream: Option<Duration>,
}

/// The longest that a ModelBackend takes.
const MAX: Duration = Duration::from_secs(86_400);

// === impl Timeouts ===

impl Timeouts {
    pub(super) fn take(section: &mut Section, notes: &mut Notes) -> Self {
        let timeout = duration(section, "timeout", notes);
        let path = section.at("stream_timeout");
        let stream = duration(section, "stream_timeout", notes);
        if stream.is_some() && stream != timeout {
            let message = "taken as the longest silence within a stream: a stream may begin as late as another answer";
            notes.told(&path, message, "spec.timeouts.firstToken of the ModelBackend bounds both");
        }
        Self { timeout, stream }
    }

    /// These, and for what they do not say those.
    pub(super) fn or(self, other: Self) -> Self {
        Self { timeout: self.timeout.or(other.timeout), stream: self.stream.or(other.stream) }
    }

    pub(super) fn first_token(self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn idle(self) -> Option<Duration> {
        self.stream.or(self.timeout)
    }
}

/// Seconds.
pub(super) fn duration(section: &mut Section, field: &str, notes: &mut Notes) -> Option<Duration> {
    let seconds = section.number(field, notes)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration > MAX => {
            notes.told(&section.at(field), "a day is taken in its place", "no timeout of ours is longer");
            Some(MAX)
        }
        Ok(duration) if duration >= Duration::from_millis(1) => {
            Some(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
        }
        Ok(_) | Err(_) => {
            notes.invalid(&section.at(field), "a timeout of nothing", "leave the field out for the default");
            None
        }
    }
}
