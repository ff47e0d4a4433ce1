//! All processes of this machine, and who started whom.

/// A process, its parent, and what it used so far with the children that it has waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: u32,
    /// The program's name, or its beginning.
    pub name: String,
    pub parent: u32,
    pub ticks: u64,
}

/// So many ticks are a second. The kernel has no other value for what it tells programs (USER_HZ).
pub const TICKS: f64 = 100.0;

// === impl Entry ===

impl Entry {
    /// All processes of this machine.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let ids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(ids.filter_map(|id: u32| Self::parse(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)).collect())
    }

    /// Reads a line as in `/proc/ID/stat`. The program's name is in brackets, and may have some itself.
    fn parse(line: &str) -> Option<Self> {
        let (id, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        // Fields 14 to 17: user and system, and the same of children that were waited for.
        let ticks = (11..15).map(number).sum::<Option<u64>>()?;
        Some(Self { id: id.parse().ok()?, name: name.to_owned(), parent: number(1)?.try_into().ok()?, ticks })
    }

    /// This process and all below it.
    pub fn below(root: u32, all: &[Self]) -> Vec<Self> {
        let mut found: Vec<Self> = all.iter().filter(|entry| entry.id == root).cloned().collect();
        let mut next = 0;
        while let Some(parent) = found.get(next).map(|entry| entry.id) {
            found.extend(all.iter().filter(|entry| entry.parent == parent && entry.id != parent).cloned());
            next += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 100 0 0 0 5 6 1 2 20 0 3 0 999 1000 200 184";
        assert_eq!(Entry::parse(line), Some(Entry { id: 42, name: "a (b) c".to_owned(), parent: 7, ticks: 14 }));
        assert_eq!(Entry::parse("42 (short) S 7"), None);
    }

    #[test]
    fn a_tree_has_all_that_descend_from_its_root() {
        let entry = |id, parent| Entry { id, name: String::new(), parent, ticks: 0 };
        let all = [entry(1, 0), entry(5, 4), entry(4, 2), entry(2, 1), entry(3, 1)];
        let ids = |root| Entry::below(root, &all).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(2), [2, 4, 5]);
        assert_eq!(ids(9), [0; 0]);
    }

    #[test]
    fn this_process_is_among_all() {
        let id = std::process::id();
        assert!(Entry::all().unwrap().iter().any(|entry| entry.id == id));
    }
}
