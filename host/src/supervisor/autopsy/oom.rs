//! Detects kills by the kernel's out-of-memory killer. The exit status of a process that was killed in this way is the
//! same as after any SIGKILL, so only the kernel's counter shows the reason.

use std::{fs, path::Path};

/// Returns how many processes the out-of-memory killer has killed: in this process's control group, or in the whole
/// system if the counter of the group cannot be read. Returns `None` if neither can be read. A worker that died of
/// SIGKILL while this number grew was probably killed for lack of memory.
#[must_use]
pub fn kills() -> Option<u64> {
    kills_in_control_group().or_else(kills_in_system)
}

/// Reads the counter of the control group (cgroup v2, `memory.events`).
fn kills_in_control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    // In a container, /proc may contain the path of the group as the outer system sees it, while the container's own
    // group is mounted at the root. So both folders are tried.
    let events = [root.join(group), root.to_owned()];
    let events = events
        .iter()
        .find_map(|folder| fs::read_to_string(folder.join("memory.events")).ok())?;
    oom_kill_counter(&events)
}

/// Reads the counter of the whole system.
fn kills_in_system() -> Option<u64> {
    oom_kill_counter(&fs::read_to_string("/proc/vmstat").ok()?)
}

/// Returns the value of the line `oom_kill` in the text of a file with counters.
fn oom_kill_counter(counters: &str) -> Option<u64> {
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
            oom_kill_counter("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"),
            Some(2)
        );
        assert_eq!(oom_kill_counter("low 0\n"), None);
    }
}
