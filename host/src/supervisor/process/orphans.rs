//! Reaps orphans. If the parent of a process exits, the process becomes a child of the container's first process (PID
//! 1). PID 1 must reap such a child after its exit. Otherwise zombies fill the process table.

use std::{fs, io};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::signal::unix::{SignalKind, signal};

use super::Children;

impl Children {
    /// Starts a task that reaps orphans. Only PID 1 and subreapers get orphans. The children in the set are not reaped.
    /// All children of this process must be started by [`Children::start`]: the task would reap the child of a plain
    /// `Command`, and the exit status would be lost. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns the system's error when signals cannot be received.
    pub fn reap_orphans(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        let children = self.clone();
        tokio::spawn(async move {
            loop {
                // Called before the first signal, because orphans may have exited before the handler was installed. One
                // signal may stand for several exits, so each call checks all processes.
                children.reap();
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Reaps every zombie that is a child of this process and is not in the set.
    fn reap(&self) {
        // The lock is held until the end, so that no process is added to the set after the check and before it is
        // reaped.
        let watched = self.watched();
        let Ok(processes) = fs::read_dir("/proc") else {
            return;
        };
        let pids = processes.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<i32>().ok()
        });
        let us = getpid().as_raw_pid();
        for pid in pids.filter(|pid| !watched.contains(pid)) {
            let is_ours = fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| is_zombie_of(&stat, us));
            if let Some(pid) = Pid::from_raw(pid).filter(|_| is_ours) {
                // Each orphan is reaped by its number, because `waitid` for any child could reap a child in the set.
                let _ = waitid(
                    WaitId::Pid(pid),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
                );
            }
        }
    }
}

/// Returns whether `stat`, the text of `/proc/PID/stat`, describes a zombie whose parent is `parent`. The name of the
/// process is in parentheses, and may itself contain spaces and parentheses (proc_pid_stat(5)). So the fields are
/// parsed after the last parenthesis.
fn is_zombie_of(stat: &str, parent: i32) -> bool {
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
    let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
    fields.next() == Some("Z") && fields.next().and_then(|pid| pid.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::is_zombie_of;

    #[test]
    fn a_zombie_is_known_by_its_line() {
        assert!(is_zombie_of("12 (sh) Z 7 12 12 0", 7));
        assert!(is_zombie_of("12 (a) S 1 (b)) Z 7 12", 7));
        assert!(!is_zombie_of("12 (sh) S 7 12 12 0", 7));
        assert!(!is_zombie_of("12 (sh) Z 8 12 12 0", 7));
        assert!(!is_zombie_of("", 7));
    }
}
