//! Replaces stdout and stderr by `/dev/null` when their readers go away.
//!
//! `println!` panics when the reader of its pipe is gone. One debug print in an app would then answer its
//! requests with 500, and a hundred would take the app out of service. A stdout that was closed from the
//! start needs no such care, because `println!` ignores it.

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

/// Watches both streams from now on, on the current runtime. The system tells when a reader goes away, so that
/// watching costs nothing until then.
pub fn replace_when_unread() {
    watch("stdout", io::stdout(), |null| dup2_stdout(null));
    watch("stderr", io::stderr(), |null| dup2_stderr(null));
}

/// Watches one stream, and calls `replace` with `/dev/null` when its reader has gone away.
fn watch(
    name: &'static str,
    stream: impl AsFd,
    replace: impl FnOnce(&File) -> rustix::io::Result<()> + Send + 'static,
) {
    // Fails for files, which epoll(7) does not accept and which have no reader that could go away.
    let Ok(stream) = WatchedStream::new(stream) else {
        return;
    };
    tokio::spawn(async move {
        stream.reader_gone().await;
        let null = File::options().write(true).open("/dev/null");
        if null.is_ok_and(|null| replace(&null).is_ok()) {
            warn!(
                stream = name,
                "Its reader is gone: what is printed there is dropped from now on"
            );
        }
    });
}

/// A stream whose reader may go away.
struct WatchedStream {
    /// A duplicate of the stream's descriptor.
    stream: AsyncFd<OwnedFd>,
    /// The event that tells that the reader is gone.
    interest: Interest,
}

impl WatchedStream {
    fn new(stream: impl AsFd) -> io::Result<Self> {
        let stream = fcntl_dupfd_cloexec(stream, 3)?;
        let interest = match FileType::from_raw_mode(fstat(&stream)?.st_mode) {
            // A socket whose other end is closed becomes readable, with the end of the stream.
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

    /// Waits until no process can read the stream any more.
    async fn reader_gone(&self) {
        while let Ok(mut ready) = self.stream.ready(self.interest).await {
            // The event may have another cause, such as bytes that came. poll(2) tells the state.
            let mut fds = [PollFd::new(self.stream.get_ref(), PollFlags::OUT)];
            let polled = poll(&mut fds, Some(&Timespec::default()));
            if polled.is_err() || fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                return;
            }
            ready.clear_ready();
        }
    }
}
