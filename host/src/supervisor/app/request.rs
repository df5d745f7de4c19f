//! A request to load a generation: what to load, and why.

use std::{path::PathBuf, sync::Arc};

use super::ReplyId;
use crate::{folder::candidate::Candidate, orders::Spec};

/// A request to load a generation.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The spec of the generation.
    pub spec: Arc<Spec>,
    /// Where the library of the generation comes from.
    pub source: LibrarySource,
    /// Why the load was requested.
    pub reason: LoadReason,
    /// The operator who waits for the outcome.
    pub reply_id: Option<ReplyId>,
}

/// Where the bytes of a library come from.
#[derive(Clone, Debug)]
pub enum LibrarySource {
    /// A library that was read and checked, with its bytes in memory.
    Candidate(Arc<Candidate>),
    /// A file that is yet to be read: a private copy, or a library in the plugins folder.
    File(PathBuf),
}

/// Why a load was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadReason {
    /// The library is new or changed, or the settings of the app changed.
    Changed,
    /// An operator requested a reload (`host ctl reload`, `host ctl deploy`).
    Reload,
    /// An earlier version must serve again: an operator requested a rollback, the probation failed, or the serving
    /// version crashed too often.
    Rollback,
}
