//! What the core needs of its host, as small traits, and the fakes that the tests use.
//!
//! All workers of a process see Envoy's shared data, and each change can be a compare-and-swap. Two traps are closed
//! here once. Envoy cannot swap against "not there yet", so a record is created under a lock (`create`). And a swap is
//! repeated only a bounded number of times.

/// A version of a shared record, for compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u32);

/// Another worker changed the record in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict;

/// Data that all workers of the process share.
pub trait Shared {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// With `None` the write is unconditional.
    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), Conflict>;
}

/// A request whose body Envoy holds.
pub trait RequestBody {
    /// All of it, as it is now.
    fn read(&self) -> Vec<u8>;
}

/// Other workers changed the record each time, and there were too many tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contended;

const LOCK: &str = "lock";
/// A lock is held for microseconds. One that is this old belongs to a dead worker.
const LOCK_STALE_MS: u64 = 1000;
const TRIES: usize = 10_000;

/// Makes the records that must exist before workers start. Only the main thread calls this, before any worker has the
/// configuration.
pub fn prepare(shared: &dyn Shared, records: &[(&str, &[u8])]) {
    for (key, value) in records.iter().chain(&[(LOCK, [0u8; 8].as_slice())]) {
        if shared.get(key).is_none() {
            let _ = shared.set(key, value, None);
        }
    }
}

/// Changes a record by compare-and-swap. `change` gets the present value. It returns the new one (`None`: the record
/// stays as it is) and a result.
pub fn update<T>(
    shared: &dyn Shared,
    key: &str,
    now_ms: u64,
    mut change: impl FnMut(&[u8]) -> (Option<Vec<u8>>, T),
) -> Result<T, Contended> {
    let mut result = None;
    swap(shared, key, now_ms, &mut |record| {
        let (next, value) = change(record);
        result = Some(value);
        next
    })?;
    result.ok_or(Contended)
}

// Not generic: each copy of it would be compiled anew at each start of Envoy.
fn swap(
    shared: &dyn Shared,
    key: &str,
    now_ms: u64,
    change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), Contended> {
    for _ in 0..TRIES {
        let Some((value, version)) = shared.get(key) else {
            create(shared, key, now_ms)?;
            continue;
        };
        match change(&value) {
            None => return Ok(()),
            Some(next) if shared.set(key, &next, Some(version)).is_ok() => return Ok(()),
            Some(_) => {}
        }
    }
    Err(Contended)
}

/// Creates an empty record, but never over one that another worker has made meanwhile.
fn create(shared: &dyn Shared, key: &str, now_ms: u64) -> Result<(), Contended> {
    for _ in 0..TRIES {
        let (held_since, version) = match shared.get(LOCK) {
            Some((value, version)) => (read_u64(&value), Some(version)),
            None => (0, None),
        };
        if held_since != 0 && now_ms < held_since.saturating_add(LOCK_STALE_MS) {
            continue;
        }
        if shared.set(LOCK, &now_ms.max(1).to_le_bytes(), version).is_err() {
            continue;
        }
        if shared.get(key).is_none() {
            // One byte: Envoy cannot tell an empty value from a missing one.
            let _ = shared.set(key, &[0], None);
        }
        let _ = shared.set(LOCK, &[0u8; 8], None);
        return Ok(());
    }
    Err(Contended)
}

/// The little-endian number at the start of a record. 0: the record is shorter.
pub fn read_u64(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Shared data in memory, for native tests. Versions count up as in Envoy.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct FakeShared {
    records: std::cell::RefCell<std::collections::BTreeMap<String, (Vec<u8>, u32)>>,
    last: std::cell::Cell<u32>,
}

#[cfg(test)]
impl FakeShared {
    /// Another worker is creating a record since then, and was interrupted. At 0 it has ended.
    pub fn lock(&self, since: u64) {
        let _ = self.set(LOCK, &since.to_le_bytes(), None);
    }
}

#[cfg(test)]
impl Shared for FakeShared {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.records.borrow().get(key).map(|(value, version)| (value.clone(), Version(*version)))
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), Conflict> {
        let mut records = self.records.borrow_mut();
        if matches!((version, records.get(key)), (Some(Version(expected)), Some((_, current))) if expected != *current)
        {
            return Err(Conflict);
        }
        self.last.set(self.last.get() + 1);
        records.insert(key.to_owned(), (value.to_owned(), self.last.get()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_starts_from_an_empty_record_and_repeats_on_conflict() {
        let shared = FakeShared::default();
        prepare(&shared, &[]);
        let mut first = true;
        let seen = update(&shared, "x", 5, |value| {
            if first {
                first = false;
                shared.set("x", &[9; 8], None).unwrap();
            }
            (Some(7u64.to_le_bytes().to_vec()), read_u64(value))
        });
        assert_eq!(seen, Ok(read_u64(&[9; 8])));
        assert_eq!(read_u64(&shared.get("x").unwrap().0), 7);
    }

    #[test]
    fn a_lock_left_by_a_dead_worker_is_taken_over() {
        let shared = FakeShared::default();
        shared.lock(10);
        assert_eq!(create(&shared, "x", 500), Err(Contended));
        assert_eq!(create(&shared, "x", 1010), Ok(()));
        assert!(shared.get("x").is_some());
    }
}
