//! The model in a multipart form (audio, images). The parts are found by their boundary, and only the field `model` is
//! read.
//!
//! Form parsers are lenient, each in its own way. Text before the first boundary, spaces around `=`, `name*=`, folded
//! lines and quoted pairs make a second `model` for one parser and none for the next. So a form is taken only in the
//! one spelling that clients write. tests/forms compares this with the parsers of Python, Go and Node.js: a form that
//! is taken here has the same model there.

use std::ops::Range;

use thiserror::Error;

use super::{AnswerMode, Asked, InvalidName, ModelForm, all, check_name, find::find, same};

/// The most parts of a form. No API of today has so many.
const MAX_PARTS: usize = 256;
/// The longest boundary in bytes, by RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;
/// The longest header of a part, in bytes. Parsers have limits of their own, from 4 KiB on.
const MAX_LINE: usize = 1024;
/// The longest name of a field, in bytes. Some parsers cut longer ones.
const MAX_FIELD: usize = 64;

const MODEL: &[u8] = b"model";
/// The field by which a form says how its other fields are encoded.
const CHARSET: &[u8] = b"_charset_";
/// The content types with which every parser takes a field for text.
const TEXT: [&[u8]; 3] = [b"text/plain", b"text/plain; charset=utf-8", b"text/plain;charset=utf-8"];

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Field,
    File,
}

/// What separates the parts, with the two dashes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(Vec<u8>);

#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidForm {
    #[error("the form does not begin with its boundary")]
    Start,
    #[error("the form is broken: a part does not end, or has the boundary in its middle")]
    Broken,
    #[error("something follows the end of the form")]
    AfterEnd,
    #[error("the form has too many parts")]
    TooManyParts,
    #[error(
        "a part of the form must have one header `Content-Disposition: form-data; name=\"...\"`, with \
        `; filename=\"...\"` for a file, and beside it a Content-Type alone"
    )]
    Head,
    #[error("the form has no field \"model\"; name the model to use")]
    NoModel,
    #[error("the form has more than one field \"model\"")]
    Twice,
    #[error("a field of the form is another spelling of \"model\"; write it exactly so")]
    Spelling,
    #[error("the field \"model\" must be plain text in UTF-8")]
    NotText,
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// The headers that a part may have.
const HEADERS: [&[u8]; 4] =
    [b"content-disposition: ", b"content-type: ", b"content-length: ", b"content-transfer-encoding: "];

/// The values of a part's headers, in the order of [`HEADERS`].
type Head<'b> = [Option<&'b [u8]>; 4];

/// Reads the model's name. `stream` fields of forms are left to the backend.
pub fn read<'b>(boundary: &Boundary, body: &'b [u8]) -> Result<Asked<'b>, InvalidForm> {
    let delimiter = boundary.0.as_slice();
    if !body.starts_with(delimiter) {
        return Err(InvalidForm::Start);
    }
    let mut at = delimiter.len();
    let mut model = None;
    // One round more than there may be parts, for the end.
    for _ in 0..=MAX_PARTS {
        let rest = body.get(at..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix(b"--") {
            if !matches!(after, b"" | b"\r\n") {
                return Err(InvalidForm::AfterEnd);
            }
            return asked(body, model.ok_or(InvalidForm::NoModel)?);
        }
        let mut head = Head::default();
        let mut after = rest.strip_prefix(b"\r\n").ok_or(InvalidForm::Broken)?;
        let content = loop {
            let end = memchr::memchr(b'\n', after).ok_or(InvalidForm::Broken)?;
            let (line, next) = after.split_at_checked(end + 1).ok_or(InvalidForm::Broken)?;
            if line == b"\r\n" {
                break next;
            }
            note(line, &mut head).ok_or(InvalidForm::Head)?;
            after = next;
        };
        let length = find(content, delimiter).ok_or(InvalidForm::Broken)?;
        // A boundary must stand on a line of its own. Parsers disagree about any other.
        let value =
            content.get(..length).and_then(|content| content.strip_suffix(b"\r\n")).ok_or(InvalidForm::Broken)?;
        let start = body.len() - content.len();
        if names_model(&head, value)? && model.replace(start..start + value.len()).is_some() {
            return Err(InvalidForm::Twice);
        }
        at = start + length + delimiter.len();
    }
    Err(InvalidForm::TooManyParts)
}

fn asked(body: &[u8], at: Range<usize>) -> Result<Asked<'_>, InvalidForm> {
    let name = body.get(at.clone()).and_then(|name| std::str::from_utf8(name).ok()).ok_or(InvalidForm::NotText)?;
    if name.trim_ascii().is_empty() {
        return Err(InvalidForm::NoModel);
    }
    check_name(name)?;
    Ok(Asked {
        model: name.into(),
        model_at: at,
        model_form: ModelForm::Form,
        max_output: None,
        answers: 1,
        deferred: None,
        stream: AnswerMode::Whole,
    })
}

/// Keeps one header of a part. None: it is not in the one spelling that clients write.
fn note<'b>(line: &'b [u8], head: &mut Head<'b>) -> Option<()> {
    let line = line.strip_suffix(b"\r\n").filter(|line| line.len() <= MAX_LINE)?;
    let place = HEADERS.iter().position(|known| line.get(..known.len()).is_some_and(|start| same(start, known)))?;
    let value = line.get(HEADERS.get(place)?.len()..)?;
    let is_tidy = value == value.trim_ascii() && all(value, |byte| !byte.is_ascii_control());
    (is_tidy && head.get_mut(place)?.replace(value).is_none()).then_some(())
}

/// Whether every parser takes a part for the field `model`.
fn names_model(head: &Head<'_>, value: &[u8]) -> Result<bool, InvalidForm> {
    let [disposition, kind, length, encoding] = head;
    let (name, content) = disposition.and_then(disposed).ok_or(InvalidForm::Head)?;
    let is_true = length.is_none_or(|length| length == value.len().to_string().as_bytes());
    // Some parsers decode the other encodings, and some keep them as they are.
    let is_plain = encoding.is_none_or(|encoding| matches!(encoding, b"binary" | b"8bit" | b"7bit"));
    if !is_true || !is_plain {
        return Err(InvalidForm::Head);
    }
    if name != MODEL {
        // PHP and its like take `model[]` for `model`, others fold case.
        let base = name.split(|byte| *byte == b'[').next().unwrap_or_default();
        let meant = [MODEL, CHARSET].iter().any(|known| same(base, known));
        return if meant { Err(InvalidForm::Spelling) } else { Ok(false) };
    }
    let is_text = kind.is_none_or(|kind| TEXT.iter().any(|known| same(kind, known)));
    if is_text && content == Content::Field { Ok(true) } else { Err(InvalidForm::NotText) }
}

/// The field's name in the value of a Content-Disposition.
fn disposed(value: &[u8]) -> Option<(&[u8], Content)> {
    let value = value.strip_prefix(b"form-data; name=\"")?;
    let (name, rest) = value.split_at_checked(memchr::memchr(b'"', value)?)?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(byte);
    if !(1..=MAX_FIELD).contains(&name.len()) || !all(name, allowed) {
        return None;
    }
    if rest == b"\"" {
        return Some((name, Content::Field));
    }
    let file = rest.strip_prefix(b"\"; filename=\"")?.strip_suffix(b"\"")?;
    let is_plain = !file.is_empty() && all(file, |byte| !b"\"\\".contains(byte));
    is_plain.then_some((name, Content::File))
}

// === impl Boundary ===

impl Boundary {
    /// Reads the value of the parameter: a token, or any of RFC 2046's characters between quotes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let bare = quoted.unwrap_or(value);
        let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"'+_-.".contains(byte);
        let in_quotes = |byte: &u8| byte.is_ascii_alphanumeric() || b"'+_-.(),/:=? ".contains(byte);
        let allowed = all(bare, if quoted.is_some() { in_quotes } else { in_token });
        let valid = allowed && (1..=MAX_BOUNDARY).contains(&bare.len()) && !bare.ends_with(b" ");
        valid.then(|| Self([b"--", bare].concat()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::body::rewrite::{Edit, apply};

    fn boundary() -> Boundary {
        Boundary::parse(b"xYz").unwrap()
    }

    fn read(body: &[u8]) -> Result<Asked<'_>, InvalidForm> {
        super::read(&boundary(), body)
    }

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut body = String::new();
        for (name, value) in parts {
            body += &format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        (body + "--xYz--\r\n").into_bytes()
    }

    /// A form of a good model and a part with these headers.
    fn with_head(head: &str) -> Vec<u8> {
        let good = "--xYz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ncheap\r\n";
        format!("{good}--xYz\r\n{head}\r\n\r\ndear\r\n--xYz--\r\n").into_bytes()
    }

    #[test]
    fn the_model_is_found_with_its_span() {
        let body = form(&[("file", "RIFF\r\n\r\n"), ("model", "whisper-1"), ("language", "en")]);
        let asked = read(&body).unwrap();
        assert_eq!(asked.model, "whisper-1");
        assert_eq!(&body[asked.model_at], b"whisper-1");
        assert!(read(&body[..body.len() - 2]).is_ok(), "the last line may lack its end");
    }

    #[test]
    fn what_clients_write_is_taken() {
        for head in [
            "Content-Disposition: form-data; name=\"file\"; filename=\"a b;é.wav\"\r\nContent-Type: audio/wav",
            "content-type: text/plain; charset=utf-8\r\ncontent-disposition: form-data; name=\"language\"",
            "Content-Disposition: form-data; name=\"image[]\"; filename=\"%22.png\"\r\nContent-Length: 4",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: binary",
        ] {
            assert!(read(&with_head(head)).is_ok(), "{head}");
        }
        let typed = "--xYz\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: 1\r\n\
            Content-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--xYz--";
        assert_eq!(read(typed.as_bytes()).unwrap().model, "a");
    }

    #[test]
    fn a_part_in_any_other_spelling_is_refused() {
        for head in [
            "Content-Disposition: form-data; name =\"model\"",
            "Content-Disposition: form-data; name\t=\"model\"",
            "Content-Disposition: form-data; name= \"model\"",
            "Content-Disposition: form-data; name=model",
            "Content-Disposition: form-data; name='model'",
            "Content-Disposition: form-data; name*=utf-8''model",
            "Content-Disposition: form-data; name*0=\"mo\"; name*1=\"del\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"b\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; filename*=utf-8''b",
            "Content-Disposition: form-data; filename=\"b\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"b\\\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"\"",
            "Content-Disposition: form-data; name=\"mod\\el\"",
            "Content-Disposition: form-data; name=\"m%6fdel\"",
            "Content-Disposition: form-data; name=\"\"",
            "Content-Disposition: form-data; name=\" model\"",
            "Content-Disposition: form-data; name=\"model\";",
            "Content-Disposition: form-data; name=\"a\" ; filename=\"b\"",
            "Content-Disposition: form-data;name=\"model\"",
            "Content-Disposition: form-data;  name=\"model\"",
            "Content-Disposition: form-data;\r\n name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\r\n ; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\r\n\tb",
            "Content-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\rContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition : form-data; name=\"model\"",
            " Content-Disposition: form-data; name=\"model\"",
            "Content-Disposition:form-data; name=\"model\"",
            "Content-Disposition:  form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\" ",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data",
            "Content-Type: text/plain",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: a/b\r\nContent-Type: a/b",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: quoted-printable",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Length: 5",
            "Content-Disposition: form-data; name=\"a\"\r\nX-Name: model",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: a\u{0}b",
        ] {
            assert_eq!(read(&with_head(head)), Err(InvalidForm::Head), "{head:?}");
        }
        let long = "x".repeat(MAX_LINE);
        let head = format!("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: {long}");
        assert_eq!(read(&with_head(&head)), Err(InvalidForm::Head));
    }

    #[test]
    fn there_is_one_model_and_no_second_spelling_of_it() {
        assert_eq!(read(&form(&[("model", "a"), ("model", "b")])), Err(InvalidForm::Twice));
        for name in ["Model", "MODEL", "model[]", "Model[0]", "_charset_"] {
            assert_eq!(read(&form(&[("model", "a"), (name, "b")])), Err(InvalidForm::Spelling), "{name}");
        }
        assert_eq!(read(&form(&[("file", "a")])), Err(InvalidForm::NoModel));
        assert_eq!(read(&form(&[("model", " ")])), Err(InvalidForm::NoModel));
        for more in [
            "; filename=\"a\"",
            "\r\nContent-Type: application/octet-stream",
            "\r\nContent-Type: text/plain; charset=utf-16",
        ] {
            let body = format!("--xYz\r\nContent-Disposition: form-data; name=\"model\"{more}\r\n\r\na\r\n--xYz--\r\n");
            assert_eq!(read(body.as_bytes()), Err(InvalidForm::NotText), "{more}");
        }
        assert_eq!(read(&form(&[("model", "a\r\nb")])), Err(InvalidForm::Name(InvalidName::Control)));
    }

    #[test]
    fn nothing_stands_around_the_form() {
        let body = form(&[("model", "a")]);
        for before in ["{\"model\":\"dear\"}\r\n", "\r\n", "\n", " ", "preamble\r\n", "-"] {
            assert_eq!(read(&[before.as_bytes(), &body].concat()), Err(InvalidForm::Start), "{before:?}");
        }
        for after in ["x", "\r\n", " ", "--xYz\r\n", "{\"model\":\"dear\"}"] {
            assert_eq!(read(&[&body, after.as_bytes()].concat()), Err(InvalidForm::AfterEnd), "{after:?}");
        }
        for end in 0..body.len() - 4 {
            assert!(read(&body[..end]).is_err(), "{end}");
        }
        for (from, to) in [
            ("--xYz\r\n", "--xYz \r\n"),
            ("--xYz\r\n", "--xYz\n"),
            ("--xYz\r\n", "--xYza\r\n"),
            ("\r\n--xYz--", "\n--xYz--"),
            ("\r\n--xYz--", "--xYz--"),
            ("a\r\n", "a --xYz b\r\n"),
        ] {
            let text = String::from_utf8(body.clone()).unwrap();
            assert_eq!(read(text.replacen(from, to, 1).as_bytes()), Err(InvalidForm::Broken), "{to:?}");
        }
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let mut parts = vec![("a", "b"); MAX_PARTS];
        parts[0] = ("model", "m");
        assert!(read(&form(&parts)).is_ok());
        parts.push(("a", "b"));
        assert_eq!(read(&form(&parts)), Err(InvalidForm::TooManyParts));
    }

    /// Bytes that matter to form parsers, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "--xYz",
                "--",
                "\r\n",
                "\n",
                "\r",
                "Content-Disposition: ",
                "form-data; ",
                "name=",
                "\"model\"",
                "model",
                "; filename=\"a\"",
                ";",
                " ",
                "\t",
                "\"",
                "\\",
                "Content-Type: text/plain",
                "a",
                ":",
            ])
            .prop_map(|piece| piece.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..3),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in pieces()) {
            let _ = read(&body);
            let _ = read(&[b"--xYz\r\n".as_slice(), &body, b"\r\n--xYz--"].concat());
        }

        #[test]
        fn what_is_taken_reads_the_same_with_another_model(
            mut parts in prop::collection::vec(("[a-l_.\\[\\]-]{1,8}", pieces()), 0..4),
            model in "[a-z/:.-]{1,12}",
            place in any::<prop::sample::Index>(),
        ) {
            let place = place.index(parts.len() + 1);
            parts.insert(place, ("model".to_owned(), model.clone().into_bytes()));
            let mut body = Vec::new();
            for (name, value) in &parts {
                body.extend(format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes());
                body.extend(value);
                body.extend(b"\r\n");
            }
            body.extend(b"--xYz--\r\n");
            let Ok(asked) = read(&body) else { return Ok(()) };
            prop_assert_eq!(&*asked.model, &model);
            let renamed = apply(&body, vec![Edit::new(asked.model_at.clone(), ModelForm::Form.write("other"))]);
            let again = read(&renamed).unwrap();
            prop_assert_eq!(&*again.model, "other");
            prop_assert_eq!(apply(&renamed, vec![Edit::new(again.model_at, ModelForm::Form.write(&model))]), body);
        }
    }
}
