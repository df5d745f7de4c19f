//! Reads the lines that a child process prints to stdout and stderr, passes each line on, and stores the last lines.
//! After a crash of the process, a line such as `fatal runtime error: stack overflow` or `double free or corruption`
//! is often the only evidence.

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

/// Reads the output of a process and stores the last lines. Clones share the stored lines.
#[derive(Clone)]
pub struct OutputTail {
    streams: [Arc<OutputPipe>; 2],
    /// Tracks the two tasks that read the pipes.
    reading: TaskTracker,
    /// The last lines of both streams.
    tail: Arc<Mutex<TailBuffer>>,
}

impl OutputTail {
    /// Starts to read both pipes until their ends, and calls `line` with each complete line, without the line break. A
    /// line longer than 16 KiB is split. `line` runs in a task and must not block for long. Must be called within a
    /// tokio runtime with I/O.
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

    /// Starts the tasks that read the pipes.
    fn start(
        streams: [Arc<OutputPipe>; 2],
        tail: TailBuffer,
        line: impl Fn(StandardStream, &str) + Send + Sync + 'static,
    ) -> Self {
        let (tail, line) = (Arc::new(Mutex::new(tail)), Arc::new(line));
        let reading = TaskTracker::new();
        for source in &streams {
            let (source, tail, line) = (Arc::clone(source), Arc::clone(&tail), Arc::clone(&line));
            let handle_line = move |stream, text: &str| {
                lock(&tail).push(text);
                line(stream, text);
            };
            reading
                .spawn(async move { source.read(|text| handle_line(source.stream, text)).await });
        }
        // `TaskTracker::wait` returns only after the tracker was closed.
        reading.close();
        Self {
            streams,
            reading,
            tail,
        }
    }

    /// Returns the last lines of both streams, at most 8 KiB, in the order in which they were read.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        lock(&self.tail).lines.iter().cloned().collect()
    }

    /// Waits until all output of a process that has exited is read, and returns the last lines. The wait ends after
    /// `limit` at the latest, because a child of the process may still hold the pipes open.
    pub async fn finish(&self, limit: Duration) -> Vec<String> {
        let _ = time::timeout(limit, self.reading.wait()).await;
        self.tail()
    }

    /// Stops the reading of both pipes until the result is dropped, so that the pipes can be handed to another image of
    /// this process. The caller must not await while the result exists, because the reading tasks block their thread
    /// when they lock.
    #[must_use]
    pub fn freeze(&self) -> FrozenOutput<'_> {
        let [stdout, stderr] = &self.streams;
        FrozenOutput {
            streams: [(stdout, lock(&stdout.lines)), (stderr, lock(&stderr.lines))],
            tail: lock(&self.tail),
        }
    }

    /// Continues to read pipes that an earlier image of this process read. Must be called within a tokio runtime with
    /// I/O.
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
        let mut tail = TailBuffer::default();
        suspended.kept.iter().for_each(|line| tail.push(line));
        Ok(Self::start(streams, tail, line))
    }
}

impl fmt::Debug for OutputTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LastWords").field(&self.tail()).finish()
    }
}

/// A pipe, and the incomplete last line that was read from it.
#[derive(Debug)]
struct OutputPipe {
    stream: StandardStream,
    pipe: pipe::Receiver,
    /// The incomplete line. The lock is held from each read of the pipe until the lines of that read are passed on.
    /// So no bytes are lost or passed on twice if [`OutputTail::freeze`] stops the reading between two reads.
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

    /// Reads the pipe until its end, and calls `line` with each line.
    async fn read(&self, mut line: impl FnMut(&str)) {
        loop {
            if self.pipe.readable().await.is_err() {
                return;
            }
            // Locked only after the wait, because the lock must not be held across an await.
            let mut lines = lock(&self.lines);
            let mut bytes = [0; 4096];
            match self.pipe.try_read(&mut bytes) {
                // All writers have closed the pipe.
                Ok(0) => return lines.finish(&mut line),
                Ok(len) => lines.feed(&bytes[..len], &mut line),
                // The pipe was reported as readable but is empty. The failed read has reset that state.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return lines.finish(&mut line),
            }
        }
    }
}

/// The last lines, up to [`MAX_TAIL_BYTES`] in all.
#[derive(Debug, Default)]
struct TailBuffer {
    lines: VecDeque<String>,
    /// The length of all lines.
    bytes: usize,
}

impl TailBuffer {
    /// Adds a line, and removes the oldest lines if the buffer is full. Stores only the end of a very long line.
    fn push(&mut self, line: &str) {
        let mut start = line.len().saturating_sub(MAX_TAIL_BYTES);
        // A slice that begins within a character would panic.
        while !line.is_char_boundary(start) {
            start += 1;
        }
        self.lines.push_back(line[start..].to_owned());
        self.bytes += line.len() - start;
        while self.bytes > MAX_TAIL_BYTES {
            let first = self.lines.pop_front();
            self.bytes -= first.map_or(0, |line| line.len());
        }
    }
}

/// The pipes and the last lines of an [`OutputTail`]. Nothing is read from the pipes while this value exists.
#[derive(Debug)]
pub struct FrozenOutput<'a> {
    streams: [(&'a OutputPipe, MutexGuard<'a, LineSplitter>); 2],
    tail: MutexGuard<'a, TailBuffer>,
}

impl FrozenOutput<'_> {
    /// Returns the pipes and the last lines in a form that can be serialized, and adds the descriptors of the pipes to
    /// `packing`.
    pub fn suspend<'b>(&'b self, packing: &mut Packing<'b>) -> SuspendedOutput {
        let [stdout, stderr] = self.streams.each_ref().map(|(source, lines)| {
            let partial = BASE64_STANDARD.encode(lines.partial());
            (packing.put(&source.pipe), partial)
        });
        SuspendedOutput {
            stdout,
            stderr,
            kept: self.tail.lines.iter().cloned().collect(),
        }
    }
}

/// The pipes and the last lines of an [`OutputTail`], in a form that can be serialized. For each pipe: the index of its
/// descriptor, and its incomplete line as base64, because the line may not be UTF-8.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedOutput {
    stdout: (usize, String),
    stderr: (usize, String),
    kept: Vec<String>,
}

/// Locks the mutex, also after a panic of a thread that held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes of lines are stored.
const MAX_TAIL_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests;
