//! The records as functions of C, by which every version of the module can use those of another one.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tollgate_filter::host::{Conflict, Shared, Version};

use super::Records;
use crate::{
    abi::{Bytes, Ours},
    host,
};

/// Its layout is a contract between versions of this module, which may be years apart. It never changes; another layout
/// has another name than [`NAME`]. The library that it is of is never unloaded (`do_not_close`).
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    records: *const c_void,
    get: extern "C" fn(*const c_void, Bytes, *mut c_void, extern "C" fn(*mut c_void, Bytes, u32)) -> bool,
    /// The version is looked at if `is_swap`. False: it is another one.
    set: extern "C" fn(*const c_void, Bytes, Bytes, is_swap: bool, version: u32) -> bool,
}

const NAME: &str = "tollgate.records.1";

// SAFETY: the functions may be called on every thread, and `records` is theirs alone.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

// === impl Table ===

impl Table {
    /// It is to be used no longer than these records live.
    pub fn new(records: &Records) -> Self {
        Self { records: std::ptr::from_ref(records).cast(), get, set }
    }

    /// The one that another module of this process gives, or else ours, given to others.
    pub fn of_process() -> &'static Self {
        let given = host::given(NAME).cast::<Self>();
        if !given.is_null() {
            // SAFETY: under this name is a table of this layout, in a library that stays.
            return unsafe { &*given };
        }
        let records: &'static Records = Box::leak(Box::default());
        let table: &'static Self = Box::leak(Box::new(Self::new(records)));
        host::give(NAME, Ours::from(std::ptr::from_ref(table).cast()));
        table
    }
}

impl Shared for Table {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let mut found: Option<(Vec<u8>, Version)> = None;
        let place = (&raw mut found).cast();
        (self.get)(self.records, Bytes::of(key.as_bytes()), place, take);
        found
    }

    fn set(&self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), Conflict> {
        let Version(expected) = version.unwrap_or(Version(0));
        let (key, value) = (Bytes::of(key.as_bytes()), Bytes::of(value));
        let is_set = (self.set)(self.records, key, value, version.is_some(), expected);
        if is_set { Ok(()) } else { Err(Conflict) }
    }
}

/// Receives a record. `place` is that of [`Table::get`].
extern "C" fn take(place: *mut c_void, value: Bytes, version: u32) {
    // SAFETY: `Table::get` gave it, and has nothing to do with it until its call returns.
    let place = unsafe { &mut *place.cast::<Option<(Vec<u8>, Version)>>() };
    // SAFETY: the value is readable until this returns.
    *place = Some((unsafe { value.copied() }, Version(version)));
}

/// # Safety
/// `records` are those of a [`Table`], and the key is a text of whoever calls.
unsafe fn asked<'a>(records: *const c_void, key: Bytes) -> (&'a Records, &'a str) {
    // SAFETY: the caller's promise is passed on.
    let (records, key) = unsafe { (&*records.cast::<Records>(), key.slice()) };
    (records, std::str::from_utf8(key).unwrap_or_default())
}

extern "C" fn get(
    records: *const c_void,
    key: Bytes,
    place: *mut c_void,
    give: extern "C" fn(*mut c_void, Bytes, u32),
) -> bool {
    let found = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a `Table` calls it, with what it has.
        let (records, key) = unsafe { asked(records, key) };
        records.get(key)
    }));
    let Ok(Some((value, Version(version)))) = found else {
        return false;
    };
    give(place, Bytes::of(&value), version);
    true
}

extern "C" fn set(records: *const c_void, key: Bytes, value: Bytes, is_swap: bool, version: u32) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a `Table` calls it, with what it has.
        let ((records, key), value) = unsafe { (asked(records, key), value.slice()) };
        records.set(key, value, is_swap.then_some(Version(version)))
    }));
    matches!(result, Ok(Ok(())))
}

#[cfg(test)]
impl Table {
    pub fn clear(&self) {
        // SAFETY: in a test's process there is this module alone.
        unsafe { asked(self.records, Bytes::NONE) }.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::fake;

    #[test]
    fn the_modules_of_a_process_have_the_same_records() {
        let _turn = fake::start();
        let (one, other) = (Table::of_process(), Table::of_process());
        one.set("a", b"one", None).unwrap();
        assert_eq!(other.get("a").map(|(value, _)| value).as_deref(), Some(b"one".as_slice()));
        assert!(std::ptr::eq(one, other));
    }
}
