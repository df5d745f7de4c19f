//! Keeps stdout and stderr harmless for code that prints.
//!
//! `println!` panics where the reader of a pipe is gone: one debug print in an app would answer its
//! requests with 500, and a hundred take it out of service. A closed stdout is harmless already, as
//! `println!` takes that for a wish. So a stream whose reader goes becomes `/dev/null`.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::fcntl_dupfd_cloexec,
    stdio::{dup2_stderr, dup2_stdout},
};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

/// Watches both streams from now on, on the runtime that it is called on. The system tells when a
/// reader goes, so that it costs nothing until then.
pub fn keep_harmless() {
    watch("stdout", io::stdout(), |null| dup2_stdout(null));
    watch("stderr", io::stderr(), |null| dup2_stderr(null));
}

fn watch(
    name: &'static str,
    stream: impl AsFd,
    replace: impl FnOnce(&File) -> rustix::io::Result<()> + Send + 'static,
) {
    // Files and what is like them have no reader that could go: epoll(7) does not take them.
    let Ok(stream) = Stream::new(stream) else {
        return;
    };
    tokio::spawn(async move {
        stream.is_gone().await;
        let null = File::options().write(true).open("/dev/null");
        if null.is_ok_and(|null| replace(&null).is_ok()) {
            warn!(
                stream = name,
                "Its reader is gone: what is printed there is dropped from now on"
            );
        }
    });
}

/// A stream, and what the system is asked to tell of it.
struct Stream {
    stream: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Stream {
    fn new(stream: impl AsFd) -> io::Result<Self> {
        let stream = fcntl_dupfd_cloexec(stream, 3)?;
        let interest = match FileType::from_raw_mode(fstat(&stream)?.st_mode) {
            // When the other end is closed, that is the end of what can be read.
            FileType::Socket => Interest::ERROR | Interest::READABLE,
            _ => Interest::ERROR,
        };
        #[expect(
            deprecated,
            reason = "what took its place is unsafe, for types that can close their descriptor; an OwnedFd cannot"
        )]
        let stream = AsyncFd::with_interest(stream, interest)?;
        Ok(Self { stream, interest })
    }

    /// Returns when nobody can read any more what is written.
    async fn is_gone(&self) {
        while let Ok(mut ready) = self.stream.ready(self.interest).await {
            let mut fds = [PollFd::new(self.stream.get_ref(), PollFlags::OUT)];
            let polled = poll(&mut fds, Some(&Timespec::default()));
            if polled.is_err() || fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                return;
            }
            ready.clear_ready();
        }
    }
}
