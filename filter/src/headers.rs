//! The headers of a request or an answer, in one piece of memory, as both hosts hand them over. A copy of each name and
//! value would cost more than what is done with them.

/// Headers in the order in which Envoy has them, with names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a header stands: its value is behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

/// The bytes of a number in Proxy-Wasm's serialization.
const NUMBER: usize = 4;

// === impl Headers ===

impl Headers {
    /// From Proxy-Wasm's serialization (ABI 0.2.1): the number of headers, the lengths of each name and value, and then
    /// the names and values, each with a zero byte behind it. None: it is something else.
    pub fn from_pairs(bytes: Vec<u8>) -> Option<Self> {
        let (count, rest) = number(&bytes)?;
        let lengths = usize::try_from(count).ok()?.checked_mul(2 * NUMBER)?;
        let (lengths, _) = rest.split_at_checked(lengths)?;
        let mut places = Vec::with_capacity(lengths.len() / (2 * NUMBER));
        let mut at = u32::try_from(NUMBER + lengths.len()).ok()?;
        for pair in lengths.as_chunks::<{ 2 * NUMBER }>().0 {
            let (name_len, rest) = number(pair)?;
            let (value_len, _) = number(rest)?;
            let value = at.checked_add(name_len)?.checked_add(1)?;
            places.push(Place { name: at, name_len, value, value_len });
            at = value.checked_add(value_len)?.checked_add(1)?;
        }
        (usize::try_from(at).ok()? <= bytes.len()).then_some(Self { bytes, places })
    }

    /// With room for so many headers of so many bytes in all.
    pub fn with_capacity(headers: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), places: Vec::with_capacity(headers) }
    }

    /// Adds one at the end. One that would make them larger than 4 GiB is left out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let size = |bytes: usize| u32::try_from(bytes).ok();
        let start = size(self.bytes.len()).zip(size(name.len()));
        let value_at = start.and_then(|(start, name_len)| start.checked_add(name_len));
        if let (Some((name_at, name_len)), Some(value_at), Some(value_len)) = (start, value_at, size(value.len())) {
            self.places.push(Place { name: name_at, name_len, value: value_at, value_len });
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(value);
        }
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places.iter().map(|place| (self.at(place.name, place.name_len), self.at(place.value, place.value_len)))
    }

    /// The values of a header that may be there more than once.
    pub fn all<'h>(&'h self, name: &'static str) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(header, _)| *header == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of a header.
    pub fn get(&self, name: &'static str) -> Option<&[u8]> {
        self.all(name).next()
    }

    fn at(&self, start: u32, len: u32) -> &[u8] {
        let (start, len) = (start as usize, len as usize);
        self.bytes.get(start..start + len).unwrap_or_default()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut made = Self::default();
        headers.into_iter().for_each(|(name, value)| made.push(name.as_ref(), value.as_ref()));
        made
    }
}

/// The name of a header by itself. HTTP has no other names than of ASCII.
pub fn owned(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
    Some((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the specification says it.
    fn pairs(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let mut bytes = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
        headers.iter().for_each(|(name, value)| bytes.extend([size(name), size(value)].concat()));
        headers.iter().for_each(|(name, value)| bytes.extend([name.as_slice(), b"\0", value, b"\0"].concat()));
        bytes
    }

    #[test]
    fn a_header_is_found_by_its_name_alone() {
        let headers: Headers =
            [(":path", "/v1"), ("accept", "a"), ("x", "accept"), ("accept", "b")].into_iter().collect();
        assert_eq!(headers.get("accept"), Some(b"a".as_slice()));
        assert_eq!(headers.all("accept").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!((headers.get("path"), headers.get("")), (None, None));
    }

    proptest! {
        #[test]
        fn both_hosts_headers_are_the_same(headers in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8)) {
            let of_pairs = Headers::from_pairs(pairs(&headers)).unwrap();
            let pushed: Headers = headers.iter().cloned().collect();
            let expected: Vec<(&[u8], &[u8])> =
                headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            prop_assert_eq!(of_pairs.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(pushed.iter().collect::<Vec<_>>(), expected);
        }

        /// Whatever a host gives, it is read without a panic, and nothing outside of it.
        #[test]
        fn anything_is_read(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>(), headers in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..4)) {
            if let Some(read) = Headers::from_pairs(bytes) {
                prop_assert!(read.iter().count() == read.places.len());
            }
            let mut whole = pairs(&headers);
            whole.truncate(cut.index(whole.len()));
            prop_assert_eq!(Headers::from_pairs(whole), None, "a part of it");
        }
    }
}
