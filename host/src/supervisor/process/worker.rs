//! What a worker does first, and how it ends with its supervisor.

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

/// The channel's descriptor in a worker has this number or a higher one, where a plugin that closes
/// the standard ones or the first few does not meet it.
pub const CHANNEL_FD: RawFd = 64;

/// Takes the channel to the supervisor, which is this process's stdin, and makes stdin `/dev/null`.
/// A worker calls this before anything else, on its first thread.
///
/// # Errors
///
/// Fails when stdin is no Unix socket: somebody has started a worker by hand.
pub fn take_channel() -> io::Result<OwnedFd> {
    if socket_domain(stdin()).ok() != Some(rustix::net::AddressFamily::UNIX) {
        return Err(io::Error::other(
            "stdin is no channel to a supervisor: a worker is started by `host` alone",
        ));
    }
    let channel = fcntl_dupfd_cloexec(stdin(), CHANNEL_FD)?;
    dup2_stdin(File::open("/dev/null")?)?;
    // The kernel takes the name from the path that was executed, which is a number in
    // /proc/self/fd.
    set_name(c"host")?;
    Ok(channel)
}

/// Ends this process `grace` after the supervisor is gone, whatever state the process is in. The
/// graceful stop is the caller's work, and has that time.
///
/// A thread of its own waits, which needs no runtime and takes no lock that a plugin can hold. The
/// parent-death signal (PR_SET_PDEATHSIG) is no way to do this: the signal comes when the *thread*
/// that started the worker ends, also when the supervisor is upgraded in place (prctl(2)).
///
/// # Errors
///
/// Returns the system's error when there is no thread or descriptor for it.
pub fn end_with_supervisor(channel: &impl AsFd, grace: Duration) -> io::Result<()> {
    let channel = fcntl_dupfd_cloexec(channel, CHANNEL_FD)?;
    let watch = move || {
        // No event is asked for: the end is told anyway (poll(2)).
        let mut fds = [PollFd::new(&channel, PollFlags::empty())];
        while !fds[0].revents().contains(PollFlags::HUP) {
            // EINTR is the only failure of a wait for one open descriptor.
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
