//! What a worker prints to stdout and stderr: each line is handed on, and the last ones are kept
//! for the time when the worker is dead. Words such as `fatal runtime error: stack overflow` or
//! `double free or corruption` are often all that is known of a crash.

mod lines;

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::{net::unix::pipe, time};
use tokio_util::task::TaskTracker;

use self::lines::Lines;
use crate::channel::{Packing, Unpacking};

/// One of the two standard streams that a process prints to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// The lines that a process printed last. Clones are of the same process.
#[derive(Clone)]
pub struct LastWords {
    streams: [Arc<Source>; 2],
    /// The tasks that read.
    reading: TaskTracker,
    kept: Arc<Mutex<Kept>>,
}

impl LastWords {
    /// Reads both pipes until their ends, and calls `line` with each line as soon as the line is
    /// whole, without its line break. A line longer than 16 KiB becomes several. `line` runs in a
    /// task and must not block for long. Runs in a tokio runtime with I/O.
    pub fn follow(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        line: impl Fn(Stream, &str) + Send + Sync + 'static,
    ) -> Self {
        let streams = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
            .map(|(stream, pipe)| Arc::new(Source::new(stream, pipe, Lines::default())));
        Self::start(streams, Kept::default(), line)
    }

    fn start(
        streams: [Arc<Source>; 2],
        kept: Kept,
        line: impl Fn(Stream, &str) + Send + Sync + 'static,
    ) -> Self {
        let (kept, line) = (Arc::new(Mutex::new(kept)), Arc::new(line));
        let reading = TaskTracker::new();
        for source in &streams {
            let (source, kept, line) = (Arc::clone(source), Arc::clone(&kept), Arc::clone(&line));
            let keep = move |stream, text: &str| {
                lock(&kept).push(text);
                line(stream, text);
            };
            reading.spawn(async move { source.read(|text| keep(source.stream, text)).await });
        }
        reading.close();
        Self {
            streams,
            reading,
            kept,
        }
    }

    /// The last lines of both streams, at most 8 KiB, in the order in which they came.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        lock(&self.kept).lines.iter().cloned().collect()
    }

    /// Waits until all that the dead process has printed is read, and returns the last lines.
    /// `limit` is for a child of the process that still holds the pipes open.
    pub async fn finish(&self, limit: Duration) -> Vec<String> {
        let _ = time::timeout(limit, self.reading.wait()).await;
        self.tail()
    }

    /// Stops reading until the result is dropped, so that the pipes can be handed to another image
    /// of this process. No await may happen in between.
    #[must_use]
    pub fn freeze(&self) -> FrozenWords<'_> {
        let [stdout, stderr] = &self.streams;
        FrozenWords {
            streams: [(stdout, lock(&stdout.lines)), (stderr, lock(&stderr.lines))],
            kept: lock(&self.kept),
        }
    }

    /// Goes on with pipes that an earlier image of this process read. Runs in a tokio runtime with
    /// I/O.
    ///
    /// # Errors
    ///
    /// Fails when a descriptor is missing, or no pipe.
    pub fn resume(
        suspended: SuspendedWords,
        descriptors: &mut Unpacking,
        line: impl Fn(Stream, &str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut source = |stream, (number, partial): (usize, String)| {
            let pipe = pipe::Receiver::from_owned_fd(descriptors.take(number)?)?;
            let partial = BASE64_STANDARD.decode(partial).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Arc::new(Source::new(stream, pipe, Lines::after(partial))))
        };
        let streams = [
            source(Stream::Stdout, suspended.stdout)?,
            source(Stream::Stderr, suspended.stderr)?,
        ];
        let mut kept = Kept::default();
        suspended.kept.iter().for_each(|line| kept.push(line));
        Ok(Self::start(streams, kept, line))
    }
}

impl fmt::Debug for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LastWords").field(&self.tail()).finish()
    }
}

/// A pipe, and the line that is not whole yet.
#[derive(Debug)]
struct Source {
    stream: Stream,
    pipe: pipe::Receiver,
    /// The lock is held from a read of the pipe until the lines of that read are handed on.
    lines: Mutex<Lines>,
}

impl Source {
    fn new(stream: Stream, pipe: pipe::Receiver, lines: Lines) -> Self {
        let lines = Mutex::new(lines);
        Self {
            stream,
            pipe,
            lines,
        }
    }

    async fn read(&self, mut line: impl FnMut(&str)) {
        loop {
            if self.pipe.readable().await.is_err() {
                return;
            }
            let mut lines = lock(&self.lines);
            let mut bytes = [0; 4096];
            match self.pipe.try_read(&mut bytes) {
                Ok(0) => return lines.finish(&mut line),
                Ok(len) => lines.feed(&bytes[..len], &mut line),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return lines.finish(&mut line),
            }
        }
    }
}

/// The last lines.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, line: &str) {
        let mut start = line.len().saturating_sub(KEPT);
        while !line.is_char_boundary(start) {
            start += 1;
        }
        self.lines.push_back(line[start..].to_owned());
        self.bytes += line.len() - start;
        while self.bytes > KEPT {
            let first = self.lines.pop_front();
            self.bytes -= first.map_or(0, |line| line.len());
        }
    }
}

/// Pipes of which nothing is read until this value is dropped.
#[derive(Debug)]
pub struct FrozenWords<'a> {
    streams: [(&'a Source, MutexGuard<'a, Lines>); 2],
    kept: MutexGuard<'a, Kept>,
}

impl FrozenWords<'_> {
    /// Describes the pipes and what was read of them, and adds the pipes to the descriptors that
    /// travel.
    pub fn suspend<'b>(&'b self, packing: &mut Packing<'b>) -> SuspendedWords {
        let [stdout, stderr] = self.streams.each_ref().map(|(source, lines)| {
            let partial = BASE64_STANDARD.encode(lines.partial());
            (packing.put(&source.pipe), partial)
        });
        SuspendedWords {
            stdout,
            stderr,
            kept: self.kept.lines.iter().cloned().collect(),
        }
    }
}

/// The pipes as a value that can be JSON. Each is a descriptor's number and the line that is not
/// whole, as base64.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedWords {
    stdout: (usize, String),
    stderr: (usize, String),
    kept: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes of the last lines are kept.
const KEPT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::fd::OwnedFd};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    type Seen = Arc<Mutex<Vec<(Stream, String)>>>;

    fn pipe() -> (pipe::Receiver, File) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (
            pipe::Receiver::from_owned_fd(reader).unwrap(),
            File::from(writer),
        )
    }

    fn note(seen: &Seen) -> impl Fn(Stream, &str) + Send + Sync + 'static {
        let seen = Arc::clone(seen);
        move |stream, line| lock(&seen).push((stream, line.to_owned()))
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn lines_of_both_streams_are_handed_on_and_kept() {
        let ((out, mut to_out), (err, mut to_err)) = (pipe(), pipe());
        let seen = Seen::default();
        let words = LastWords::follow(out, err, note(&seen));
        to_out.write_all(b"one\n\ntw").unwrap();
        to_err.write_all(b"fatal runtime error: \xff\n").unwrap();
        to_out.write_all(b"o").unwrap();
        drop((to_out, to_err));
        let kept = words.finish(PATIENCE).await;
        let of = |wanted| {
            let seen = lock(&seen);
            let lines = seen.iter().filter(|(stream, _)| *stream == wanted);
            lines.map(|(_, line)| line.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(Stream::Stdout), ["one", "", "two"]);
        assert_eq!(of(Stream::Stderr), ["fatal runtime error: \u{fffd}"]);
        let all: Vec<_> = lock(&seen).iter().map(|(_, line)| line.clone()).collect();
        assert_eq!(kept, all);
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let ((out, mut to_out), (err, _)) = (pipe(), pipe());
        let words = LastWords::follow(out, err, |_, _| {});
        for number in 0..3000 {
            writeln!(to_out, "{number:>9}").unwrap();
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(to_out);
        let kept = words.finish(PATIENCE).await;
        assert_eq!(kept.len(), KEPT / 9);
        assert_eq!(kept.last().unwrap(), &format!("{:>9}", 2999));
    }

    #[tokio::test]
    async fn a_pipe_that_a_grandchild_holds_open_does_not_hold_up_the_end() {
        let ((out, mut to_out), (err, _)) = (pipe(), pipe());
        let words = LastWords::follow(out, err, |_, _| {});
        to_out.write_all(b"last\n").unwrap();
        while words.tail().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(words.finish(Duration::from_millis(5)).await, ["last"]);
    }

    #[test]
    fn a_line_that_is_half_read_goes_on_after_an_exec() {
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        // The first reader's tasks end with their runtime, as at an exec.
        let (suspended, fds, mut to_out, to_err) = runtime().block_on(async {
            let ((out, mut to_out), (err, to_err)) = (pipe(), pipe());
            let words = LastWords::follow(out, err, |_, _| {});
            to_out.write_all(b"whole\nha").unwrap();
            while words.tail().is_empty() {
                tokio::task::yield_now().await;
            }
            let frozen = words.freeze();
            let mut packing = Packing::default();
            let suspended = frozen.suspend(&mut packing);
            let fds = packing.all().iter().map(|fd| fd.try_clone_to_owned());
            let fds = fds.collect::<Result<Vec<OwnedFd>, _>>().unwrap();
            (suspended, fds, to_out, to_err)
        });
        runtime().block_on(async {
            let (seen, mut fds) = (Seen::default(), Unpacking::from(fds));
            let words = LastWords::resume(suspended, &mut fds, note(&seen)).unwrap();
            assert_eq!(words.tail(), ["whole"]);
            to_out.write_all(b"lf\n").unwrap();
            drop((to_out, to_err));
            assert_eq!(words.finish(PATIENCE).await, ["whole", "half"]);
            assert_eq!(*lock(&seen), [(Stream::Stdout, "half".to_owned())]);
        });
    }
}
