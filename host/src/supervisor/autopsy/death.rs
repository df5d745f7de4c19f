//! How a worker died, and the text of it.

use std::{fmt, path::PathBuf};

use super::{
    Blame, Generation,
    blame::at_work,
    place::{Frame, Held, Symbols},
};
use crate::scoreboard::{BoardSnapshot, CodeAddress, Crash, Request};

/// How a worker died.
#[derive(Clone, Debug)]
pub struct Death {
    /// What ended it, such as `SIGSEGV at address 0x0`.
    pub what: String,
    /// Who is to blame.
    pub blame: Option<Blame>,
    /// The request that was worked on.
    pub request: Option<Request>,
    /// The name of the thread that did it.
    pub thread: Option<String>,
    /// The addresses that the thread was at, the innermost first.
    pub addresses: Vec<CodeAddress>,
    /// Those in libraries of apps, or else all, as functions and lines, once they were [looked up](Self::locate).
    pub place: Vec<Frame>,
    /// The libraries of the worker's apps.
    pub copies: Vec<PathBuf>,
    /// Those of them that the addresses are in, opened.
    held: Held,
    /// Who was at work, where nothing says who of them it was.
    pub suspects: Vec<Generation>,
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
            held: Held::default(),
            suspects: at_work(board),
        }
    }

    /// A worker that could not be started.
    pub(in crate::supervisor) fn never_began(error: String) -> Self {
        Self::new(&BoardSnapshot::default(), error)
    }

    /// Opens the libraries that are to be read, as they may be removed before they are.
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
        self.held = Held::open(files);
    }

    /// Looks up the functions and lines, by the symbols of the libraries. That takes up to some seconds for one with full
    /// debug information: not for a thread that others wait for.
    #[must_use]
    pub fn locate(mut self) -> Self {
        let copies: Vec<_> = self.copies.iter().map(PathBuf::as_path).collect();
        self.place = Symbols::new(&self.held).frames(&self.addresses, &copies);
        self
    }

    /// The frame that says most: the innermost one of the blamed app's own code, or of its library, or of all.
    #[must_use]
    pub fn frame(&self) -> Option<&Frame> {
        let own = self
            .place
            .iter()
            .find(|frame| frame.is_app && frame.is_authors());
        let of_library = || self.place.iter().find(|frame| frame.is_app);
        own.or_else(of_library).or_else(|| self.place.first())
    }

    /// Takes over what a record says.
    pub(super) fn tell(&mut self, record: &Crash) {
        self.request = record.work.as_ref().and_then(|work| work.request.clone());
        self.thread = Some(record.name.clone());
        self.addresses.clone_from(&record.frames);
    }
}

/// One line: what, who, which request, where.
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
