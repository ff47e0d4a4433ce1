//! Records that all threads of the process share, each with a version, so that it can be compared and swapped. It is
//! what Envoy's shared data is to the other edge (`tollgate_filter::host`).
//!
//! A newer version of this module is another library beside this one, and both are used until the last stream of the older
//! one has ended. The records must be the same: the keys, and what is left of leases. So the first module of a process
//! gives them to all that come after it, by [`Table`].

mod table;

use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use tollgate_filter::host::{Conflict, Shared, Version};

pub use table::Table;

/// The records of one module.
#[derive(Debug, Default)]
pub struct Records(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<String, Record>,
    last: u32,
}

#[derive(Debug, Clone)]
struct Record {
    value: Vec<u8>,
    version: u32,
}

/// The records of this process.
pub static RECORDS: LazyLock<&'static Table> = LazyLock::new(Table::of_process);

impl Shared for Records {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        // Nothing panics under this lock, and a record is always whole.
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_key.get(key).map(|record| (record.value.clone(), Version(record.version)))
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), Conflict> {
        let inner = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        let record = inner.by_key.get_mut(key);
        if let (Some(Version(expected)), Some(record)) = (version, &record)
            && expected != record.version
        {
            return Err(Conflict);
        }
        inner.last = inner.last.wrapping_add(1);
        let version = inner.last;
        match record {
            Some(record) => {
                record.value.clear();
                record.value.extend_from_slice(value);
                record.version = version;
            }
            None => {
                inner.by_key.insert(key.to_owned(), Record { value: value.to_owned(), version });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Records {
    pub fn clear(&self) {
        *self.0.write().unwrap() = Inner::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_filter::host::{read_u64, update};

    #[test]
    fn a_record_is_swapped_by_whoever_saw_it_last() {
        let records = Records::default();
        let table = Table::new(&records);
        // The same, whether it is asked here or by another module.
        for shared in [&records as &dyn Shared, &table] {
            records.clear();
            assert_eq!(shared.get("a"), None);
            shared.set("a", b"one", None).unwrap();
            let (value, seen) = shared.get("a").unwrap();
            assert_eq!(value, b"one");
            shared.set("b", b"other", None).unwrap();
            shared.set("a", b"two", Some(seen)).unwrap();
            assert_eq!(shared.set("a", b"three", Some(seen)), Err(Conflict));
            assert_eq!(shared.get("a").unwrap().0, b"two");
            shared.set("a", b"four", None).unwrap();
            assert_eq!(shared.get("a").unwrap().0, b"four");
            shared.set("a", b"", None).unwrap();
            assert_eq!(shared.get("a").unwrap().0, b"");
        }
    }

    #[test]
    fn no_change_of_many_threads_is_lost() {
        let records = Records::default();
        let table = Table::new(&records);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let add = |record: &[u8]| (Some((read_u64(record) + 1).to_le_bytes().to_vec()), ());
                        update(&table, "count", 1, add).unwrap();
                    }
                });
            }
        });
        assert_eq!(read_u64(&records.get("count").unwrap().0), 2000);
    }
}
