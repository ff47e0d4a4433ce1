//! What a resource says, as bytes.

use std::borrow::Cow;
use std::fmt;

/// An encoded message.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Plain(Box<[u8]>),
    /// By LZ4, with an example of such a message as its dictionary.
    Packed {
        bytes: Box<[u8]>,
        len: u32,
        example: &'static [u8],
    },
}

// === impl Content ===

impl Content {
    /// Messages of which there are thousands say the same but for some names, so next to an example little is left. With
    /// 10,000 hostnames that is 1 MB in place of 5.
    pub(super) fn packed(message: &[u8], example: &'static [u8]) -> Self {
        let packed = lz4_flex::block::compress_with_dict(message, example);
        match u32::try_from(message.len()) {
            Ok(len) if packed.len() < message.len() => {
                Self(Form::Packed { bytes: packed.into_boxed_slice(), len, example })
            }
            _ => message.to_vec().into(),
        }
    }

    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Form::Plain(bytes) => bytes.as_ref().into(),
            Form::Packed { bytes, len, example } => {
                // It was made by `packed`, so it can be read.
                let len = usize::try_from(*len).unwrap_or_default();
                lz4_flex::block::decompress_with_dict(bytes, len, example).unwrap_or_default().into()
            }
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(message: Vec<u8>) -> Self {
        Self(Form::Plain(message.into()))
    }
}

/// There are credentials among the messages.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &[u8] = b"scope|example.com: host example.com goes to service/example";

    fn room(content: &Content) -> usize {
        match &content.0 {
            Form::Plain(bytes) | Form::Packed { bytes, .. } => bytes.len(),
        }
    }

    #[test]
    fn a_message_like_the_example_takes_little_room() {
        let message = b"scope|x.example.com: host x.example.com goes to service/x";
        let content = Content::packed(message, EXAMPLE);
        assert!(room(&content) < message.len() / 2, "{}", room(&content));
        assert_eq!(*content.bytes(), *message);
    }

    #[test]
    fn what_gets_no_smaller_stays_as_it_is() {
        assert_eq!(Content::packed(b"x", EXAMPLE), b"x".to_vec().into());
        assert_eq!(Content::packed(b"", EXAMPLE), Vec::new().into());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_there(pieces in prop::collection::vec("[a-z|:/ .]{0,20}", 0..40), like in 0..4_usize) {
            let example: &'static [u8] = [EXAMPLE, b"", b"a", b"service/service/service/"][like];
            let message = pieces.concat().into_bytes();
            let content = Content::packed(&message, example);
            prop_assert_eq!(&*content.bytes(), &*message);
        }
    }
}
