//! Finds one text in another, in linear time whatever the two are, because a client chooses both the delimiter of its
//! form and what stands between (Knuth, Morris, Pratt 1977). A library for it would be 6 KB of the module.

use memchr::memchr;

/// Where `needle` first stands in `text`. An empty one stands nowhere.
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let borders = borders(needle);
    let (mut at, mut matched) = (0, 0);
    loop {
        if matched == 0 {
            at += memchr(first, text.get(at..)?)?;
        }
        let byte = text.get(at)?;
        // At least as long a start of the needle as what is left of the match.
        while matched > 0 && needle.get(matched) != Some(byte) {
            matched = borders.get(matched - 1).copied().unwrap_or(0);
        }
        matched += usize::from(needle.get(matched) == Some(byte));
        at += 1;
        if matched == needle.len() {
            return Some(at - matched);
        }
    }
}

/// For each start of the needle: the length of its longest end that is also a start of the needle.
fn borders(needle: &[u8]) -> Vec<usize> {
    let mut borders: Vec<usize> = Vec::with_capacity(needle.len());
    let mut border = 0;
    for (at, byte) in needle.iter().enumerate() {
        while border > 0 && needle.get(border) != Some(byte) {
            border = borders.get(border - 1).copied().unwrap_or(0);
        }
        border += usize::from(at > 0 && needle.get(border) == Some(byte));
        borders.push(border);
    }
    borders
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_one_is_found(text in "[-a]{0,60}", needle in "[-a]{0,6}") {
            let expected = if needle.is_empty() { None } else { text.find(&needle) };
            prop_assert_eq!(find(text.as_bytes(), needle.as_bytes()), expected);
        }
    }
}
