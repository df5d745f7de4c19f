//! Whether the kernel kills for want of memory, as far as it tells: a process that it kills cannot say so, and its status
//! is that of any SIGKILL.

use std::{fs, path::Path};

/// How many processes the kernel has killed for want of memory: in this process's control group, or in the whole system
/// where there is none. A worker that died of SIGKILL while this went up was probably one of them.
#[must_use]
pub fn kills() -> Option<u64> {
    in_group().or_else(in_system)
}

/// Counted in cgroup v2's `memory.events`.
fn in_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    // Within a container the path is that of the system outside, or of the container, which is mounted as the root.
    let events = [root.join(group), root.to_owned()];
    let events = events
        .iter()
        .find_map(|folder| fs::read_to_string(folder.join("memory.events")).ok())?;
    counted(&events)
}

fn in_system() -> Option<u64> {
    counted(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn counted(counters: &str) -> Option<u64> {
    let number = counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_one_of_the_kernels_counters() {
        assert_eq!(
            counted("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"),
            Some(2)
        );
        assert_eq!(counted("low 0\n"), None);
    }
}
