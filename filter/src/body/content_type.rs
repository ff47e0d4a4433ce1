//! What a body is, told from the request's content type. A backend chooses its parser by this header. Two types are
//! taken, which are all that SDKs send: `application/json` and, where an API has them, forms. Each is read here as the
//! backend will read it. A body of another type could be JSON to one reader and something else to the next
//! (`{"model":"a","x":"&model=b&"}` is both JSON and a URL-encoded form). Without the header a body is JSON, and the
//! backend is told so.

use thiserror::Error;

use super::{form::Boundary, same};

#[derive(Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Form(Boundary),
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidContentType {
    #[error("the request has more than one content-type")]
    Twice,
    #[error("the body must be JSON; send it with content-type: application/json")]
    Kind,
    #[error("the content-type has a parameter other than charset=utf-8")]
    Charset,
    #[error("the content-type of the form must have a valid boundary, and nothing else")]
    Boundary,
    #[error("a form is taken below /v1/audio/ and /v1/images/ only; send JSON")]
    NoForms,
}

/// The paths below the client's `/v1` where an API has forms.
const FORMS: [&str; 2] = ["/audio/", "/images/"];
const JSON: &[u8] = b"application/json";
const BOUNDARY: &[u8] = b"boundary=";
const UTF8: [&[u8]; 3] = [b"charset=utf-8", b"charset=\"utf-8\"", b"charset=utf8"];

// === impl ContentType ===

impl ContentType {
    /// Reads all values of the header. `below` is the path below the client's `/v1`.
    pub fn of<'h>(mut values: impl Iterator<Item = &'h [u8]>, below: &str) -> Result<Self, InvalidContentType> {
        let Some(value) = values.next() else {
            return Ok(Self::Json);
        };
        if values.next().is_some() {
            return Err(InvalidContentType::Twice);
        }
        match Self::parse(value)? {
            Self::Form(_) if !FORMS.iter().any(|path| below.starts_with(path)) => Err(InvalidContentType::NoForms),
            taken => Ok(taken),
        }
    }

    pub fn parse(value: &[u8]) -> Result<Self, InvalidContentType> {
        // Nearly every request has exactly this.
        if value == JSON {
            return Ok(Self::Json);
        }
        let at = memchr::memchr(b';', value).unwrap_or(value.len());
        let (kind, parameter) = value.split_at_checked(at).unwrap_or_default();
        let kind = kind.trim_ascii();
        let parameter = parameter.get(1..).map(<[u8]>::trim_ascii);
        if same(kind, JSON) {
            let is_utf8 = |parameter: &[u8]| UTF8.iter().any(|known| same(known, parameter));
            if parameter.is_none_or(is_utf8) { Ok(Self::Json) } else { Err(InvalidContentType::Charset) }
        } else if same(kind, b"multipart/form-data") {
            let (name, value) = parameter.and_then(|all| all.split_at_checked(BOUNDARY.len())).unwrap_or_default();
            let boundary = if same(name, BOUNDARY) { Boundary::parse(value) } else { None };
            boundary.map(Self::Form).ok_or(InvalidContentType::Boundary)
        } else {
            Err(InvalidContentType::Kind)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str], below: &str) -> Result<ContentType, InvalidContentType> {
        ContentType::of(values.iter().map(|value| value.as_bytes()), below)
    }

    #[test]
    fn what_sdks_send_is_taken() {
        for value in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert_eq!(of(&[value], "/chat/completions"), Ok(ContentType::Json), "{value}");
        }
        assert_eq!(of(&[], "/chat/completions"), Ok(ContentType::Json));
        for value in ["multipart/form-data; boundary=xYz", "Multipart/Form-Data;BOUNDARY=\"xYz\""] {
            let form = ContentType::Form(Boundary::parse(b"xYz").unwrap());
            assert_eq!(of(&[value], "/audio/transcriptions"), Ok(form), "{value}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (values, refused) in [
            (&["application/json", "application/json"][..], InvalidContentType::Twice),
            (&["application/x-www-form-urlencoded"], InvalidContentType::Kind),
            (&["text/plain"], InvalidContentType::Kind),
            (&["application/vnd.api+json"], InvalidContentType::Kind),
            (&["application/json,multipart/form-data;boundary=x"], InvalidContentType::Kind),
            (&["multipart/mixed; boundary=x"], InvalidContentType::Kind),
            (&["multipart/form-datax; boundary=x"], InvalidContentType::Kind),
            (&[""], InvalidContentType::Kind),
            (&["application/json; charset=utf-16"], InvalidContentType::Charset),
            (&["application/json; charset=utf-8; charset=utf-8"], InvalidContentType::Charset),
            (&["application/json;"], InvalidContentType::Charset),
            (&["application/json; boundary=x"], InvalidContentType::Charset),
            (&["multipart/form-data; boundary=x; boundary=y"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary =x"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary*=utf-8''x"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=x; boundary*0=y"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=x; charset=utf-7"], InvalidContentType::Boundary),
            (&["multipart/form-data"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary="], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=\"x"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=\"x \""], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=a b"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=a=b"], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=\"a\\b\""], InvalidContentType::Boundary),
            (&["multipart/form-data; boundary=\"a\"b"], InvalidContentType::Boundary),
        ] {
            assert_eq!(of(values, "/audio/transcriptions"), Err(refused), "{values:?}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        assert_eq!(of(&[&long], "/audio/transcriptions"), Err(InvalidContentType::Boundary));
        for below in ["/chat/completions", "/audiox", "/audio", "/files", "/x/audio/transcriptions"] {
            assert_eq!(of(&["multipart/form-data; boundary=x"], below), Err(InvalidContentType::NoForms), "{below}");
        }
    }
}
