//! How much memory there is for Envoy: the limit of the container or of the machine, whichever is less.

use std::fs;
use std::path::Path;

/// The limit is divided by this, and Envoy's heap may have one part. The rest is for what its allocator does not see
/// (the filter's VMs, code, stacks) and for the control plane beside it.
const HEAP_PART: u64 = 2;
/// The limit where nothing tells one: what a small container has.
const UNKNOWN: u64 = 1 << 30;

/// The largest heap that Envoy is to have on this machine.
pub fn heap() -> u64 {
    limit(Path::new("/")) / HEAP_PART
}

/// `512Mi`, `2Gi` or a number of bytes, as Kubernetes writes memory.
///
/// # Errors
/// When it is none of these, or zero.
pub fn quantity(text: &str) -> Result<u64, String> {
    let (number, unit) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .into_iter()
        .find_map(|(name, shift)| Some((text.strip_suffix(name)?, 1_u64 << shift)))
        .unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("`{text}` is no amount of memory (like 512Mi or 2Gi)"))
}

/// `root` is `/`, except in tests.
fn limit(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = of_machine(&read("proc/meminfo"));
    let groups = groups(&read("proc/self/cgroup"));
    let container = groups.iter().filter_map(|path| read(path).trim().parse::<u64>().ok());
    machine.into_iter().chain(container).min().unwrap_or(UNKNOWN)
}

/// The machine's memory in bytes. MemTotal is in KiB.
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Files that can hold a limit: of our own control group and of all groups above it, in both versions of cgroups.
/// Inside a container our own group often looks like the root.
fn groups(of_self: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in of_self.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let above = Path::new(path).ancestors().filter_map(|path| path.to_str());
        files.extend(above.map(|path| format!("{base}/{}/{file}", path.trim_matches('/')).replace("//", "/")));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const EIGHT_GIB: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_smallest_limit_counts() {
        let group = ("proc/self/cgroup", "0::/pod/container\n");
        let of = |files: &[(&str, &str)]| limit(machine(files).path());
        assert_eq!(of(&[EIGHT_GIB]), 8 << 30);
        assert_eq!(of(&[EIGHT_GIB, group, ("sys/fs/cgroup/pod/container/memory.max", "max\n")]), 8 << 30);
        assert_eq!(of(&[EIGHT_GIB, group, ("sys/fs/cgroup/pod/container/memory.max", "1073741824\n")]), 1 << 30);
        assert_eq!(of(&[EIGHT_GIB, group, ("sys/fs/cgroup/pod/memory.max", "536870912\n")]), 512 << 20);
        assert_eq!(of(&[EIGHT_GIB, group, ("sys/fs/cgroup/memory.max", "268435456\n")]), 256 << 20);
        assert_eq!(of(&[]), UNKNOWN);
    }

    #[test]
    fn the_first_version_of_cgroups_has_another_file() {
        let group = ("proc/self/cgroup", "4:memory:/docker/x\n3:cpu:/docker/x\n0::/\n");
        // There a number without meaning stands for "no limit".
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limited = ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1048576\n");
        assert_eq!(limit(machine(&[EIGHT_GIB, group, unlimited]).path()), 8 << 30);
        assert_eq!(limit(machine(&[EIGHT_GIB, group, unlimited, limited]).path()), 1 << 20);
    }

    #[test]
    fn quantities_are_as_in_kubernetes() {
        assert_eq!(quantity("512Mi"), Ok(512 << 20));
        assert_eq!(quantity("2Gi"), Ok(2 << 30));
        assert_eq!(quantity("4096"), Ok(4096));
        for wrong in ["", "0", "Mi", "1.5Gi", "-1Mi", "1M", "99999999999Gi"] {
            assert!(quantity(wrong).is_err(), "{wrong}");
        }
    }
}
