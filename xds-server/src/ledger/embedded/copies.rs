//! A copy of the books as they are at one moment, while they are written on, and the way back.
//!
//! ```text
//! backup    a read transaction -> a new file beside the ledger, without a name -> whoever asked
//! restore   bytes -> a new file beside the ledger -> checked as a ledger is when it is opened -> in its place
//! ```

use std::fs::{self, File as Plain, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::{Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, Value};
use redb::{Durability, WriteTransaction};

use super::file::{FILE, explain};
use super::rows::{self, Failure};
use super::tables::{ASKED, BUCKETS, CROSSED, HOLDERS, LEASES, META, TOTALS, USAGE, WORKERS};
use crate::ledger::StoreError;

/// What was found in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub buckets: usize,
    pub leases: usize,
    /// Where the ledger that was there before is now.
    pub replaced: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0} is there; with --replace it is kept beside the new one, as {NAME_BEFORE}")]
    Exists(PathBuf),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("the copy cannot be used: {0}")]
    Copy(StoreError),
    #[error("the ledger that is there: {0}")]
    There(StoreError),
}

const NAME_BEFORE: &str = "ledger.redb.before";

/// Writes a copy. Its file has no name any more when this returns, so nothing is left of it, whoever reads it.
pub(super) fn backup(database: &Database, beside: &Path) -> Result<Plain, Failure> {
    let path = unnamed(beside);
    let copied = copy(database, &path);
    let opened = copied.and_then(|()| Plain::open(&path).map_err(|error| Failure::Redb(redb::Error::Io(error))));
    let _not_there = fs::remove_file(&path);
    opened
}

fn copy(database: &Database, path: &Path) -> Result<(), Failure> {
    private(path).map_err(|error| Failure::Redb(redb::Error::Io(error)))?;
    let into = Database::create(path)?;
    let from = database.begin_read()?;
    let mut write = into.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    table(&from, &write, META)?;
    table(&from, &write, BUCKETS)?;
    table(&from, &write, CROSSED)?;
    table(&from, &write, LEASES)?;
    table(&from, &write, HOLDERS)?;
    table(&from, &write, WORKERS)?;
    table(&from, &write, ASKED)?;
    table(&from, &write, USAGE)?;
    table(&from, &write, TOTALS)?;
    Ok(write.commit()?)
}

fn table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    into: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), Failure> {
    let mut into = into.open_table(definition)?;
    for row in from.open_table(definition)?.iter()? {
        let (key, value) = row?;
        into.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// Puts a copy in the place of the ledger in `dir`. A ledger that is there stays, under another name.
///
/// # Errors
/// When the copy is not sound, or of a newer version, or somebody has the ledger open. Then nothing has changed.
pub fn restore(from: &mut impl Read, dir: &Path, replace: bool) -> Result<Restored, RestoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| RestoreError::Io { path, error }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let place = dir.join(FILE);
    let is_there = place.exists();
    if is_there && !replace {
        return Err(RestoreError::Exists(place));
    }
    // Nobody else opens it while this is held. A ledger that is damaged is open nowhere.
    let held = match is_there.then(|| Database::open(&place)) {
        Some(Err(error @ redb::DatabaseError::DatabaseAlreadyOpen)) => {
            return Err(RestoreError::There(explain(&place, error.into())));
        }
        held => held,
    };
    let path = unnamed(&place);
    let restored = take(from, &path).map_err(|error| match error {
        Taken::Io(error) => RestoreError::Io { path: path.clone(), error },
        Taken::Copy(failure) => RestoreError::Copy(explain(&path, failure)),
    });
    let restored = restored.and_then(|restored| {
        if is_there {
            fs::rename(&place, dir.join(NAME_BEFORE)).map_err(at(&place))?;
        }
        fs::rename(&path, &place).map_err(at(&path))?;
        Plain::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
        Ok(Restored { replaced: is_there, ..restored })
    });
    let _moved = fs::remove_file(&path);
    drop(held);
    restored
}

enum Taken {
    Io(io::Error),
    Copy(Failure),
}

fn take(from: &mut impl Read, path: &Path) -> Result<Restored, Taken> {
    let mut file = private(path).map_err(Taken::Io)?;
    io::copy(from, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all()).map_err(Taken::Io)?;
    // redb would make a ledger of an empty file.
    if file.stream_position().map_err(Taken::Io)? == 0 {
        return Err(Taken::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the copy is empty")));
    }
    let of = |error: redb::DatabaseError| Taken::Copy(error.into());
    let database = Database::builder().set_check_integrity_on_open(true).open(path).map_err(of)?;
    rows::prepare(&database).map_err(Taken::Copy)?;
    let records = rows::records(&database).map_err(Taken::Copy)?;
    Ok(Restored { buckets: records.buckets.len(), leases: records.leases.len(), replaced: false })
}

/// A name beside this one that nobody else has.
fn unnamed(path: &Path) -> PathBuf {
    path.with_extension(format!("copy-{:016x}", rand::random::<u64>()))
}

fn private(path: &Path) -> io::Result<Plain> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use redb::{ReadableTableMetadata as _, TableHandle as _, UntypedTableHandle};

    use super::*;

    /// A ledger with some rows of its tables.
    fn books(dir: &Path, consumers: u64) -> Database {
        let database = Database::create(dir.join(FILE)).unwrap();
        rows::prepare(&database).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut totals = write.open_table(TOTALS).unwrap();
            let mut buckets = write.open_table(BUCKETS).unwrap();
            let mut crossed = write.open_table(CROSSED).unwrap();
            for number in 0..consumers {
                let name = format!("consumer-{number}");
                totals.insert((name.as_str(), "r", "m", "b"), (1, 2, 3, 4, 5, 6)).unwrap();
                let scope = format!("[\"{name}\"]");
                buckets.insert(("limit", scope.as_str(), 7), (1, 2, 3)).unwrap();
                crossed.insert(("limit", scope.as_str(), 7), (80, 80)).unwrap();
            }
        }
        write.commit().unwrap();
        database
    }

    fn consumers(dir: &Path) -> u64 {
        let database = Database::open(dir.join(FILE)).unwrap();
        database.begin_read().unwrap().open_table(TOTALS).unwrap().len().unwrap()
    }

    /// Names of tables, each with its number of rows.
    fn tables(database: &Database) -> Vec<(String, u64)> {
        let read = database.begin_read().unwrap();
        let rows = |table: UntypedTableHandle| {
            let name = table.name().to_owned();
            (name, read.open_untyped_table(table).unwrap().len().unwrap())
        };
        read.list_tables().unwrap().map(rows).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_backed_up_comes_back_and_nothing_is_left_beside_it() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let database = books(here.path(), 300);
        let mut copy = backup(&database, &here.path().join(FILE)).unwrap();
        assert_eq!(names(here.path()), [FILE]);
        let found = restore(&mut copy, there.path(), false).unwrap();
        assert_eq!(found, Restored { buckets: 300, leases: 0, replaced: false });
        assert_eq!((consumers(there.path()), names(there.path())), (300, vec![FILE.to_owned()]));
        let restored = Database::open(there.path().join(FILE)).unwrap();
        assert_eq!(tables(&restored), tables(&database));
    }

    #[test]
    fn a_ledger_that_is_there_is_replaced_only_if_that_is_asked_for_and_stays_beside() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (database, before) = (books(here.path(), 2), books(there.path(), 5));
        let copy = || backup(&database, &here.path().join(FILE)).unwrap();
        assert!(matches!(restore(&mut copy(), there.path(), false), Err(RestoreError::Exists(_))));
        let in_use = restore(&mut copy(), there.path(), true).unwrap_err().to_string();
        assert!(in_use.contains("in use by another process"), "{in_use}");
        drop(before);
        assert!(restore(&mut copy(), there.path(), true).unwrap().replaced);
        assert_eq!((consumers(there.path()), names(there.path())), (2, vec![FILE.into(), NAME_BEFORE.into()]));
    }

    #[test]
    fn a_copy_that_is_not_sound_changes_nothing() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut bytes = Vec::new();
        let database = books(here.path(), 300);
        backup(&database, &here.path().join(FILE)).unwrap().read_to_end(&mut bytes).unwrap();
        drop(books(there.path(), 5));
        let half = bytes.get(..bytes.len() / 2).unwrap().to_vec();
        let mut altered = bytes.clone();
        for byte in altered.iter_mut().skip(8192).step_by(64) {
            *byte ^= 0xff;
        }
        for bad in [Vec::new(), b"not a ledger".to_vec(), half, altered] {
            assert!(restore(&mut bad.as_slice(), there.path(), true).is_err(), "{} bytes", bad.len());
            assert_eq!((consumers(there.path()), names(there.path())), (5, vec![FILE.to_owned()]));
        }
        assert!(restore(&mut bytes.as_slice(), there.path(), true).is_ok());
    }
}
