//! What ended a worker: from its exit status, what its handlers wrote down, and what its threads were doing, to who is to
//! blame and where in the code that was.
//!
//! [`examine`] looks at a worker that died, [`examine_hung`] at one that was ended because it made no progress. Both are
//! pure and take no time; [`Death::locate`] reads the staged copies for the names in [`place`]. Blame is from evidence, in this order: what was written down
//! as the worker died; a load under way, if it is the only one; the only app that threads were in; an app in its probation, if it is the
//! only one. Nobody is blamed for a signal that somebody else has sent.

pub mod oom;
pub mod place;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use self::place::{Frame, Held, Symbols};
use super::process::Ended;
use crate::{
    scoreboard::{Address, Crash, Doing, Request, Snapshot, ThreadState, Work},
    worker::generation::thread_name,
};

/// What is known of a worker that died.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// How it ended.
    pub status: Ended,
    /// What its scoreboard says.
    pub board: &'a Snapshot,
    /// Which apps it was told to load, and has not loaded.
    pub loading: &'a [Generation],
    /// Which of its apps are in their probation.
    pub probation: &'a [Generation],
    /// The end of what it printed to stderr.
    pub last_words: &'a str,
    /// Whether the kernel has killed it for want of memory, as far as can be told: see [`oom`].
    pub out_of_memory: bool,
}

/// A load of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// The app's name.
    pub app: String,
    /// Which load of it.
    pub number: u64,
}

impl From<&(String, u64)> for Generation {
    fn from((app, number): &(String, u64)) -> Self {
        Self {
            app: app.clone(),
            number: *number,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} generation {}", self.app, self.number)
    }
}

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
    pub addresses: Vec<Address>,
    /// Those in libraries of apps, or else all, as functions and lines, once they were [looked up](Self::locate).
    pub place: Vec<Frame>,
    /// The libraries of the worker's apps.
    pub copies: Vec<PathBuf>,
    /// Those of them that the addresses are in, opened.
    held: Held,
    /// Who was at work, where nothing says who of them it was.
    pub suspects: Vec<Generation>,
}

/// Who is to blame for a death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The load of the app.
    pub generation: Generation,
    /// What says so.
    pub reason: Reason,
}

/// What says that an app is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The thread was in the app.
    Thread(Doing),
    /// The code is in the app's library.
    Code,
    /// The thread is one of the app's own.
    ThreadName,
    /// It was the only load under way.
    Loading,
    /// It was the only app that a thread was in.
    Alone,
    /// It was the only one in its probation.
    Probation,
    /// Its thread made no progress.
    Hung,
}

impl Reason {
    /// Whether the app was being started.
    #[must_use]
    pub fn is_start(self) -> bool {
        match self {
            Self::Thread(doing) => doing.is_load(),
            reason => reason == Self::Loading,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Thread(Doing::Request) => "its code was answering a request",
            Self::Thread(Doing::Body) => "its code was sending a response's body",
            Self::Thread(Doing::Drop) => "its code was cleaning up after a request",
            Self::Thread(Doing::Open) => "its library was being opened",
            Self::Thread(Doing::Init) => "it was starting",
            Self::Thread(Doing::HandOver) => "it was handing over its state",
            Self::Thread(Doing::Drain) => "it was told to finish what it has",
            Self::Thread(Doing::Stop) => "it was stopping",
            Self::Code => "the code is its library's",
            Self::ThreadName => "the thread is one of its own",
            Self::Loading => "it was the only one being loaded",
            Self::Alone => "it was the only one at work",
            Self::Probation => "it was the only one in its probation",
            Self::Hung => "its thread made no progress",
        })
    }
}

/// What ended a worker, and who is to blame.
#[must_use]
pub fn examine(evidence: &Evidence<'_>) -> Death {
    let board = evidence.board;
    let record = record_of(evidence);
    let mut death = Death::new(board, status::describe(evidence, record));
    if let Some(record) = record {
        death.tell(record);
        death.blame = recorded(board, record);
    }
    let is_known = death.blame.is_some() || status::is_from_outside(evidence, record);
    if !is_known {
        death.blame = suspected(evidence, &death.suspects);
        if death.request.is_none()
            && let Some(blame) = &death.blame
        {
            death.request = request_of(board, &blame.generation);
        }
    }
    death
}

/// Where a worker was that was ended because its threads made no progress for `timeout`. `dumps` are where its threads were, when
/// they could say.
#[must_use]
pub fn examine_hung(board: &Snapshot, dumps: &[Crash], timeout: Duration) -> Death {
    let mut stuck: Vec<&ThreadState> = board
        .threads
        .iter()
        .filter(|thread| is_stuck(thread, timeout))
        .collect();
    stuck.sort_by_key(|thread| std::cmp::Reverse(thread.work.as_ref().map(|work| work.lasts)));
    let mut death = Death::new(board, format!("no progress for {timeout:?}"));
    let Some(first) = stuck.first() else {
        return death;
    };
    death.thread = Some(first.name.clone());
    if let Some(work) = &first.work {
        death.blame = generation(work).map(|generation| Blame {
            generation,
            reason: Reason::Hung,
        });
        death.request.clone_from(&work.request);
    }
    let dump = dumps.iter().find(|dump| dump.thread == first.thread);
    if let Some(dump) = dump {
        death.addresses.clone_from(&dump.frames);
    }
    death
}

fn is_stuck(thread: &ThreadState, timeout: Duration) -> bool {
    // A thread's clock is right to a second.
    let limit = timeout.saturating_sub(Duration::from_secs(2));
    thread.work.as_ref().is_some_and(|work| work.lasts >= limit)
}

impl Death {
    fn new(board: &Snapshot, what: String) -> Self {
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
    pub(super) fn never_began(error: String) -> Self {
        Self::new(&Snapshot::default(), error)
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
    fn tell(&mut self, record: &Crash) {
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

/// What was written down of the end that the status tells of.
fn record_of<'a>(evidence: &Evidence<'a>) -> Option<&'a Crash> {
    let board = evidence.board;
    let Some(signal) = status::signal(evidence.status) else {
        return board.exit.as_ref();
    };
    let of_signal = board.crashes.iter().find(|crash| crash.signal == signal);
    // What std says of a full stack turns SIGSEGV into SIGABRT.
    of_signal.or_else(|| board.crashes.first())
}

/// Whom a record blames.
fn recorded(board: &Snapshot, record: &Crash) -> Option<Blame> {
    if status::is_sent_by_others(record) {
        return None;
    }
    let by_work = || {
        let work = record.work.as_ref()?;
        Some((generation(work)?, Reason::Thread(work.doing)))
    };
    let by_code = || {
        let files = record
            .frames
            .iter()
            .filter_map(|frame| frame.place.as_ref());
        let app = files
            .into_iter()
            .find_map(|(file, _)| board.apps.iter().find(|app| app.copy == *file))?;
        let generation = Generation {
            app: app.app.clone(),
            number: app.generation,
        };
        Some((generation, Reason::Code))
    };
    let by_name = || {
        let is_its = |app: &&crate::scoreboard::LoadedApp| {
            thread_name(&app.app, app.generation) == record.name
        };
        let app = board.apps.iter().find(is_its)?;
        let generation = Generation {
            app: app.app.clone(),
            number: app.generation,
        };
        Some((generation, Reason::ThreadName))
    };
    let (generation, reason) = by_work().or_else(by_code).or_else(by_name)?;
    Some(Blame { generation, reason })
}

/// Whom the circumstances blame, where nothing was written down.
fn suspected(evidence: &Evidence<'_>, at_work: &[Generation]) -> Option<Blame> {
    let loads = |thread: &ThreadState| {
        let work = thread.work.as_ref()?;
        work.doing.is_load().then(|| generation(work)).flatten()
    };
    let loading: BTreeSet<_> = evidence.board.threads.iter().filter_map(loads).collect();
    let loading: Vec<_> = if loading.is_empty() {
        evidence.loading.to_vec()
    } else {
        loading.into_iter().collect()
    };
    [
        (loading.as_slice(), Reason::Loading),
        (at_work, Reason::Alone),
        (evidence.probation, Reason::Probation),
    ]
    .into_iter()
    .find_map(|(of, reason)| match of {
        [only] => Some(Blame {
            generation: only.clone(),
            reason,
        }),
        _ => None,
    })
}

/// The apps that threads were in.
fn at_work(board: &Snapshot) -> Vec<Generation> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let apps: BTreeSet<_> = works.filter_map(generation).collect();
    apps.into_iter().collect()
}

/// The request that an app worked on, if there was one alone.
fn request_of(board: &Snapshot, of: &Generation) -> Option<Request> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let mut works = works.filter(|work| generation(work).as_ref() == Some(of));
    let only = works.next()?;
    works.next().is_none().then(|| only.request.clone())?
}

fn generation(work: &Work) -> Option<Generation> {
    let app = work.app.as_ref()?;
    Some(Generation {
        app: app.app.clone(),
        number: app.generation,
    })
}
