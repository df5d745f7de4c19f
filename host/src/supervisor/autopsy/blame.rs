//! Finds the app that is to blame for the death of a worker.

use std::{collections::BTreeSet, fmt};

use super::{Evidence, GenerationId, status};
use crate::{
    scoreboard::{BoardSnapshot, Crash, Request, ThreadState, Work, WorkKind},
    worker::generation::thread_name,
};

/// The app that is to blame for a death, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The app and its generation.
    pub generation: GenerationId,
    /// The evidence.
    pub reason: BlameReason,
}

/// The evidence against an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlameReason {
    /// The crashed thread was working in the app.
    Thread(WorkKind),
    /// An address of the backtrace is in the app's library.
    Code,
    /// The crashed thread has a name of the app's threads.
    ThreadName,
    /// The app was the only one that was being loaded.
    Loading,
    /// The app was the only one in which threads were working.
    Alone,
    /// The app was the only one on probation.
    Probation,
    /// A thread in the app made no progress.
    Hung,
}

impl BlameReason {
    /// Returns whether the app was being loaded, so that this generation has never served.
    #[must_use]
    pub fn is_start(self) -> bool {
        match self {
            Self::Thread(doing) => doing.is_load(),
            reason => reason == Self::Loading,
        }
    }
}

impl fmt::Display for BlameReason {
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

/// Returns the app that a crash record points to. The record is not used if another process sent the
/// signal.
pub(super) fn recorded(board: &BoardSnapshot, record: &Crash) -> Option<Blame> {
    if status::is_sent_by_others(record) {
        return None;
    }
    let by_work = || {
        let work = record.work.as_ref()?;
        Some((generation(work)?, BlameReason::Thread(work.kind)))
    };
    let by_code = || {
        let files = record
            .frames
            .iter()
            .filter_map(|frame| frame.place.as_ref());
        let app = files
            .into_iter()
            .find_map(|(file, _)| board.apps.iter().find(|app| app.copy == *file))?;
        let generation = GenerationId {
            app: app.app.clone(),
            number: app.generation,
        };
        Some((generation, BlameReason::Code))
    };
    let by_name = || {
        let is_its = |app: &&crate::scoreboard::LoadedApp| {
            thread_name(&app.app, app.generation) == record.name
        };
        let app = board.apps.iter().find(is_its)?;
        let generation = GenerationId {
            app: app.app.clone(),
            number: app.generation,
        };
        Some((generation, BlameReason::ThreadName))
    };
    let (generation, reason) = by_work().or_else(by_code).or_else(by_name)?;
    Some(Blame { generation, reason })
}

/// Returns the app that the circumstances point to, when no crash record exists. Each kind of evidence counts
/// only if it names exactly one app.
pub(super) fn suspected(evidence: &Evidence<'_>, at_work: &[GenerationId]) -> Option<Blame> {
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
        (loading.as_slice(), BlameReason::Loading),
        (at_work, BlameReason::Alone),
        (evidence.probation, BlameReason::Probation),
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

/// Returns the apps in which threads were working.
pub(super) fn at_work(board: &BoardSnapshot) -> Vec<GenerationId> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let apps: BTreeSet<_> = works.filter_map(generation).collect();
    apps.into_iter().collect()
}

/// Returns the request in an app, if the app had exactly one.
pub(super) fn request_of(board: &BoardSnapshot, of: &GenerationId) -> Option<Request> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let mut works = works.filter(|work| generation(work).as_ref() == Some(of));
    let only = works.next()?;
    works.next().is_none().then(|| only.request.clone())?
}

pub(super) fn generation(work: &Work) -> Option<GenerationId> {
    let app = work.app.as_ref()?;
    Some(GenerationId {
        app: app.app.clone(),
        number: app.generation,
    })
}
