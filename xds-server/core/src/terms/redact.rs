//! What of a user's text is repeated to people.
//!
//! Findings go to terminals, logs and pages, and a mistake in a file may be a key that was pasted where a name belongs.
//! So a wrong value is shown only if it reads like words. Otherwise its length is shown. Anything else that ends up in
//! a finding goes through [`scrub`], which takes out control characters and words that look like keys.

use std::fmt::{self, Write as _};

/// A wrong value in backticks, or its length if it might be a secret.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

/// The most characters that are shown, as many as a label of a hostname has. No honest mistake needs more.
const MAX_SHOWN: usize = 63;
/// Words of people and of APIs are shorter.
const MAX_LETTERS: usize = 20;
/// A port, a year, a size.
const MAX_DIGITS: usize = 6;
/// `gpt4`, `runner12`: a name and a number. `1h30m`, `v1beta1`: shorter than any key.
const MAX_NAME: usize = 16;
const MAX_NUMBER: usize = 3;
const MAX_MIXED: usize = 7;
/// A date and a time have 14.
const MAX_DIGITS_IN_ALL: usize = 14;
/// Letters and digits in one run of this length are what generators of keys make, and not generators of names.
const KEY_RUN: usize = 20;
/// How keys of well-known providers, and ours, begin.
const KEY_PREFIXES: [&str; 15] = [
    "sk-", "sk_", "pk-", "pk_", "rk-", "tg-", "gsk_", "xai-", "hf_", "ghp_", "glpat-", "akia", "aiza", "eyj", "bearer",
];
/// What follows such a beginning in a key is longer than what follows it in a name.
const KEY_REST: usize = 8;

// === impl Shown ===

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() || is_plain(self.0) { write!(f, "`{}`", self.0) } else { f.write_str(&length(self.0)) }
    }
}

/// The same without backticks, for names in front of a message.
pub fn plain(text: &str) -> String {
    if text.is_empty() || is_plain(text) || is_name(text) { text.to_owned() } else { length(text) }
}

/// A dotted path; a part of it may be a key of a map, which is the user's text.
pub fn path(field: &str) -> String {
    let parts: Vec<String> = field
        .split('.')
        .map(|part| {
            let (name, index) = part.split_at(part.find('[').unwrap_or(part.len()));
            // What an index looks like is ours; anything else is text.
            let is_index = index.bytes().all(|byte| byte.is_ascii_digit() || byte == b'[' || byte == b']');
            if is_index { format!("{}{index}", plain(name)) } else { plain(part) }
        })
        .collect();
    parts.join(".")
}

/// A sentence of ours or with valid names in it: without words that look like keys, and in one line.
pub fn scrub(sentence: &str) -> String {
    words(sentence, |word| !looks_like_a_key(word))
}

/// A sentence that a library made, perhaps of the user's text: nothing but words is left of it.
pub fn foreign(sentence: &str) -> String {
    words(sentence, |word| word.len() <= MAX_NAME && word.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Letters, digits and the characters within keys stay together; words that may not stay are replaced.
fn words(sentence: &str, may_stay: impl Fn(&str) -> bool) -> String {
    let mut text = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_of_a_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        if word.is_empty() || may_stay(word) {
            text.push_str(word);
        } else {
            text.push_str(&length(word));
        }
        let mut tail = tail.chars();
        match tail.next() {
            Some(c) if is_unsafe(c) => text.extend(c.escape_default()),
            Some(c) => text.push(c),
            None => {}
        }
        rest = tail.as_str();
    }
    text
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || "_-+=".contains(c)
}

/// It moves the cursor, colours the terminal or turns the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn length(text: &str) -> String {
    let mut shown = String::new();
    let _infallible = match text.chars().count() {
        1 => write!(shown, "<1 character>"),
        count => write!(shown, "<{count} characters>"),
    };
    shown
}

/// It is short, of ordinary characters, and made of words.
fn is_plain(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b" ./:_-*,".contains(&byte);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (1..=MAX_SHOWN).contains(&text.len())
        && text.bytes().all(ordinary)
        && digits <= MAX_DIGITS_IN_ALL
        && !text.split([' ', '/', ':', ',']).any(has_key_prefix)
        && text.split(|c: char| !c.is_ascii_alphanumeric()).all(is_wordlike)
}

/// A valid name of an object is no secret by itself: it is in metrics and resources too.
fn is_name(text: &str) -> bool {
    super::names::is_dns_subdomain(text) && !looks_like_a_key(text)
}

fn is_wordlike(word: &str) -> bool {
    let letters = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (name, number) = word.split_at(letters);
    if number.is_empty() {
        return name.len() <= MAX_LETTERS && has_few_turns(name);
    }
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    match (name, digits) {
        ("", true) => number.len() <= MAX_DIGITS,
        (_, true) if number.len() <= MAX_NUMBER => name.len() <= MAX_NAME && has_few_turns(name),
        _ => word.len() <= MAX_MIXED,
    }
}

/// `BackendTLSPolicy` turns from capital to small letters and back now and then, a random text all the time.
fn has_few_turns(word: &str) -> bool {
    let turns = word
        .as_bytes()
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.is_ascii_uppercase() != b.is_ascii_uppercase()));
    turns.count() <= 2 + word.len() / 4
}

fn has_key_prefix(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    KEY_PREFIXES.iter().any(|prefix| lower.strip_prefix(prefix).is_some_and(|rest| rest.len() >= KEY_REST))
}

/// A long run of letters and digits, or the beginning of a known kind of key with something behind it that is
/// no word.
fn looks_like_a_key(word: &str) -> bool {
    let runs = || word.split(|c: char| !c.is_alphanumeric());
    let random = |run: &str| {
        let digits = run.chars().filter(char::is_ascii_digit).count();
        let letters = run.chars().count() - digits;
        run.len() >= KEY_RUN && digits > 0 && letters > 0 || run.len() > MAX_LETTERS && !has_few_turns(run)
    };
    runs().any(random) || has_key_prefix(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn honest_mistakes_are_shown() {
        for value in [
            "1 hour",
            "OpenApi",
            "spec",
            "A b",
            "gpt-*-x",
            "v1beta1",
            "smollm2-135m",
            "*.a.*.com",
            "HTTPRuote",
            "",
            "tollgate.io/v1",
            "127.0.0.1",
            "OPENAI_API_KEY",
            "./keys/openai.txt",
            "BackendTLSPolicy",
            "2027-13-01",
        ] {
            assert_eq!(Shown(value).to_string(), format!("`{value}`"));
        }
        let sentence = "HTTPRoute default/chat-7f9c6d5b4-x2x9k is refused, see sk-runner";
        assert_eq!(scrub(sentence), sentence);
        assert_eq!(path("spec.models[0].targets[12].wieght"), "spec.models[0].targets[12].wieght");
        assert_eq!(
            plain("a-very-long-name-of-a-service-that-is-valid-though.example-of-a-namespace.example"),
            "a-very-long-name-of-a-service-that-is-valid-though.example-of-a-namespace.example"
        );
    }

    const KEYS: [&str; 9] = [
        "sk-proj-Zk3vT0aQ1bX9cR7dW5eY",
        "sk-ant-api03-abcdefghijklmnop",
        "tg-PLANTED-key-pasted-by-mistake",
        "gsk_abcdefghijklmnopqrst",
        "9f86d081884c7d659a2feaa0c55ad015",
        "3f2504e04f8911d39a0c0305e82c3301",
        "AIzaSyA1234567890abcdefghijk",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "QWxhZGRpbjpvcGVuIHNlc2FtZQxxYYzzWWqq",
    ];

    #[test]
    fn keys_are_not_repeated() {
        for key in KEYS {
            let characters = key.chars().count();
            assert_eq!(Shown(key).to_string(), format!("<{characters} characters>"));
            assert!(!scrub(&format!("Secret default/{key} does not exist")).contains(key), "{key}");
            assert!(!foreign(&format!("duplicate mapping key: {key}")).contains(key), "{key}");
            assert!(!path(&format!("spec.{key}[0]")).contains(key), "{key}");
        }
        for odd in ["Bearer abcdefgh12345678", "pass word!", "a`b", "say \"hi\"", "tab\there", "\u{1b}[31m"] {
            assert!(Shown(odd).to_string().starts_with('<'), "{odd}");
        }
        assert_eq!(scrub("a\nb\u{1b}[0m\u{202e}"), "a\\nb\\u{1b}[0m\\u{202e}");
    }

    proptest! {
        #[test]
        fn random_keys_are_not_repeated(key in "[A-Za-z0-9]{24,60}") {
            prop_assert!(!scrub(&key).contains(&key) || key.bytes().all(|b| b.is_ascii_alphabetic()));
            prop_assert!(!Shown(&key).to_string().contains(&key));
        }

        #[test]
        fn one_line_whatever_comes(text in any::<String>()) {
            prop_assert!(!scrub(&text).chars().any(char::is_control));
            prop_assert!(!path(&text).chars().any(char::is_control));
            prop_assert!(!plain(&text).chars().any(char::is_control));
        }
    }
}
