//! Whose calls were refused a moment ago. A proxy whose Gateway is gone comes again every second, and one line of it tells as
//! much as sixty.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The same is recorded again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// So many are remembered. Whoever comes beyond that is recorded when there is room.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Recent(BTreeMap<String, Instant>);

// === impl Recent ===

impl Recent {
    /// Whether this was not recorded a moment ago. From now on it was.
    pub fn is_news(&mut self, identity: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        let is_news = !self.0.contains_key(identity) && self.0.len() < MOST;
        if is_news {
            self.0.insert(identity.to_owned(), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_news_once_in_a_minute() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let almost = start + AGAIN - Duration::from_millis(1);
        let told =
            [(start, "a"), (start, "a"), (almost, "a"), (almost, "b"), (start + AGAIN, "a"), (start + AGAIN, "b")];
        let news: Vec<_> = told.into_iter().filter(|(now, who)| recent.is_news(who, *now)).collect();
        assert_eq!(news, [(start, "a"), (almost, "b"), (start + AGAIN, "a")]);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let news = (0..MOST + 10).filter(|number| recent.is_news(&number.to_string(), start)).count();
        assert_eq!((news, recent.0.len()), (MOST, MOST));
        assert!(recent.is_news("another", start + AGAIN));
        assert_eq!(recent.0.len(), 1);
    }
}
