//! The output of a host, line by line as it is printed.

use std::{
    fmt::Display,
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::eventually;

/// The lines of a stream so far. A thread reads them, so that the host never waits for a reader.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Mutex<Output>>);

#[derive(Debug, Default)]
struct Output {
    lines: Vec<String>,
    is_closed: bool,
}

impl Lines {
    /// Reads the lines of a stream that the test has opened.
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

    /// Reads the lines of a child's stream. Returns no lines if the stream is not piped to the
    /// test.
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

    /// Returns the lines so far that contain every one of `parts`.
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

    /// Waits for a line that contains every one of `parts`, and returns the first one.
    pub async fn eventually(&self, parts: &[&str]) -> String {
        self.nth_with(0, parts).await
    }

    /// Of the lines that contain every one of `parts`, waits for the one with the number `index`,
    /// from 0, and returns it.
    pub async fn nth_with(&self, index: usize, parts: &[&str]) -> String {
        let what = format!("line {index} with {parts:?}");
        eventually(&what, async || self.with(parts).into_iter().nth(index)).await
    }

    /// Waits for the line with the number `index`, from 0, and returns it.
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

/// A line of the log, split into its parts: `TIME LEVEL SOURCE: TARGET: TEXT in
/// request{id=ID}:SPANS`. The source is a plugin and its generation, or `host`, which is left out before a target
/// of the host's own code (`host::…`). The parts after the text may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The level, for instance `INFO`.
    pub level: String,
    /// The plugin's name, or `host`.
    pub source: String,
    /// The generation of the plugin; 0 for the host.
    pub generation: u64,
    /// The target.
    pub target: String,
    /// The message and the fields. In a line outside of a request, the spans follow.
    pub text: String,
    /// The id of the request; empty outside of a request.
    pub request_id: String,
    /// The spans within the request.
    pub spans: String,
}

impl Line {
    /// Splits a line.
    ///
    /// # Panics
    ///
    /// When the text is no line of a log.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        Self::try_parse(line).unwrap_or_else(|| panic!("no line of a log: {line:?}"))
    }

    fn try_parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let rest = rest.trim_start();
        // The target of the host's own code names its source.
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

    /// Returns whether the host itself wrote the line.
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
