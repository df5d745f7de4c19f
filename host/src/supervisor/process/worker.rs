//! The worker's side of its process: takes over the channel, and exits when the supervisor is gone.

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

/// The lowest descriptor number for the channel in a worker. Plugins sometimes close the standard
/// descriptors or the first few; a high number is out of their way.
pub const CHANNEL_FD: RawFd = 64;

/// Takes the channel to the supervisor, which is this process's stdin, and makes stdin `/dev/null`.
/// A worker calls this before anything else, on its first thread.
///
/// # Errors
///
/// Fails when stdin is not a Unix socket, as when somebody starts a worker by hand.
pub fn take_channel() -> io::Result<OwnedFd> {
    if socket_domain(stdin()).ok() != Some(rustix::net::AddressFamily::UNIX) {
        return Err(io::Error::other(
            "stdin is no channel to a supervisor: a worker is started by `host` alone",
        ));
    }
    let channel = fcntl_dupfd_cloexec(stdin(), CHANNEL_FD)?;
    dup2_stdin(File::open("/dev/null")?)?;
    // The kernel names the process after the executed path, which was a number in /proc/self/fd.
    set_name(c"host")?;
    Ok(channel)
}

/// Kills this process `grace` after the supervisor is gone, whatever state the process is in. The caller
/// stops gracefully within that time.
///
/// A separate thread waits, which needs no runtime and takes no lock that a plugin can hold. The
/// parent-death signal (PR_SET_PDEATHSIG) cannot be used: it comes when the *thread* that started the
/// worker exits, which also happens when the supervisor is upgraded in place (prctl(2)).
///
/// # Errors
///
/// Returns the system's error when there is no thread or descriptor for it.
pub fn end_with_supervisor(channel: &impl AsFd, grace: Duration) -> io::Result<()> {
    let channel = fcntl_dupfd_cloexec(channel, CHANNEL_FD)?;
    let watch = move || {
        // POLLHUP is reported even if no event is requested (poll(2)).
        let mut fds = [PollFd::new(&channel, PollFlags::empty())];
        while !fds[0].revents().contains(PollFlags::HUP) {
            // The only possible failure is EINTR, so the loop goes on.
            let _ = poll(&mut fds, None);
        }
        thread::sleep(grace);
        let _ = kill_process(getpid(), Signal::KILL);
    };
    thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(watch)?;
    Ok(())
}
