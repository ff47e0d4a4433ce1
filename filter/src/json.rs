//! JSON text: a strict reader that never builds a tree, and quoting. Requests are read in one pass, with spans, so that
//! a rewritten body stays byte for byte the same around the edit.
//!
//! It is our own and not a library's because the filter's code is compiled anew at every start of Envoy, and this is a
//! fifth of the size. It must accept exactly RFC 8259; tests hold it against serde_json.

/// Why a text is refused, and where that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid {
    pub at: usize,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not JSON.
    Syntax,
    /// It is nested deeper than the reader was told to go.
    TooDeep,
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'t> {
    pub inner: &'t [u8],
    pub has_escapes: bool,
}

/// A value as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'t> {
    pub text: &'t [u8],
    pub start: usize,
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    /// How deep objects and arrays may be nested in a value.
    levels: usize,
}

/// Hands over each member of the object that the text is. Nothing may follow the object.
pub fn members<'t>(text: &'t [u8], member: impl FnMut(Text<'t>, Raw<'t>)) -> Result<(), Invalid> {
    shallow_members(text, usize::MAX, member)
}

/// The same, but the text is refused if it is nested deeper than `levels`. The object itself is the first.
pub fn shallow_members<'t>(
    text: &'t [u8],
    levels: usize,
    mut member: impl FnMut(Text<'t>, Raw<'t>),
) -> Result<(), Invalid> {
    let mut reader = Reader { text, at: 0, levels: levels.saturating_sub(1) };
    reader.space();
    reader.expect(b'{')?;
    reader.space();
    if !reader.skip(b'}') {
        loop {
            let key = reader.key()?;
            let value = reader.value()?;
            member(key, value);
            reader.space();
            if !reader.skip(b',') {
                break;
            }
        }
        reader.expect(b'}')?;
    }
    reader.space();
    if reader.at == text.len() { Ok(()) } else { Err(reader.invalid()) }
}

/// Appends a string with its quotes.
pub fn quote(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

/// How much of a text is the plain content of a string. It ends at a quote, a backslash or a control character. Most of
/// what is read is such content, so eight bytes are looked at together.
pub fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS;
    let (words, rest) = text.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let ends =
            below(word, b' ') | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if ends != 0 {
            // The lowest bit is exact; a borrow can only set those above it.
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + rest.iter().position(|byte| matches!(byte, ..b' ' | b'"' | b'\\')).unwrap_or(rest.len())
}

// === impl Text ===

impl<'t> Text<'t> {
    /// What the string means. None: it is not UTF-8, or it has half of a surrogate pair, which parsers read in
    /// different ways.
    pub fn decode(&self) -> Option<String> {
        let text = std::str::from_utf8(self.inner).ok()?;
        if !self.has_escapes {
            return Some(text.to_owned());
        }
        let mut decoded = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            if char != '\\' {
                decoded.push(char);
                continue;
            }
            decoded.push(match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let unit = hex4(&mut chars)?;
                    let scalar = match unit {
                        0xd800..0xdc00 => {
                            (chars.next()? == '\\' && chars.next()? == 'u').then_some(())?;
                            let low = hex4(&mut chars).filter(|low| (0xdc00..0xe000).contains(low))?;
                            0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                        }
                        unit => unit,
                    };
                    char::from_u32(scalar)?
                }
                other => other,
            });
        }
        Some(decoded)
    }
}

fn hex4(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + hex_digit(chars)?))
}

// Once for all four, because it is code of every Envoy.
#[inline(never)]
fn hex_digit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    chars.next()?.to_digit(16)
}

// === impl Raw ===

impl<'t> Raw<'t> {
    /// Where it stands in the text that it was read from.
    pub fn span(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub fn as_text(&self) -> Option<Text<'t>> {
        let inner = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(Text { inner, has_escapes: memchr::memchr(b'\\', inner).is_some() })
    }

    /// A number that is not negative, without its fraction. One that is written with an exponent does not count.
    pub fn as_number(&self) -> Option<u64> {
        let text = std::str::from_utf8(self.text).ok()?;
        match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => whole.parse().ok(),
            Some(_) => None,
            None => text.parse().ok(),
        }
    }

    /// A count, written in digits only. One that does not fit into a `u64` counts as the largest that does.
    pub fn as_count(&self) -> Option<u64> {
        self.text.iter().try_fold(0u64, |count, byte| {
            let digit = char::from(*byte).to_digit(10)?;
            Some(count.saturating_mul(10).saturating_add(u64::from(digit)))
        })
    }

    pub fn is_object(&self) -> bool {
        self.text.starts_with(b"{")
    }

    /// Hands over each item, if the value is an array.
    pub fn items(&self, mut item: impl FnMut(Raw<'t>)) {
        let mut reader = Reader { text: self.text, at: 0, levels: usize::MAX };
        if reader.skip(b'[') {
            // It was read before, so the first fault is the end of an empty array.
            while let Ok(value) = reader.value() {
                item(value);
                reader.space();
                if !reader.skip(b',') {
                    break;
                }
            }
        }
    }

    pub fn is_empty_array(&self) -> bool {
        let inner = self.text.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]"));
        inner.is_some_and(|inner| inner.trim_ascii().is_empty())
    }
}

// === impl Reader ===

impl<'t> Reader<'t> {
    fn invalid(&self) -> Invalid {
        Invalid { at: self.at, why: Why::Syntax }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.skip(byte) { Ok(()) } else { Err(self.invalid()) }
    }

    fn key(&mut self) -> Result<Text<'t>, Invalid> {
        self.space();
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(key)
    }

    fn string(&mut self) -> Result<Text<'t>, Invalid> {
        self.expect(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at += plain_length(self.text.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(0x20..) => {}
                Some(_) | None => return Err(self.invalid()),
            }
            if self.skip(b'"') {
                let inner = self.text.get(start..self.at - 1).unwrap_or_default();
                return Ok(Text { inner, has_escapes });
            }
            has_escapes = true;
            self.at += 1;
            match self.peek() {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                Some(b'u') => {
                    let digits = self.text.get(self.at + 1..self.at + 5);
                    if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                        return Err(self.invalid());
                    }
                    self.at += 5;
                }
                _ => return Err(self.invalid()),
            }
        }
    }

    /// Opens one more object or array, where so many are open.
    fn enter(&self, open: usize) -> Result<(), Invalid> {
        if open < self.levels { Ok(()) } else { Err(Invalid { at: self.at, why: Why::TooDeep }) }
    }

    /// Reads any value. What is open is kept as the brackets that close it, so each level costs a byte.
    fn value(&mut self) -> Result<Raw<'t>, Invalid> {
        self.space();
        let start = self.at;
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    self.enter(open.len())?;
                    self.at += 1;
                    self.space();
                    if !self.skip(b'}') {
                        self.key()?;
                        open.push(b'}');
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(open.len())?;
                    self.at += 1;
                    self.space();
                    if !self.skip(b']') {
                        open.push(b']');
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => self.word()?,
            }
            loop {
                let Some(close) = open.last().copied() else {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    return Ok(Raw { text, start });
                };
                self.space();
                if self.skip(b',') {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                self.expect(close)?;
                open.pop();
            }
        }
    }

    fn word(&mut self) -> Result<(), Invalid> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        self.at += word.ok_or(self.invalid())?.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Invalid> {
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _ = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.invalid()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Accepts what serde_json accepts as an object.
    fn agrees(text: &str) {
        let theirs = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
        let ours = members(text.as_bytes(), |_, _| {}).is_ok();
        // Of serde_json's own limits: lone surrogates, numbers beyond f64 and depth.
        if theirs != ours {
            let error = serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
            let lenient = error.as_ref().is_err_and(|error| {
                ["surrogate", "number out of range", "recursion limit", "unexpected end of hex escape"]
                    .iter()
                    .any(|known| error.contains(known))
            });
            assert!(ours && lenient, "{text:?}: ours {ours}, theirs {error:?}");
        }
    }

    #[test]
    fn the_plain_part_ends_where_a_byte_by_byte_reader_ends_it() {
        let ends = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        for byte in 0..=u8::MAX {
            for next in [b'a', b'"', b'!', b'#', 0x1f, 0x20, 0x21, 0x80, 0xff, 0] {
                for at in 0..20 {
                    let mut text = [b'x'; 22];
                    text[at] = byte;
                    text[at + 1] = next;
                    assert_eq!(plain_length(&text), text.iter().position(ends).unwrap_or(22), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn the_grammar_is_that_of_the_standard() {
        for value in [
            "1",
            "-0",
            "01",
            "1.",
            ".5",
            "1e5",
            "1E+5",
            "1e",
            "-",
            "+1",
            "1.5e-3",
            "\"\"",
            "\"\\u00e9\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "\"\u{7f}\"",
            "true",
            "tru",
            "True",
            "null",
            "nul",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[[[]]]",
            "{\"a\":{}}",
            "{\"a\" 1}",
            "{a:1}",
            "{,}",
            "{\"a\":1,}",
            "[}",
            "\"",
            "\"\\",
            "",
            "\u{a0}1",
            "\u{c}1",
        ] {
            for text in [format!("{{\"k\":{value}}}"), format!(" {{ \"k\" : {value} , \"l\" : 0 }} "), value.to_owned()]
            {
                agrees(&text);
            }
        }
        for text in ["{}", "{} x", "{}{}", "\u{feff}{}", "{\"k\":1}}", "{\"k\":1", "{\"k\"}", "{\"k\":}"] {
            agrees(text);
        }
    }

    #[test]
    fn depth_has_the_limit_that_is_asked_for() {
        let deep = |levels: usize| format!("{{\"k\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(members(deep(100_000).as_bytes(), |_, _| {}).is_ok());
        for (levels, taken) in [(2, true), (128, true), (129, false), (100_000, false)] {
            let read = shallow_members(deep(levels).as_bytes(), 128, |_, _| {});
            let too_deep = read.is_err_and(|invalid| invalid.why == Why::TooDeep);
            assert_eq!((read.is_ok(), too_deep), (taken, !taken), "{levels}");
        }
        let objects = format!("{}1{}", "{\"k\":".repeat(129), "}".repeat(129));
        assert!(shallow_members(objects.as_bytes(), 128, |_, _| {}).is_err());
        let wide = format!("{{\"k\":[{}[]]}}", "[],{},".repeat(1000));
        assert!(shallow_members(wide.as_bytes(), 3, |_, _| {}).is_ok(), "only what is open at once counts");
    }

    #[test]
    fn items_are_those_of_the_array() {
        let items = |text: &str| {
            let mut items = Vec::new();
            let raw = Raw { text: text.as_bytes(), start: 0 };
            raw.items(|item| items.push(String::from_utf8(item.text.to_vec()).unwrap()));
            items
        };
        assert_eq!(items("[ 1, \"a,b\" ,[2,[3]],{} ]"), ["1", "\"a,b\"", "[2,[3]]", "{}"]);
        for none in ["[]", "[ ]", "{\"a\":1}", "\"[1]\"", "7"] {
            assert!(items(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn strings_mean_what_they_say() {
        let decode = |inner: &str| Text { inner: inner.as_bytes(), has_escapes: true }.decode();
        assert_eq!(decode(r"a\n\u00e9\ud83d\ude00\/").as_deref(), Some("a\né😀/"));
        for half in [r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00"] {
            assert_eq!(decode(half), None, "{half}");
        }
    }

    #[test]
    fn numbers_are_whole() {
        for (text, number) in [("7", Some(7)), ("7.9", Some(7)), ("-7", None), ("1e3", None), ("null", None)] {
            assert_eq!(Raw { text: text.as_bytes(), start: 0 }.as_number(), number, "{text}");
        }
    }

    #[test]
    fn counts_are_digits_alone() {
        for (text, count) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("18446744073709551616", Some(u64::MAX)),
            ("-7", None),
            ("7.0", None),
            ("1e3", None),
            ("\"7\"", None),
            ("null", None),
        ] {
            assert_eq!(Raw { text: text.as_bytes(), start: 0 }.as_count(), count, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_as_others_take_it(text in "[\\{\\}\\[\\]\",:a\\\\u0-9eE.+\\- \\ntrufalsn]{0,24}") {
            agrees(&text);
            agrees(&format!("{{\"k\":{text}}}"));
        }

        #[test]
        fn quoted_text_is_read_back(text in any::<String>()) {
            let mut quoted = Vec::new();
            quote(&text, &mut quoted);
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text.clone());
            let object = [b"{\"k\":".as_slice(), &quoted, b"}"].concat();
            let mut read = None;
            members(&object, |_, value| read = value.as_text().and_then(|text| text.decode())).unwrap();
            prop_assert_eq!(read, Some(text));
        }
    }
}
