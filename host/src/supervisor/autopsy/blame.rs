//! Finds the app that is to blame for the death of a worker.

use std::{collections::BTreeSet, fmt};

use super::{Evidence, GenerationId, status};
use crate::{
    apps::generation::thread_name,
    scoreboard::{BoardSnapshot, Request, ThreadReport, ThreadState, Work, WorkKind},
};

/// The app that is to blame for a death, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The app and its generation.
    pub generation: GenerationId,
    /// The evidence.
    pub reason: BlameReason,
}

/// The evidence against the blamed app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlameReason {
    /// The crashed thread was working in the app.
    Thread(WorkKind),
    /// An address of the backtrace is in the app's library.
    Code,
    /// The crashed thread has the name that threads of the app's runtime have.
    ThreadName,
    /// The app was the only one whose load was running the library's code.
    Loading,
    /// The app was the only one in which threads were working.
    OnlyAtWork,
    /// The app was the only one on probation.
    Probation,
    /// A thread in the app made no progress.
    Hung,
}

impl BlameReason {
    /// Returns whether the app was being loaded. If true, the generation has never served.
    #[must_use]
    pub fn is_during_load(self) -> bool {
        match self {
            Self::Thread(work) => work.is_load(),
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
            Self::OnlyAtWork => "it was the only one at work",
            Self::Probation => "it was the only one in its probation",
            Self::Hung => "its thread made no progress",
        })
    }
}

/// Returns the app that a crash record points to. Returns `None` if the record points to no app, or if another process
/// sent the signal.
pub(super) fn blame_from_record(board: &BoardSnapshot, record: &ThreadReport) -> Option<Blame> {
    if status::is_sent_by_others(record) {
        return None;
    }
    // The work of the crashed thread is the strongest evidence, and its name the weakest.
    let by_work = || {
        let work = record.work.as_ref()?;
        Some((generation_of(work)?, BlameReason::Thread(work.kind)))
    };
    let by_code = || {
        let files = record
            .frames
            .iter()
            .filter_map(|frame| frame.location.as_ref());
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
        let owns_thread = |app: &&crate::scoreboard::LoadedApp| {
            thread_name(&app.app, app.generation) == record.name
        };
        let app = board.apps.iter().find(owns_thread)?;
        let generation = GenerationId {
            app: app.app.clone(),
            number: app.generation,
        };
        Some((generation, BlameReason::ThreadName))
    };
    let (generation, reason) = by_work().or_else(by_code).or_else(by_name)?;
    Some(Blame { generation, reason })
}

/// Returns the app that the state of the worker points to, if the crash record does not point to an app. A kind of
/// evidence counts only if it names exactly one app.
pub(super) fn blame_from_evidence(
    evidence: &Evidence<'_>,
    apps_at_work: &[GenerationId],
) -> Option<Blame> {
    let loads = |thread: &ThreadState| {
        let work = thread.work.as_ref()?;
        work.kind.is_load().then(|| generation_of(work)).flatten()
    };
    // The loads in notices count only if the scoreboard shows no load. A worker that was taken over at an upgrade, for
    // example, has an empty scoreboard.
    let loading: BTreeSet<_> = evidence.board.threads.iter().filter_map(loads).collect();
    let loading: Vec<_> = if loading.is_empty() {
        evidence.loading.to_vec()
    } else {
        loading.into_iter().collect()
    };
    [
        (loading.as_slice(), BlameReason::Loading),
        (apps_at_work, BlameReason::OnlyAtWork),
        (evidence.probation, BlameReason::Probation),
    ]
    .into_iter()
    .find_map(|(suspects, reason)| match suspects {
        [only] => Some(Blame {
            generation: only.clone(),
            reason,
        }),
        _ => None,
    })
}

/// Returns the apps in which threads were working.
pub(super) fn apps_at_work(board: &BoardSnapshot) -> Vec<GenerationId> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let apps: BTreeSet<_> = works.filter_map(generation_of).collect();
    apps.into_iter().collect()
}

/// Returns the request that an app was handling, if exactly one thread was working in the app.
pub(super) fn request_of(board: &BoardSnapshot, app: &GenerationId) -> Option<Request> {
    let works = board
        .threads
        .iter()
        .filter_map(|thread| thread.work.as_ref());
    let mut works = works.filter(|work| generation_of(work).as_ref() == Some(app));
    let only = works.next()?;
    works.next().is_none().then(|| only.request.clone())?
}

/// Returns the generation that a thread is working in, or `None` if the scoreboard does not name it.
pub(super) fn generation_of(work: &Work) -> Option<GenerationId> {
    let app = work.app.as_ref()?;
    Some(GenerationId {
        app: app.app.clone(),
        number: app.generation,
    })
}
