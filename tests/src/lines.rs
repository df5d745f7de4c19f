//! The output of a host: collects the lines while the host prints them, and parses lines of the log.

use std::{
    fmt::Display,
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::eventually;

/// The lines that a stream has printed so far. A thread reads the stream all the time, so that the host never blocks on
/// a full pipe.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Mutex<Output>>);

#[derive(Debug, Default)]
struct Output {
    lines: Vec<String>,
    is_closed: bool,
}

impl Lines {
    /// Starts to read the lines of a stream.
    #[must_use]
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let writer = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                writer
                    .lock()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
            writer.lock().is_closed = true;
        });
        lines
    }

    /// Starts to read the lines of a child's stream. If the stream is not piped to the test, it counts as empty.
    pub(crate) fn of_child(stream: Option<impl Read + Send + 'static>) -> Self {
        match stream {
            Some(stream) => Self::of(stream),
            None => Self::of(io::empty()),
        }
    }

    /// Returns the lines so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Returns the lines so far that contain all of `parts`.
    #[must_use]
    pub fn with(&self, parts: &[&str]) -> Vec<String> {
        let has_parts = |line: &&String| parts.iter().all(|part| line.contains(part));
        self.lock()
            .lines
            .iter()
            .filter(has_parts)
            .cloned()
            .collect()
    }

    /// Waits for a line that contains all of `parts`, and returns the first such line.
    pub async fn eventually(&self, parts: &[&str]) -> String {
        self.nth_with(0, parts).await
    }

    /// Waits until `index` + 1 lines contain all of `parts`, and returns the last of these lines.
    pub async fn nth_with(&self, index: usize, parts: &[&str]) -> String {
        let what = format!("line {index} with {parts:?}");
        eventually(&what, async || self.with(parts).into_iter().nth(index)).await
    }

    /// Waits for line `index`, counted from 0, and returns the line.
    pub async fn nth(&self, index: usize) -> String {
        let what = format!("line {index}");
        eventually(&what, async || self.lock().lines.get(index).cloned()).await
    }

    /// Waits for the end of the stream.
    pub async fn closed(&self) {
        eventually("the end of the output", async || {
            self.lock().is_closed.then_some(())
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of a line of the log: `TIME LEVEL SOURCE: TARGET: TEXT in request{id=ID}:SPANS`.
///
/// The source is a plugin with its generation, or `host`. The line contains no source if the target belongs to the
/// host's own code (`host::…`). The parts after the text may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The level, for example `INFO`.
    pub level: String,
    /// The plugin's name, or `host`.
    pub source: String,
    /// The generation of the plugin; 0 for the host.
    pub generation: u64,
    /// The target.
    pub target: String,
    /// The message and the fields. In a line outside of a request, the spans belong to the text.
    pub text: String,
    /// The ID of the request; empty outside of a request.
    pub request_id: String,
    /// The spans within the request.
    pub spans: String,
}

impl Line {
    /// Splits a line.
    ///
    /// # Panics
    ///
    /// Panics if `line` does not have the format of a log line.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        Self::try_parse(line).unwrap_or_else(|| panic!("no line of a log: {line:?}"))
    }

    fn try_parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let rest = rest.trim_start();
        // A target of the host's own code has no source before it.
        let (source, rest) = match rest.starts_with("host::") {
            true => ("host", rest),
            false => rest.split_once(": ")?,
        };
        let (target, text) = rest.split_once(": ")?;
        let (source, generation) = match source.split_once('#') {
            Some((plugin, generation)) => (plugin, generation.parse().ok()?),
            None => (source, 0),
        };
        let (text, request) = text.rsplit_once(" in request{id=").unwrap_or((text, ""));
        let (request, spans) = request.split_once('}').unwrap_or_default();
        let is_time = time.len() == 27 && time.ends_with('Z');
        is_time.then(|| Self {
            level: level.into(),
            source: source.into(),
            generation,
            target: target.into(),
            text: text.into(),
            request_id: request.split(' ').next().unwrap_or_default().into(),
            spans: spans.trim_start_matches(':').into(),
        })
    }

    /// Returns whether the host itself has written the line.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.source == "host"
    }
}

impl Display for Lines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.all()
            .iter()
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
