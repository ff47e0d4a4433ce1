//! Sets that are kept for keys, and members that are counted.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Members, each with how often it was added. It is gone when it was removed as often.
#[derive(Debug, Clone)]
pub struct Counted<K>(BTreeMap<K, usize>);

/// Members that are counted, and which of them came or went.
#[derive(Debug)]
pub struct Changing<K> {
    counted: Counted<K>,
    others: BTreeSet<K>,
}

/// A set that most often has one member, and then takes no memory besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Few<V> {
    One(V),
    Many(BTreeSet<V>),
}

/// Takes a value out of the set of a key. A key without values is forgotten. Returns whether it was the last one.
pub fn take_out<K, V, Q>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &Q) -> bool
where
    K: Ord,
    V: Ord + Borrow<Q>,
    Q: Ord + ?Sized,
{
    let Some(set) = sets.get_mut(key) else { return false };
    set.remove(value);
    let was_last = set.is_empty();
    if was_last {
        sets.remove(key);
    }
    was_last
}

// === impl Few ===

impl<V: Ord> Few<V> {
    /// Puts a value into the set of a key.
    pub fn put<K: Ord>(sets: &mut BTreeMap<K, Self>, key: K, value: V) {
        match sets.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Self::One(value));
            }
            Entry::Occupied(mut place) => {
                let set = std::mem::replace(place.get_mut(), Self::Many(BTreeSet::new()));
                *place.get_mut() = set.with(value);
            }
        }
    }

    /// As [`take_out`].
    pub fn take_out<K: Ord, Q: Ord + ?Sized>(sets: &mut BTreeMap<K, Self>, key: &K, value: &Q)
    where
        V: Borrow<Q>,
    {
        let is_empty = match sets.get_mut(key) {
            None => false,
            Some(Self::One(member)) => (*member).borrow() == value,
            Some(Self::Many(members)) => {
                members.remove(value);
                members.is_empty()
            }
        };
        if is_empty {
            sets.remove(key);
        }
    }

    fn with(self, value: V) -> Self {
        match self {
            Self::One(member) if member == value => Self::One(member),
            Self::One(member) => Self::Many([member, value].into()),
            Self::Many(mut members) => {
                members.insert(value);
                Self::Many(members)
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &V> {
        let (one, many) = match self {
            Self::One(member) => (Some(member), None),
            Self::Many(members) => (None, Some(members)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

// === impl Counted ===

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Counted<K> {
    /// Returns whether it is new.
    pub fn add(&mut self, member: K) -> bool {
        let count = self.0.entry(member).or_default();
        *count += 1;
        *count == 1
    }

    /// Returns whether it is gone now.
    pub fn remove<Q: Ord + ?Sized>(&mut self, member: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        match self.0.get_mut(member) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                self.0.remove(member);
                true
            }
        }
    }

    pub fn contains<Q: Ord + ?Sized>(&self, member: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(member)
    }

    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

// === impl Changing ===

impl<K> Default for Changing<K> {
    fn default() -> Self {
        Self { counted: Counted::default(), others: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Changing<K> {
    pub fn contains(&self, member: &K) -> bool {
        self.counted.contains(member)
    }

    /// Some members are taken out, and others are added.
    pub fn exchange(&mut self, before: Vec<K>, after: Vec<K>) {
        // First those that are added, so that what stays is never without a count.
        let new: Vec<K> = after.into_iter().filter(|member| self.counted.add(member.clone())).collect();
        let gone: Vec<K> = before.into_iter().filter(|member| self.counted.remove(member)).collect();
        for member in new.into_iter().chain(gone) {
            // What changed twice did not change.
            if !self.others.remove(&member) {
                self.others.insert(member);
            }
        }
    }

    /// Those that came or went since this was asked last.
    pub fn others(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_values_is_forgotten() {
        let mut sets: BTreeMap<u8, BTreeSet<&str>> = BTreeMap::from([(1, BTreeSet::from(["a", "b"]))]);
        assert!(!take_out(&mut sets, &2, &"a") && !take_out(&mut sets, &1, &"a"));
        assert!(take_out(&mut sets, &1, &"b") && sets.is_empty());
    }

    #[test]
    fn few_are_a_set() {
        let mut sets = BTreeMap::new();
        for value in ["b", "a", "b", "c"] {
            Few::put(&mut sets, 1, value);
        }
        Few::put(&mut sets, 2, "a");
        Few::put(&mut sets, 2, "a");
        let of = |sets: &BTreeMap<u8, Few<&'static str>>, key| -> Vec<&'static str> {
            sets.get(&key).into_iter().flat_map(Few::iter).copied().collect()
        };
        assert_eq!((of(&sets, 1), of(&sets, 2)), (vec!["a", "b", "c"], vec!["a"]));
        for (key, value) in [(2, "b"), (3, "a"), (1, "a"), (1, "c")] {
            Few::take_out(&mut sets, &key, &value);
        }
        assert_eq!((of(&sets, 1), of(&sets, 2)), (vec!["b"], vec!["a"]));
        Few::take_out(&mut sets, &1, &"b");
        Few::take_out(&mut sets, &2, &"a");
        assert!(sets.is_empty());
    }

    #[test]
    fn a_member_is_there_as_long_as_it_was_added_more_often() {
        let mut counted = Counted::default();
        assert!(counted.add("a") && !counted.add("a") && counted.add("b"));
        assert!(!counted.remove("a") && counted.contains("a"));
        assert!(counted.remove("a") && !counted.contains("a"));
        assert_eq!(counted.iter().collect::<Vec<_>>(), [&"b"]);
    }
}
