//! Connects a worker process to its supervisor: takes over the channel, and ends the process when the supervisor has
//! ended.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::fcntl_dupfd_cloexec,
    net::sockopt::socket_domain,
    process::{Signal, getpid, kill_process},
    stdio::{dup2_stdin, stdin},
    thread::set_name,
};

/// The lowest descriptor number for the channel in a worker. The number is high, because plugins sometimes close
/// descriptors with low numbers by mistake.
pub const CHANNEL_FD: RawFd = 64;

/// Returns the channel to the supervisor. The supervisor passes the channel as stdin, and this function makes stdin
/// `/dev/null`. A worker must call this function before anything else, on its first thread.
///
/// # Errors
///
/// Fails when stdin is not a Unix socket, for example when a person starts a worker by hand.
pub fn take_channel() -> io::Result<OwnedFd> {
    if socket_domain(stdin()).ok() != Some(rustix::net::AddressFamily::UNIX) {
        return Err(io::Error::other(
            "stdin is no channel to a supervisor: a worker is started by `host` alone",
        ));
    }
    // Plugins sometimes close or use the standard descriptors, so the channel gets a high number. Child processes must
    // not inherit the channel, so the duplicate is closed at an exec.
    let channel = fcntl_dupfd_cloexec(stdin(), CHANNEL_FD)?;
    dup2_stdin(File::open("/dev/null")?)?;
    // The kernel names a process after the executed path. The path of a worker is /proc/self/fd/NUMBER, so its name
    // would be a number.
    set_name(c"host")?;
    Ok(channel)
}

/// Kills this process when the time `grace` has passed after the end of the supervisor, even if the process hangs. The
/// caller must stop gracefully within that time.
///
/// A separate thread waits for the end of the supervisor. The thread needs no async runtime and takes no lock, so a
/// plugin cannot block the thread. The parent-death signal (PR_SET_PDEATHSIG, prctl(2)) cannot be used, because the
/// kernel sends that signal when the *thread* that started the worker exits, which also happens at an upgrade of the
/// supervisor in place.
///
/// # Errors
///
/// Returns the system's error when no thread can be started, or when this process may not open more files.
pub fn end_with_supervisor(channel: &impl AsFd, grace: Duration) -> io::Result<()> {
    // The thread needs its own descriptor, which stays open until the process exits.
    let channel = fcntl_dupfd_cloexec(channel, CHANNEL_FD)?;
    let wait_and_kill = move || {
        // POLLHUP means that the supervisor has closed its end. The kernel reports POLLHUP even if no event is
        // requested (poll(2)). No event is requested, because the orders on the channel are read elsewhere.
        let mut fds = [PollFd::new(&channel, PollFlags::empty())];
        while !fds[0].revents().contains(PollFlags::HUP) {
            // The error is ignored, because only EINTR is possible, and the loop then calls `poll` again.
            let _ = poll(&mut fds, None);
        }
        thread::sleep(grace);
        // SIGKILL cannot be blocked or handled by a plugin.
        let _ = kill_process(getpid(), Signal::KILL);
    };
    thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(wait_and_kill)?;
    Ok(())
}
