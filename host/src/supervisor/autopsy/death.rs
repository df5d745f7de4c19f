//! The result of an autopsy, and the text of the result for the log.

use std::{fmt, path::PathBuf};

use super::{
    Blame, GenerationId,
    blame::apps_at_work,
    symbols::{CodeFrame, OpenFiles, Symbols},
};
use crate::scoreboard::{BoardSnapshot, CodeAddress, Request, ThreadReport};

/// Why a worker died.
#[derive(Clone, Debug)]
pub struct Death {
    /// The cause, such as `SIGSEGV at address 0x0`.
    pub cause: String,
    /// The app that is to blame, if the evidence names one.
    pub blame: Option<Blame>,
    /// The request that the crashed or stuck thread was handling.
    pub request: Option<Request>,
    /// The name of the crashed or stuck thread.
    pub thread: Option<String>,
    /// The backtrace of that thread as addresses, the innermost first.
    pub addresses: Vec<CodeAddress>,
    /// The backtrace of that thread as functions and lines. Empty until [`Self::locate`] was called. If any address is
    /// in the library of an app, only the frames in libraries of apps are included.
    pub frames: Vec<CodeFrame>,
    /// The private copies of the worker's apps.
    pub copies: Vec<PathBuf>,
    /// The copies that contain the addresses. They stay open, so that they can be read after their removal.
    open_files: OpenFiles,
    /// All apps in which threads were working.
    pub suspects: Vec<GenerationId>,
}

impl Death {
    /// Creates a death with a cause, without blame and backtrace.
    pub(super) fn new(board: &BoardSnapshot, cause: String) -> Self {
        Self {
            cause,
            blame: None,
            request: None,
            thread: None,
            addresses: Vec::new(),
            frames: Vec::new(),
            copies: board.apps.iter().map(|app| app.copy.clone()).collect(),
            open_files: OpenFiles::default(),
            suspects: apps_at_work(board),
        }
    }

    /// Returns the death of a worker whose process could not be started.
    pub(in crate::supervisor) fn never_started(error: String) -> Self {
        Self::new(&BoardSnapshot::default(), error)
    }

    /// Opens the libraries that [`Self::locate`] reads later. Must be called before the private copies of the worker
    /// are removed.
    pub fn open_libraries(&mut self) {
        let files = self
            .addresses
            .iter()
            .filter_map(|address| address.location.as_ref());
        let mut files: Vec<_> = files
            .map(|(file, _)| file)
            // Only private copies are removed before `locate` runs. Other files are opened by their path.
            .filter(|file| self.copies.contains(file))
            .collect();
        files.dedup();
        self.open_files = OpenFiles::open(files);
    }

    /// Looks up the functions and lines of the backtrace. Must run on a blocking thread, because the lookup takes up
    /// to some seconds for a library with full debug information.
    #[must_use]
    pub fn locate(mut self) -> Self {
        let copies: Vec<_> = self.copies.iter().map(PathBuf::as_path).collect();
        self.frames = Symbols::new(&self.open_files).frames(&self.addresses, &copies);
        self
    }

    /// Returns the most useful frame: the innermost frame in the author's own code, else the innermost frame in an
    /// app's library, else the innermost frame. Returns `None` before [`Self::locate`], or without a backtrace.
    #[must_use]
    pub fn frame(&self) -> Option<&CodeFrame> {
        let own = self
            .frames
            .iter()
            .find(|frame| frame.is_app && frame.is_authors());
        let of_library = || self.frames.iter().find(|frame| frame.is_app);
        own.or_else(of_library).or_else(|| self.frames.first())
    }

    /// Copies request, thread and backtrace from a crash record.
    pub(super) fn copy_record(&mut self, record: &ThreadReport) {
        self.request = record.work.as_ref().and_then(|work| work.request.clone());
        self.thread = Some(record.name.clone());
        self.addresses.clone_from(&record.frames);
    }
}

/// One line: the cause, the app, the request and the place.
impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.cause)?;
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
