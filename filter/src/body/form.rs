//! The model in a multipart form (audio, images): the parts are walked by their boundary and only the
//! field `model` is read. Two such fields are refused, as backends differ in which one they take.

use std::{borrow::Cow, ops::Range};

use memchr::memmem;
use thiserror::Error;

use super::{Asked, ModelForm, Stream};

/// More parts than any API of today has.
const MAX_PARTS: usize = 256;
const MAX_BOUNDARY: usize = 70;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    #[error("the form has no valid boundary")]
    Boundary,
    #[error("the form is broken: a part does not end")]
    Broken,
    #[error("the form has too many parts")]
    TooManyParts,
    #[error("the form has no field \"model\"; name the model to use")]
    NoModel,
    #[error("the form has more than one field \"model\"")]
    Twice,
    #[error("the field \"model\" is not valid UTF-8 text")]
    NotText,
}

/// Whether a content type is that of a multipart form.
pub fn is_form(content_type: &[u8]) -> bool {
    content_type.get(..19).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/form-data"))
}

/// Reads the model's name. `stream` fields of forms are left to the backend.
pub fn read<'b>(content_type: &[u8], body: &'b [u8]) -> Result<Asked<'b>, Refused> {
    let delimiter = [b"--", boundary(content_type).ok_or(Refused::Boundary)?].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut at = finder.find(body).ok_or(Refused::Broken)? + delimiter.len();
    let mut model: Option<Range<usize>> = None;
    for _ in 0..MAX_PARTS {
        let rest = body.get(at..).ok_or(Refused::Broken)?;
        if rest.starts_with(b"--") {
            let at = model.ok_or(Refused::NoModel)?;
            let name = body.get(at.clone()).and_then(|name| std::str::from_utf8(name).ok()).ok_or(Refused::NotText)?;
            if name.trim().is_empty() {
                return Err(Refused::NoModel);
            }
            return Ok(Asked {
                model: Cow::Borrowed(name),
                model_at: at,
                model_form: ModelForm::Form,
                max_output: None,
                answers: 1,
                stream: Stream::Whole,
            });
        }
        if !rest.starts_with(b"\r\n") {
            return Err(Refused::Broken);
        }
        let headers_end = memmem::find(rest, b"\r\n\r\n").ok_or(Refused::Broken)?;
        let content = at + headers_end + 4;
        let length = finder.find(body.get(content..).ok_or(Refused::Broken)?).ok_or(Refused::Broken)?;
        let end = (content + length).checked_sub(2).filter(|end| *end >= content).ok_or(Refused::Broken)?;
        // A boundary stands on a line of its own; parsers differ on any other.
        if body.get(end..content + length) != Some(b"\r\n") {
            return Err(Refused::Broken);
        }
        if names_model(rest.get(..headers_end).unwrap_or_default()) && model.replace(content..end).is_some() {
            return Err(Refused::Twice);
        }
        at = content + length + delimiter.len();
    }
    Err(Refused::TooManyParts)
}

fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let mut parameters = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(9)?;
        name.eq_ignore_ascii_case(b"boundary=").then_some(value)
    })?;
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}

/// Whether the headers of a part call it `model`, in any of the ways that form parsers accept.
fn names_model(headers: &[u8]) -> bool {
    let headers = headers.to_ascii_lowercase();
    headers.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"content-disposition:")).any(|line| {
        line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).any(|parameter| {
            let value = parameter.strip_prefix(b"name=").or(parameter.strip_prefix(b"name*=utf-8''"));
            value.is_some_and(|value| value.trim_ascii() == b"model" || value.trim_ascii() == b"\"model\"")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=xYz";

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut body = String::new();
        for (name, value) in parts {
            body += &format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        (body + "--xYz--\r\n").into_bytes()
    }

    #[test]
    fn the_model_is_found_with_its_span() {
        let body = form(&[("file", "RIFF\r\n\r\n"), ("model", "whisper-1"), ("language", "en")]);
        let asked = read(TYPE, &body).unwrap();
        assert_eq!(asked.model, "whisper-1");
        assert_eq!(&body[asked.model_at], b"whisper-1");
    }

    #[test]
    fn doubtful_forms_are_refused() {
        assert_eq!(read(TYPE, &form(&[("model", "a"), ("Model", "b")])), Err(Refused::Twice));
        assert_eq!(read(TYPE, &form(&[("file", "a")])), Err(Refused::NoModel));
        assert_eq!(read(TYPE, b"--xYz\r\n"), Err(Refused::Broken));
        assert_eq!(read(b"multipart/form-data", b""), Err(Refused::Boundary));
        let body = form(&[("model", "a"); 1]);
        assert_eq!(read(TYPE, &body[..body.len() - 6]), Err(Refused::Broken));
        assert!(is_form(TYPE) && !is_form(b"application/json"));
    }
}
