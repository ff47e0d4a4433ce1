//! A JSON value as serde reads it into a type, one way for files and for clusters. It knows where in the object it is, so
//! that each mistake has its field.
//!
//! - A field that the type does not know is left out before the type sees it. It is noted if that is a mistake
//!   ([`Strictness`]). A field that is null is not set.
//! - A value that an enum does not know is noted, if that is no error, and another value of the enum stands in for it.
//!   **Whoever decodes must refuse the part that it is in** (`parts.rs`), because the stand-in means something else.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

use super::decode::{self, Misfit, Strictness};

/// What is noted while a value is read.
#[derive(Debug)]
pub struct Notes {
    strictness: Strictness,
    pub unknown_fields: Vec<Misfit>,
    /// Values that enums do not know, and that others stand in for.
    pub unknown_values: Vec<Misfit>,
    /// The field that could not be read.
    pub failed_at: Option<String>,
}

/// Reads a value. The notes count whether it can be read or not.
pub fn read<T: DeserializeOwned>(value: Value, strictness: Strictness) -> (Result<T, Error>, Notes) {
    let notes = Notes { strictness, unknown_fields: Vec::new(), unknown_values: Vec::new(), failed_at: None };
    let notes = RefCell::new(notes);
    let result = T::deserialize(Reader { value, place: Place::Root, notes: &notes });
    (result, notes.into_inner())
}

/// A value, and where it is.
struct Reader<'a> {
    value: Value,
    place: Place<'a>,
    notes: &'a RefCell<Notes>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field { parent: &'a Place<'a>, name: &'a str },
    Element { parent: &'a Place<'a>, index: usize },
}

/// The elements of a list.
struct Elements<'a> {
    rest: std::vec::IntoIter<Value>,
    next: usize,
    place: Place<'a>,
    notes: &'a RefCell<Notes>,
}

/// The fields of an object. With `known`, no other is there.
struct Fields<'a> {
    rest: serde_json::map::IntoIter,
    known: Option<&'static [&'static str]>,
    value: Option<(String, Value)>,
    place: Place<'a>,
    notes: &'a RefCell<Notes>,
}

// === impl Place ===

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field { parent: Place::Root, name } => f.write_str(name),
            Self::Field { parent, name } => write!(f, "{parent}.{name}"),
            Self::Element { parent, index } => write!(f, "{parent}[{index}]"),
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn visit<'de, V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Self { value, place, notes } = self;
        // Each by itself: what `Value` would do with lists and objects is much code for each type, and never runs.
        match value {
            Value::Array(elements) => visitor.visit_seq(Elements { rest: elements.into_iter(), next: 0, place, notes }),
            Value::Object(fields) => visitor.visit_map(fields_of(fields, known, place, notes)),
            Value::String(text) => visitor.visit_string(text),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Null => visitor.visit_unit(),
        }
    }
}

fn fields_of<'a>(
    fields: Map<String, Value>,
    known: Option<&'static [&'static str]>,
    place: Place<'a>,
    notes: &'a RefCell<Notes>,
) -> Fields<'a> {
    Fields { rest: fields.into_iter(), known, value: None, place, notes }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit(Some(fields), visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (&self.value, variants.first()) {
            (Value::String(text), Some(stand_in))
                if !variants.contains(&text.as_str()) && self.notes.borrow().strictness == Strictness::Lenient =>
            {
                let misfit = decode::unknown_value(self.place.to_string(), text, variants);
                self.notes.borrow_mut().unknown_values.push(misfit);
                let stand_in: StrDeserializer<'_, Error> = (*stand_in).into_deserializer();
                visitor.visit_enum(stand_in)
            }
            _ => self.value.deserialize_enum(name, variants, visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// Not generic: each type has a reader of its own.
fn not_known(notes: &RefCell<Notes>, place: Place<'_>, name: &str, known: &[&str]) {
    let mut notes = notes.borrow_mut();
    if notes.strictness == Strictness::Strict {
        notes.unknown_fields.push(decode::unknown_field(place.to_string(), name, known));
    }
}

/// What is innermost fails first.
fn failed(notes: &RefCell<Notes>, place: Place<'_>) {
    notes.borrow_mut().failed_at.get_or_insert_with(|| place.to_string());
}

// === impl Elements ===

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let place = Place::Element { parent: &self.place, index: self.next };
        self.next += 1;
        seed.deserialize(Reader { value, place, notes: self.notes })
            .inspect_err(|_| failed(self.notes, place))
            .map(Some)
    }

    /// So that a list has no more room than it needs.
    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

// === impl Fields ===

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let (known, place, notes) = (self.known, self.place, self.notes);
        let is_known = |name: &str| match known {
            Some(known) if !known.contains(&name) => {
                not_known(notes, Place::Field { parent: &place, name }, name, known);
                false
            }
            _ => true,
        };
        let Some((name, value)) = self.rest.find(|(name, value)| !value.is_null() && is_known(name)) else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
        let key = seed.deserialize(key)?;
        self.value = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        // serde asks for a key first.
        let (name, value) = self.value.take().unwrap_or_default();
        let place = Place::Field { parent: &self.place, name: &name };
        seed.deserialize(Reader { value, place, notes: self.notes }).inspect_err(|_| failed(self.notes, place))
    }
}
