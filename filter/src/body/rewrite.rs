//! Edits of a request by span. What is not edited stays byte for byte the same, so the backend reads what the client
//! sent and the filter checked.

use std::{borrow::Cow, ops::Range};

/// One span and what stands there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub at: Range<usize>,
    pub text: Cow<'static, [u8]>,
}

impl Edit {
    pub fn new(at: Range<usize>, text: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { at, text: text.into() }
    }
}

/// Applies edits that do not overlap, in any order.
pub fn apply(body: &[u8], edits: Vec<Edit>) -> Vec<u8> {
    let mut sorted: Vec<Edit> = Vec::with_capacity(edits.len());
    for edit in edits {
        let behind = sorted.iter().position(|other| other.at.start > edit.at.start);
        sorted.insert(behind.unwrap_or(sorted.len()), edit);
    }
    let added: usize = sorted.iter().map(|edit| edit.text.len()).sum();
    let mut edited = Vec::with_capacity(body.len() + added);
    let mut done = 0;
    for edit in sorted {
        edited.extend_from_slice(body.get(done..edit.at.start).unwrap_or_default());
        edited.extend_from_slice(&edit.text);
        done = edit.at.end;
    }
    edited.extend_from_slice(body.get(done..).unwrap_or_default());
    edited
}

/// Where a span stands after the edits. One edit may replace exactly this span; no other may touch its inside.
pub fn moved(span: &Range<usize>, edits: &[Edit]) -> Range<usize> {
    let mut start = span.start;
    let mut length = span.len();
    for edit in edits {
        if edit.at == *span {
            length = edit.text.len();
        } else if edit.at.end <= span.start {
            start = start + edit.text.len() - edit.at.len();
        }
    }
    start..start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_keep_the_rest_and_tell_where_a_span_went() {
        let body = br#"{"a":1,"model":"x","b":2}"#;
        let model = 15..18;
        assert_eq!(&body[model.clone()], br#""x""#);
        let edits = vec![Edit::new(model.clone(), br#""longer""#.as_slice()), Edit::new(1..1, br#""c":3,"#.as_slice())];
        let edited = apply(body, edits.clone());
        assert_eq!(edited, br#"{"c":3,"a":1,"model":"longer","b":2}"#);
        assert_eq!(&edited[moved(&model, &edits)], br#""longer""#);
        let behind = [Edit::new(20..20, b"zz".as_slice())];
        assert_eq!(moved(&model, &behind), model);
    }

    #[test]
    fn edits_of_one_place_keep_their_order() {
        let insert = |at, text: &'static str| Edit::new(at..at, text.as_bytes());
        assert_eq!(apply(b"ab", vec![insert(2, "z"), insert(1, "x"), insert(1, "y")]), b"axybz");
    }
}
