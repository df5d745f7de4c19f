//! Who is to blame for the death of a worker.

use std::{collections::BTreeSet, fmt};

use super::{Evidence, Generation, status};
use crate::{
    scoreboard::{BoardSnapshot, Crash, Request, ThreadState, Work, WorkKind},
    worker::generation::thread_name,
};

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
    Thread(WorkKind),
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
            Self::Thread(WorkKind::Request) => "its code was answering a request",
            Self::Thread(WorkKind::Body) => "its code was sending a response's body",
            Self::Thread(WorkKind::Drop) => "its code was cleaning up after a request",
            Self::Thread(WorkKind::Open) => "its library was being opened",
            Self::Thread(WorkKind::Init) => "it was starting",
            Self::Thread(WorkKind::HandOver) => "it was handing over its state",
            Self::Thread(WorkKind::Drain) => "it was told to finish what it has",
            Self::Thread(WorkKind::Stop) => "it was stopping",
            Self::Code => "the code is its library's",
            Self::ThreadName => "the thread is one of its own",
            Self::Loading => "it was the only one being loaded",
            Self::Alone => "it was the only one at work",
            Self::Probation => "it was the only one in its probation",
            Self::Hung => "its thread made no progress",
        })
    }
}

/// Whom a record blames.
pub(super) fn recorded(board: &BoardSnapshot, record: &Crash) -> Option<Blame> {
    if status::is_sent_by_others(record) {
        return None;
    }
    let by_work = || {
        let work = record.work.as_ref()?;
        Some((generation(work)?, Reason::Thread(work.kind)))
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
pub(super) fn suspected(evidence: &Evidence<'_>, at_work: &[Generation]) -> Option<Blame> {
    let loads = |thread: &ThreadState| {
        let work = thread.work.as_ref()?;
        work.kind.is_load().then(|| generation(work)).flatten()
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
pub(super) fn at_work(board: &BoardSnapshot) -> Vec<Generation> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let apps: BTreeSet<_> = works.filter_map(generation).collect();
    apps.into_iter().collect()
}

/// The request that an app worked on, if there was one alone.
pub(super) fn request_of(board: &BoardSnapshot, of: &Generation) -> Option<Request> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let mut works = works.filter(|work| generation(work).as_ref() == Some(of));
    let only = works.next()?;
    works.next().is_none().then(|| only.request.clone())?
}

pub(super) fn generation(work: &Work) -> Option<Generation> {
    let app = work.app.as_ref()?;
    Some(Generation {
        app: app.app.clone(),
        number: app.generation,
    })
}
