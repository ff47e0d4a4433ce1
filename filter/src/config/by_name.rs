//! What a request finds by name. It is a sorted list: a hash map for each kind of value would make the module larger,
//! and would be no faster for a request.

use std::rc::Rc;

use super::InvalidConfig;

#[derive(Debug)]
pub struct ByName<T>(Vec<(String, Rc<T>)>);

// === impl ByName ===

impl<T> ByName<T> {
    /// # Errors
    /// When a name occurs twice; `what` says of what.
    pub fn new(what: &'static str, items: Vec<(String, Rc<T>)>) -> Result<Self, InvalidConfig> {
        let mut sorted: Vec<(String, Rc<T>)> = Vec::with_capacity(items.len());
        // They come in order, or nearly so: a sorting algorithm would be 5 KB of module for nothing.
        for (name, item) in items {
            match sorted.binary_search_by(|(known, _)| known.cmp(&name)) {
                Ok(_) => return Err(InvalidConfig::Twice { what, name }),
                Err(at) => sorted.insert(at, (name, item)),
            }
        }
        Ok(Self(sorted))
    }

    pub fn empty() -> Self {
        Self(Vec::new())
    }

    pub fn get(&self, name: &str) -> Option<&Rc<T>> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, item)| item)
    }

    /// All, in the order of their names.
    pub fn all(&self) -> &[(String, Rc<T>)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        let items = ["b", "a", "c"].map(|name| (name.to_owned(), Rc::new(name))).to_vec();
        let named = ByName::new("thing", items.clone()).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(named.get(name).map(|found| **found), Some(name));
        }
        assert_eq!((named.get("d"), named.get("")), (None, None));
        let twice = [items, vec![("a".to_owned(), Rc::new("z"))]].concat();
        let error = InvalidConfig::Twice { what: "thing", name: "a".into() };
        assert_eq!(ByName::new("thing", twice).unwrap_err(), error);
    }
}
