//! JSON values to typed ones, leniently: for objects of a cluster, which may be of a newer version than we are.
//!
//! - A field that the type does not know is left out before the type sees it. So the types need not know which of the
//!   two ways they are read. A field that is null is not set, as in files.
//! - A value that an enum does not know is noted, and another value of the enum stands in for it. **Whoever decodes must
//!   refuse the part that it is in** (`parts.rs`), because the stand-in means something else.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

use super::decode::{self, Decoded, Misfit};

/// # Errors
/// The first value that cannot be read.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<Decoded<T>, Vec<Misfit>> {
    let unknown = RefCell::default();
    let lenient = Lenient { value, place: Place::Root, unknown: &unknown };
    match serde_path_to_error::deserialize(lenient) {
        Ok(value) => Ok(Decoded { value, unknown: unknown.into_inner() }),
        Err(error) => Err(vec![decode::of_error(&error)]),
    }
}

/// A value, and where it is.
struct Lenient<'a> {
    value: Value,
    place: Place<'a>,
    unknown: &'a RefCell<Vec<Misfit>>,
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
    unknown: &'a RefCell<Vec<Misfit>>,
}

/// The fields of an object. With `known`, no other is there.
struct Fields<'a> {
    rest: serde_json::map::IntoIter,
    known: Option<&'static [&'static str]>,
    value: Option<(String, Value)>,
    place: Place<'a>,
    unknown: &'a RefCell<Vec<Misfit>>,
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

// === impl Lenient ===

impl Lenient<'_> {
    fn visit<'de, V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Self { value, place, unknown } = self;
        match value {
            Value::Array(elements) => {
                visitor.visit_seq(Elements { rest: elements.into_iter(), next: 0, place, unknown })
            }
            Value::Object(fields) => visitor.visit_map(fields_of(fields, known, place, unknown)),
            plain => plain.deserialize_any(visitor),
        }
    }
}

fn fields_of<'a>(
    fields: Map<String, Value>,
    known: Option<&'static [&'static str]>,
    place: Place<'a>,
    unknown: &'a RefCell<Vec<Misfit>>,
) -> Fields<'a> {
    Fields { rest: fields.into_iter(), known, value: None, place, unknown }
}

impl<'de> Deserializer<'de> for Lenient<'_> {
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
            (Value::String(text), Some(stand_in)) if !variants.contains(&text.as_str()) => {
                self.unknown.borrow_mut().push(decode::unknown_value(self.place.to_string(), text, variants));
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

// === impl Elements ===

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let place = Place::Element { parent: &self.place, index: self.next };
        self.next += 1;
        seed.deserialize(Lenient { value, place, unknown: self.unknown }).map(Some)
    }
}

// === impl Fields ===

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let known = self.known;
        let is_known = |name: &str| known.is_none_or(|known| known.contains(&name));
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
        seed.deserialize(Lenient { value, place, unknown: self.unknown })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        #[serde(default)]
        items: Vec<Item>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Item {
        weight: Option<i64>,
        backend_mode: Option<Mode>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Mode {
        Enforce,
        Shadow,
    }

    #[test]
    fn what_is_not_known_is_left_out_or_noted() {
        let decoded = decode::<Own>(json!({
            "items": [{"more": {"a": 1}, "weight": 1}, {"backendMode": "Other"}, {"backendMode": "Shadow", "weight": null}],
            "labels": {"any": "x"},
            "more": [],
        }))
        .unwrap();
        let modes: Vec<_> = decoded.value.items.iter().map(|item| (item.weight, item.backend_mode.as_ref())).collect();
        assert_eq!(modes, [(Some(1), None), (None, Some(&Mode::Enforce)), (None, Some(&Mode::Shadow))]);
        assert_eq!(decoded.value.labels.len(), 1);
        let noted: Vec<_> =
            decoded.unknown.iter().map(|misfit| (misfit.field.as_str(), misfit.hint.as_str())).collect();
        assert_eq!(noted, [("items[1].backendMode", "one of Enforce, Shadow")]);
    }

    #[test]
    fn what_has_another_type_is_an_error_with_its_field() {
        let field = |value| decode::<Own>(value).unwrap_err().remove(0).field;
        assert_eq!(field(json!({"items": [{}, {"weight": "1"}]})), "items[1].weight");
        assert_eq!(field(json!({"items": [{"backendMode": 1}]})), "items[0].backendMode");
        assert_eq!(field(json!({"items": {}})), "items");
    }
}
