//! What went wrong, with all of its causes: the text of an error of a connection says only that something failed. And whether
//! it was said already, for what is tried again and again.

use std::error::Error;

/// What was said last of something that may fail many times for the same reason.
#[derive(Debug, Default)]
pub struct SaidOnce(String);

/// The text of an error and those of its causes, each once.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

// === impl SaidOnce ===

impl SaidOnce {
    /// Whether this is to be said: it is not what was said last.
    pub fn is_new(&mut self, text: &str) -> bool {
        let is_new = self.0 != text;
        if is_new {
            text.clone_into(&mut self.0);
        }
        is_new
    }

    /// It went well, so the same trouble would be news.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_until_it_went_well() {
        let mut said = SaidOnce::default();
        assert_eq!(["a", "a", "b", "a"].map(|text| said.is_new(text)), [true, false, true, true]);
        said.forget();
        assert!(said.is_new("a"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Wrong {
        text: &'static str,
        source: Option<Box<Wrong>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let wrong = |text, source: Option<Wrong>| Wrong { text, source: source.map(Box::new) };
        let refused = || wrong("refused", None);
        assert_eq!(of(&refused()), "refused");
        assert_eq!(of(&wrong("no connection", Some(refused()))), "no connection: refused");
        assert_eq!(of(&wrong("refused", Some(refused()))), "refused");
        assert_eq!(
            of(&wrong("failed", Some(wrong("no connection", Some(refused()))))),
            "failed: no connection: refused"
        );
    }
}
