//! Replaces stdout or stderr by `/dev/null` when the reader of the stream closes its end.
//!
//! `println!` panics when the reader of its pipe is gone. With a debug print in a handler, the requests of that app
//! would be answered with status 500, and after a hundred panics the app would be taken out of service. A stdout that
//! was closed from the start needs no replacement, because `println!` ignores a closed stdout.

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

/// Watches both streams from now on, with tasks of the current runtime. Watching costs nothing until a reader closes
/// its end, because the system reports that event.
pub fn replace_when_unread() {
    watch("stdout", io::stdout(), |null| dup2_stdout(null));
    watch("stderr", io::stderr(), |null| dup2_stderr(null));
}

/// Watches one stream. Calls `replace` with `/dev/null` when the reader of the stream is gone.
fn watch(
    name: &'static str,
    stream: impl AsFd,
    replace: impl FnOnce(&File) -> rustix::io::Result<()> + Send + 'static,
) {
    // Fails for a file, because epoll(7) does not accept files. A file needs no watch, because a file has no reader.
    let Ok(stream) = WatchedStream::new(stream) else {
        return;
    };
    tokio::spawn(async move {
        stream.reader_gone().await;
        let null = File::options().write(true).open("/dev/null");
        if null.is_ok_and(|null| replace(&null).is_ok()) {
            warn!(
                stream = name,
                "The reader of this stream has closed it: output to the stream is dropped from now on"
            );
        }
    });
}

/// A stream whose reader may close its end.
struct WatchedStream {
    /// A duplicate of the stream's descriptor.
    stream: AsyncFd<OwnedFd>,
    /// The events that may mean that the reader is gone.
    interest: Interest,
}

impl WatchedStream {
    fn new(stream: impl AsFd) -> io::Result<Self> {
        // A duplicate, because `AsyncFd` owns its descriptor, and the standard stream itself must stay open. The number
        // is at least 3, so that the duplicate never takes the number of a closed standard stream.
        let stream = fcntl_dupfd_cloexec(stream, 3)?;
        let interest = match FileType::from_raw_mode(fstat(&stream)?.st_mode) {
            // If the other end of a socket is closed, the socket becomes readable: a read returns the end of the
            // stream.
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
            // The event may have another cause, such as received bytes. poll(2) returns the state.
            let mut fds = [PollFd::new(self.stream.get_ref(), PollFlags::OUT)];
            let polled = poll(&mut fds, Some(&Timespec::default()));
            if polled.is_err() || fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                return;
            }
            ready.clear_ready();
        }
    }
}
