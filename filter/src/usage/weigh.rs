//! How large a request is before anybody counts its tokens: the bytes of its words, and whether it refers to what is
//! not in it. One cheap pass over each body finds that, and [`super::habits`] turns it into tokens.

use memchr::{memchr, memchr2};

/// A request, weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weighed {
    /// Letters, digits and what is beyond ASCII. Of anything else, only what is more than usual.
    pub content_bytes: u64,
    /// It has pictures, sounds, files, or a conversation that the backend keeps: tokens that no byte shows.
    pub refers_elsewhere: bool,
    /// It is words, mostly. A body of padding teaches nothing.
    pub is_plain: bool,
}

/// Spaces, punctuation and JSON are usual up to the words' bytes divided by this. So much belongs to the words' tokens.
const USUAL_REST: u64 = 2;
/// The least bytes of a string that may be encoded data.
const MIN_BLOB: usize = 256;
/// How many encoded bytes count as a token. A picture of 1 MB is about a thousand tokens, but text that only looks like
/// a picture must not be free.
const BLOB_BYTES: u64 = 16;
/// Within so many bytes of its start, a `data:` URI says that its data is in Base64.
const URI_START: usize = 128;

// === impl Weighed ===

impl Weighed {
    /// Weighs a form. What it has is a file.
    pub fn of_form() -> Self {
        Self { refers_elsewhere: true, ..Self::default() }
    }

    /// Weighs a JSON body.
    pub fn of(body: &[u8]) -> Self {
        let mut words = words(body);
        let mut rest_bytes = body.len() as u64 - words;
        let mut refers_elsewhere = false;
        let mut rest = body;
        let mut before: &[u8] = b"";
        while let Some((text, has_escapes, behind)) = next_string(rest) {
            rest = behind;
            if text.len() >= MIN_BLOB && holds_blob(before) && is_blob(text) {
                let in_blob = self::words(text);
                words = words - in_blob + text.len() as u64 / BLOB_BYTES;
                rest_bytes -= text.len() as u64 - in_blob;
                refers_elsewhere = true;
            } else if !refers_elsewhere {
                // A name that is written with escapes may be any name.
                refers_elsewhere = refers(text, behind) || (has_escapes && is_key(behind));
            }
            before = text;
        }
        Self {
            content_bytes: words + rest_bytes.saturating_sub(words / USUAL_REST),
            refers_elsewhere,
            is_plain: rest_bytes <= words,
        }
    }
}

/// The next string, whether it has escapes, and what is behind it.
fn next_string(text: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let start = memchr(b'"', text)? + 1;
    let text = text.get(start..)?;
    let mut at = 0;
    let mut has_escapes = false;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some((text.get(..at)?, has_escapes, text.get(at + 1..)?));
        }
        has_escapes = true;
        at += 2;
    }
}

fn is_key(behind: &[u8]) -> bool {
    behind.trim_ascii_start().first() == Some(&b':')
}

/// Whether a text is the name of a field or of a kind of part that stands for tokens elsewhere.
fn refers(text: &[u8], behind: &[u8]) -> bool {
    match text {
        b"image_url"
        | b"input_image"
        | b"image"
        | b"images"
        | b"input_audio"
        | b"audio"
        | b"document"
        | b"source"
        | b"file"
        | b"file_id"
        | b"file_ids"
        | b"file_url"
        | b"file_data"
        | b"input_file"
        | b"fileData"
        | b"inlineData"
        | b"inline_data"
        | b"cachedContent"
        | b"previous_response_id"
        | b"conversation"
        | b"item_reference"
        | b"container"
        | b"container_id"
        | b"vector_store_ids"
        | b"mcp_servers" => true,
        b"prompt" => behind
            .trim_ascii_start()
            .strip_prefix(b":")
            .is_some_and(|value| value.trim_ascii_start().first() == Some(&b'{')),
        _ => false,
    }
}

/// Whether a field's value may be data that no model reads as text.
fn holds_blob(name: &[u8]) -> bool {
    matches!(name, b"url" | b"image_url" | b"file_data" | b"data" | b"image" | b"bytes" | b"b64_json")
}

/// Whether a text is Base64, by itself or in a `data:` URI.
fn is_blob(text: &[u8]) -> bool {
    let start = text.get(..URI_START).unwrap_or(text);
    let kind = b";base64,";
    let encoded = start.windows(kind.len()).position(|part| part == kind).and_then(|at| text.get(at..)).unwrap_or(text);
    words(encoded) * 16 >= encoded.len() as u64 * 15 && encoded.iter().all(u8::is_ascii)
}

/// How many bytes belong to words.
#[inline(never)]
fn words(text: &[u8]) -> u64 {
    // Compilers make vectors of sums in bytes. A lane is so short that its sum cannot overflow.
    const LANE: usize = 240;
    let is_word = |byte: &u8| (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'0') < 10 || *byte >= 0x80;
    text.chunks(LANE).map(|lane| u64::from(lane.iter().map(|byte| u8::from(is_word(byte))).sum::<u8>())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Weighed {
        Weighed::of(body.as_bytes())
    }

    #[test]
    fn words_weigh_and_padding_does_not_teach() {
        let words = "some words of a request, as people write them. ".repeat(40);
        let plain = of(&format!(r#"{{"model":"smol","messages":[{{"role":"user","content":"{words}"}}]}}"#));
        assert!(plain.is_plain && !plain.refers_elsewhere);
        assert!((1440..1640).contains(&plain.content_bytes), "{plain:?}");
        for padding in [" ", "\\n", ".", "\t"] {
            let padded = of(&format!(r#"{{"model":"smol","messages":"{words}{}"}}"#, padding.repeat(100_000)));
            assert!(padded.content_bytes >= plain.content_bytes, "nothing is free: {padded:?}");
            assert_eq!(padded.is_plain, padding == "\\n", "{padding:?}");
        }
        assert_eq!(of("{}"), Weighed { content_bytes: 2, refers_elsewhere: false, is_plain: false });
    }

    #[test]
    fn what_is_elsewhere_is_seen() {
        for body in [
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#,
            r#"{"input":"go on","previous_response_id":"resp_1"}"#,
            r#"{"input":"go on","conversation":"conv_1"}"#,
            r#"{"prompt": {"id":"pmpt_1"}}"#,
            r#"{"input":[{"type":"input_file","file_id":"file-1"}]}"#,
            r#"{"input":[{"type":"input_file","file\u005fid":"file-1"}]}"#,
            r#"{"messages":[{"content":[{"type":"input_audio","input_audio":{"data":"x"}}]}]}"#,
        ] {
            assert!(of(body).refers_elsewhere, "{body}");
        }
        for body in [
            r#"{"prompt":"an image_url of a \"file_id\"","model":"smol"}"#,
            r#"{"messages":[{"content":"conversation\u005f"}]}"#,
            r#"{"messages":"not closed"#,
            "",
        ] {
            assert!(!of(body).refers_elsewhere, "{body}");
        }
        assert!(Weighed::of_form().refers_elsewhere);
    }

    #[test]
    fn pictures_are_no_text_and_text_is_no_picture() {
        let picture = "iVBORw0KGgo/AAAAnNSUhEUgAA".repeat(4000);
        let body = |name: &str, value: &str| of(&format!(r#"{{"content":[{{"{name}":"{value}"}}]}}"#));
        let seen = body("url", &format!("data:image/png;base64,{picture}"));
        assert!(seen.refers_elsewhere && (6400..6800).contains(&seen.content_bytes), "{seen:?}");
        for (name, value) in [("text", picture.as_str()), ("url", &"plain words, not a picture. ".repeat(4000))] {
            let read = body(name, value);
            assert!(read.content_bytes > 80_000, "{name}: {read:?}");
        }
    }
}
