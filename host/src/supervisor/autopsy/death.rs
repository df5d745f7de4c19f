//! The result of an autopsy, and its text for the log.

use std::{fmt, path::PathBuf};

use super::{
    Blame, GenerationId,
    blame::at_work,
    place::{CodeFrame, OpenFiles, Symbols},
};
use crate::scoreboard::{BoardSnapshot, CodeAddress, Crash, Request};

/// How a worker died.
#[derive(Clone, Debug)]
pub struct Death {
    /// The cause, such as `SIGSEGV at address 0x0`.
    pub what: String,
    /// The app that is to blame, if the evidence names one.
    pub blame: Option<Blame>,
    /// The request that the crashed thread was handling.
    pub request: Option<Request>,
    /// The name of the crashed thread.
    pub thread: Option<String>,
    /// The backtrace of the thread as addresses, the innermost first.
    pub addresses: Vec<CodeAddress>,
    /// The backtrace as functions and lines, filled in by [`Self::locate`]. If some addresses are in libraries of
    /// apps, only those are looked up.
    pub place: Vec<CodeFrame>,
    /// The private copies of the worker's apps.
    pub copies: Vec<PathBuf>,
    /// The copies that the addresses are in, held open so that they can be read after their removal.
    held: OpenFiles,
    /// All apps in which threads were working.
    pub suspects: Vec<GenerationId>,
}

impl Death {
    pub(super) fn new(board: &BoardSnapshot, what: String) -> Self {
        Self {
            what,
            blame: None,
            request: None,
            thread: None,
            addresses: Vec::new(),
            place: Vec::new(),
            copies: board.apps.iter().map(|app| app.copy.clone()).collect(),
            held: OpenFiles::default(),
            suspects: at_work(board),
        }
    }

    /// Returns the death of a worker whose process could not be started.
    pub(in crate::supervisor) fn never_began(error: String) -> Self {
        Self::new(&BoardSnapshot::default(), error)
    }

    /// Opens the libraries that [`Self::locate`] reads, because they may be removed before that runs.
    pub fn hold(&mut self) {
        let files = self
            .addresses
            .iter()
            .filter_map(|address| address.place.as_ref());
        let mut files: Vec<_> = files
            .map(|(file, _)| file)
            .filter(|file| self.copies.contains(file))
            .collect();
        files.dedup();
        self.held = OpenFiles::open(files);
    }

    /// Looks up functions and lines by the symbols of the libraries. Takes up to some seconds for a library with
    /// full debug information, so it must run on a blocking thread.
    #[must_use]
    pub fn locate(mut self) -> Self {
        let copies: Vec<_> = self.copies.iter().map(PathBuf::as_path).collect();
        self.place = Symbols::new(&self.held).frames(&self.addresses, &copies);
        self
    }

    /// Returns the most useful frame: the innermost one in the author's own code, else in an app's library, else of
    /// all.
    #[must_use]
    pub fn frame(&self) -> Option<&CodeFrame> {
        let own = self
            .place
            .iter()
            .find(|frame| frame.is_app && frame.is_authors());
        let of_library = || self.place.iter().find(|frame| frame.is_app);
        own.or_else(of_library).or_else(|| self.place.first())
    }

    /// Copies request, thread and backtrace from a crash record.
    pub(super) fn tell(&mut self, record: &Crash) {
        self.request = record.work.as_ref().and_then(|work| work.request.clone());
        self.thread = Some(record.name.clone());
        self.addresses.clone_from(&record.frames);
    }
}

/// One line: the cause, the app, the request and the place.
impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if let Some(Blame { generation, .. }) = &self.blame {
            write!(formatter, " in {generation}")?;
        }
        if let Some(request) = &self.request {
            write!(formatter, ", {} {}", request.method, request.path)?;
        }
        match self.frame() {
            Some(frame) => write!(formatter, ", at {frame}"),
            None => Ok(()),
        }
    }
}
