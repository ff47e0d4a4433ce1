//! What went wrong, with all of its causes: the text of an error of a connection says only that something failed.

use std::error::Error;

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

#[cfg(test)]
mod tests {
    use super::*;

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
