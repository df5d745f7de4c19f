//! Kills by the kernel's out-of-memory killer. The exit status of such a process is that of any SIGKILL, so the
//! kernel's counter is the only sign.

use std::{fs, path::Path};

/// Returns how many processes the out-of-memory killer has killed: in this process's control group, or in the
/// whole system where there is no group. A worker that died of SIGKILL while this number grew was probably
/// one of them.
#[must_use]
pub fn kills() -> Option<u64> {
    in_group().or_else(in_system)
}

/// Reads the counter of the control group (cgroup v2, `memory.events`).
fn in_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    // Within a container the path in /proc may be that of the outer system, while the container's own group is
    // mounted as the root. So both are tried.
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
