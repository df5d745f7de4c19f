//! Reads what a child process prints to stdout and stderr: passes each line on, and keeps the last ones
//! for the time after its death. A line such as `fatal runtime error: stack overflow` or `double free or
//! corruption` is often the only evidence of a crash.

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

use self::lines::LineSplitter;
use crate::channel::{Packing, Unpacking};

/// One of the two standard streams for output.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardStream {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// Reads the output of a process and keeps its last lines. Clones share them.
#[derive(Clone)]
pub struct OutputTail {
    streams: [Arc<OutputPipe>; 2],
    /// Tracks the two tasks that read the pipes.
    reading: TaskTracker,
    kept: Arc<Mutex<TailBuffer>>,
}

impl OutputTail {
    /// Reads both pipes until their ends, and calls `line` with each complete line, without the line break.
    /// A line longer than 16 KiB is split. `line` runs in a task and must not block for long. Must be called
    /// within a tokio runtime with I/O.
    pub fn follow(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        line: impl Fn(StandardStream, &str) + Send + Sync + 'static,
    ) -> Self {
        let streams = [
            (StandardStream::Stdout, stdout),
            (StandardStream::Stderr, stderr),
        ]
        .map(|(stream, pipe)| Arc::new(OutputPipe::new(stream, pipe, LineSplitter::default())));
        Self::start(streams, TailBuffer::default(), line)
    }

    fn start(
        streams: [Arc<OutputPipe>; 2],
        kept: TailBuffer,
        line: impl Fn(StandardStream, &str) + Send + Sync + 'static,
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

    /// Returns the last lines of both streams, at most 8 KiB, in the order in which they came.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        lock(&self.kept).lines.iter().cloned().collect()
    }

    /// Waits until all output of the dead process is read, and returns the last lines. The wait ends after
    /// `limit` at the latest, because a child of the process may still hold the pipes open.
    pub async fn finish(&self, limit: Duration) -> Vec<String> {
        let _ = time::timeout(limit, self.reading.wait()).await;
        self.tail()
    }

    /// Stops reading until the result is dropped, so that the pipes can be handed to another image of this
    /// process. The caller must not await meanwhile, because the reading tasks block on the locks.
    #[must_use]
    pub fn freeze(&self) -> FrozenOutput<'_> {
        let [stdout, stderr] = &self.streams;
        FrozenOutput {
            streams: [(stdout, lock(&stdout.lines)), (stderr, lock(&stderr.lines))],
            kept: lock(&self.kept),
        }
    }

    /// Goes on reading pipes that an earlier image of this process read. Must be called within a tokio
    /// runtime with I/O.
    ///
    /// # Errors
    ///
    /// When a descriptor is missing or is not a pipe.
    pub fn resume(
        suspended: SuspendedOutput,
        descriptors: &mut Unpacking,
        line: impl Fn(StandardStream, &str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut source = |stream, (number, partial): (usize, String)| {
            let pipe = pipe::Receiver::from_owned_fd(descriptors.take(number)?)?;
            let partial = BASE64_STANDARD.decode(partial).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Arc::new(OutputPipe::new(
                stream,
                pipe,
                LineSplitter::after(partial),
            )))
        };
        let streams = [
            source(StandardStream::Stdout, suspended.stdout)?,
            source(StandardStream::Stderr, suspended.stderr)?,
        ];
        let mut kept = TailBuffer::default();
        suspended.kept.iter().for_each(|line| kept.push(line));
        Ok(Self::start(streams, kept, line))
    }
}

impl fmt::Debug for OutputTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LastWords").field(&self.tail()).finish()
    }
}

/// A pipe, and its incomplete last line.
#[derive(Debug)]
struct OutputPipe {
    stream: StandardStream,
    pipe: pipe::Receiver,
    /// Holds the incomplete line. The lock is held from a read of the pipe until the lines of that read are
    /// passed on, so that [`OutputTail::freeze`] never sees half of a read.
    lines: Mutex<LineSplitter>,
}

impl OutputPipe {
    fn new(stream: StandardStream, pipe: pipe::Receiver, lines: LineSplitter) -> Self {
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

/// The last lines, bounded in bytes.
#[derive(Debug, Default)]
struct TailBuffer {
    lines: VecDeque<String>,
    bytes: usize,
}

impl TailBuffer {
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

/// Stops reading as long as this value exists.
#[derive(Debug)]
pub struct FrozenOutput<'a> {
    streams: [(&'a OutputPipe, MutexGuard<'a, LineSplitter>); 2],
    kept: MutexGuard<'a, TailBuffer>,
}

impl FrozenOutput<'_> {
    /// Describes the pipes and their incomplete lines, and adds the pipes to the descriptors to pass on.
    pub fn suspend<'b>(&'b self, packing: &mut Packing<'b>) -> SuspendedOutput {
        let [stdout, stderr] = self.streams.each_ref().map(|(source, lines)| {
            let partial = BASE64_STANDARD.encode(lines.partial());
            (packing.put(&source.pipe), partial)
        });
        SuspendedOutput {
            stdout,
            stderr,
            kept: self.kept.lines.iter().cloned().collect(),
        }
    }
}

/// The pipes in a form that can be JSON: for each the index of its descriptor, and its incomplete line as
/// base64.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedOutput {
    stdout: (usize, String),
    stderr: (usize, String),
    kept: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes of lines are kept.
const KEPT: usize = 8 << 10;

#[cfg(test)]
mod tests;
