//! `google.protobuf.Struct` as Envoy encodes it, without a tree: a claim is read where somebody asks for it. Generated code
//! for it would be 30 KB more of the filter.

use prost::encoding::decode_varint;

/// It is not what Envoy would have written, or more than is looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// A map from texts to messages, in field 1 of a message.
#[derive(Debug)]
pub struct Entries<'m>(Vec<(&'m str, &'m [u8])>);

/// A `google.protobuf.Value`.
#[derive(Debug)]
pub enum Value<'m> {
    Null,
    Number(f64),
    Text(&'m str),
    Boolean(bool),
    /// An encoded Struct.
    Object(&'m [u8]),
    /// An encoded ListValue.
    List(&'m [u8]),
}

/// The content of a field.
enum Content<'m> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'m [u8]),
}

/// The fields of a message in their order, with their numbers.
struct Fields<'m>(&'m [u8]);

// === impl Fields ===

impl<'m> Fields<'m> {
    fn field(&mut self) -> Result<(u64, Content<'m>), Unreadable> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(Unreadable)?;
                self.0 = rest;
                Content::Fixed64(*bytes)
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
                let (bytes, rest) = self.0.split_at_checked(len).ok_or(Unreadable)?;
                self.0 = rest;
                Content::Bytes(bytes)
            }
            // Nothing else is in these messages.
            _ => return Err(Unreadable),
        };
        Ok((tag >> 3, content))
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        decode_varint(&mut self.0).map_err(|_| Unreadable)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Content<'m>), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

// === impl Entries ===

impl<'m> Entries<'m> {
    pub fn read(message: &'m [u8]) -> Result<Self, Unreadable> {
        let mut entries = Vec::new();
        for field in Fields(message) {
            let (1, Content::Bytes(entry)) = field? else { continue };
            let (mut name, mut value) = ("", &[][..]);
            for field in Fields(entry) {
                match field? {
                    (1, Content::Bytes(bytes)) => name = std::str::from_utf8(bytes).map_err(|_| Unreadable)?,
                    (2, Content::Bytes(bytes)) => value = bytes,
                    _ => {}
                }
            }
            entries.push((name, value));
        }
        Ok(Self(entries))
    }

    pub fn get(&self, name: &str) -> Option<&'m [u8]> {
        // The last one counts where protobuf has a name twice.
        self.0.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    pub fn into_values(self) -> impl Iterator<Item = &'m [u8]> {
        self.0.into_iter().map(|(_, value)| value)
    }
}

// === impl Value ===

impl<'m> Value<'m> {
    pub fn read(message: &'m [u8]) -> Result<Self, Unreadable> {
        let mut value = Self::Null;
        for field in Fields(message) {
            value = match field? {
                (1, Content::Varint(_)) => Self::Null,
                (2, Content::Fixed64(bytes)) => Self::Number(f64::from_le_bytes(bytes)),
                (3, Content::Bytes(bytes)) => Self::Text(std::str::from_utf8(bytes).map_err(|_| Unreadable)?),
                (4, Content::Varint(yes)) => Self::Boolean(yes != 0),
                (5, Content::Bytes(bytes)) => Self::Object(bytes),
                (6, Content::Bytes(bytes)) => Self::List(bytes),
                _ => return Err(Unreadable),
            };
        }
        Ok(value)
    }
}

/// The encoded elements of a `google.protobuf.ListValue`, as far as it can be read.
pub fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields(list).map_while(Result::ok).filter_map(|field| match field {
        (1, Content::Bytes(element)) => Some(element),
        _ => None,
    })
}
