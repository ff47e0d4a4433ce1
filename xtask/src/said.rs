//! What tests and steps said that failed: told when they fail, and repeated at the end of all output. Both are bounded, and
//! the log has the rest.

use std::fmt::Write as _;

/// The most lines of one that are told. Its last ones say why it failed.
pub const OF_ONE: usize = 60;
/// The most lines that are repeated at the end.
const OF_ALL: usize = 400;
/// The most characters of a line.
const WIDTH: usize = 2_000;

/// The lines of one that failed.
pub struct Said {
    name: String,
    lines: Vec<String>,
}

// === impl Said ===

impl Said {
    pub fn new(name: &str, text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Self { name: name.to_owned(), lines: lines.map(|line| line.chars().take(WIDTH).collect()).collect() }
    }

    /// Its last lines, below its name.
    pub fn at_most(&self, lines: usize) -> String {
        let left_out = self.lines.len().saturating_sub(lines);
        let mut text = format!("    {}:\n", self.name);
        if left_out > 0 {
            let _ = writeln!(text, "        ({left_out} lines before these are in the log)");
        }
        for line in self.lines.iter().skip(left_out) {
            let _ = writeln!(text, "        {line}");
        }
        text
    }
}

/// What each failed test printed. Cargo's test runners repeat it at their end below `---- NAME stdout ----`; some leave
/// `stdout` out.
pub fn by_failed_tests(log: &str) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut is_said = false;
    for line in log.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            said.push(Said::new(name.trim_end_matches(" stdout"), ""));
            is_said = true;
        } else if line == "failures:" {
            is_said = false;
        } else if let Some(last) = said.last_mut().filter(|_| is_said) {
            last.lines.extend(Said::new("", line).lines);
        }
    }
    said
}

/// The same of all that failed, each with as many lines as all of them leave it.
pub fn repeated(said: &[Said]) -> String {
    if said.is_empty() {
        return String::new();
    }
    // A name takes a line, and so does a word about what is left out.
    let each = (OF_ALL / said.len()).saturating_sub(2).clamp(1, OF_ONE);
    let told = said.len().min(OF_ALL / 3);
    let mut text = "\nwhat failed said:\n".to_owned();
    text.extend(said.iter().take(told).map(|said| said.at_most(each)));
    if told < said.len() {
        let _ = writeln!(text, "    ({} more are in the logs)", said.len() - told);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_tests_said_is_found() {
        let log = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b ----\nleft: 1\n\n  right: 2\n\n\
                   failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\
                   failures:\n\n---- c::d stdout ----\nno\n\nfailures:\n    c::d\n";
        let said: String = by_failed_tests(log).iter().map(|said| said.at_most(OF_ONE)).collect();
        assert_eq!(said, "    b:\n        left: 1\n          right: 2\n    c::d:\n        no\n");
    }

    #[test]
    fn the_last_lines_of_a_long_message_are_told() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let said = Said::new("b", &text).at_most(OF_ONE);
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(lines.get(..3), Some(&["b:", "(40 lines before these are in the log)", "line 40"][..]));
        assert_eq!((lines.len(), lines.last()), (OF_ONE + 2, Some(&"line 99")));
        assert!(Said::new("b", &"x".repeat(100_000)).at_most(1).len() < WIDTH + 100);
    }

    #[test]
    fn what_is_repeated_is_bounded_and_names_all_that_it_can() {
        assert_eq!(repeated(&[]), "");
        let text = "line\n".repeat(100);
        for (failed, told) in [(1, 1), (7, 7), (40, 40), (100, 100), (1_000, 133)] {
            let said: Vec<Said> = (0..failed).map(|number| Said::new(&format!("test_{number}"), &text)).collect();
            let repeated = repeated(&said);
            assert!(repeated.lines().count() <= OF_ALL + 3, "{failed}: {}", repeated.lines().count());
            assert_eq!(repeated.matches("test_").count(), told, "{failed}");
        }
    }
}
