//! An app, and what is being done about it: all that is known of it between two messages.

use std::{mem, path::PathBuf, sync::Arc};

use super::Reply;
use crate::plugin::{
    generation::{Generation, Spec},
    load::{Candidate, Progress, Took},
    report::Failure,
};

/// An app whose library is in the folder.
#[derive(Debug)]
pub(super) struct App {
    /// The plugin that it is.
    pub(super) plugin: &'static str,
    pub(super) library: PathBuf,
    pub(super) mounts: Vec<Arc<str>>,
    pub(super) serving: Option<Arc<Generation>>,
    pub(super) state: State,
    /// How long the load of what serves took.
    pub(super) took: Option<Took>,
    /// The copy of the library that served before, if that was another.
    pub(super) previous: Option<PathBuf>,
    /// What was rolled back from: it is not loaded again unless it is asked for.
    pub(super) rejected: Option<Arc<Spec>>,
    pub(super) last_error: Option<Failure>,
}

/// What is being done about an app.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing: what serves, serves.
    Resting,
    /// A library is on its way to be a generation.
    Loading {
        /// Which generation it is to be.
        generation: u64,
        wanted: Wanted,
        progress: Arc<Progress>,
        /// What is to be loaded after that.
        next: Option<Wanted>,
    },
    /// The generation that serves is watched, as it is new.
    Probation {
        /// The one before, which runs on so that it can be back at once. None when its state has
        /// moved on with the handover: then its library would have to be started again.
        kept: Option<Arc<Generation>>,
    },
}

/// A library that is to be loaded.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) candidate: Arc<Candidate>,
    /// What becomes of it.
    pub(super) spec: Arc<Spec>,
    pub(super) why: Why,
    /// Who asked, and waits for what comes of it.
    pub(super) reply: Option<Reply>,
}

/// Why a library is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is new in the folder, or changed; or what the operator says of it did.
    Changed,
    /// The operator wants it loaded again.
    Reload,
    /// It served before, and is to serve again.
    Rollback,
}

impl App {
    /// An app that nothing is known of but its library.
    pub(super) fn new(plugin: &'static str, library: PathBuf) -> Self {
        Self {
            plugin,
            library,
            mounts: Vec::new(),
            serving: None,
            state: State::Resting,
            took: None,
            previous: None,
            rejected: None,
            last_error: None,
        }
    }

    /// Has it serve no more, and nowhere. The result is the generations that are to end with it: the
    /// one that served, and one that was kept.
    pub(super) fn leave(&mut self) -> impl Iterator<Item = Arc<Generation>> + use<> {
        self.mounts.clear();
        let kept = match mem::replace(&mut self.state, State::Resting) {
            State::Probation { kept } => kept,
            State::Loading { .. } | State::Resting => None,
        };
        self.serving.take().into_iter().chain(kept)
    }

    /// Whether it is mounted at `mount`, or will be when its next generation serves.
    pub(super) fn has(&self, mount: &str) -> bool {
        let coming = match &self.state {
            State::Loading { wanted, next, .. } => [Some(wanted), next.as_ref()],
            State::Probation { .. } | State::Resting => [None, None],
        };
        let coming = coming
            .into_iter()
            .flatten()
            .flat_map(|wanted| &wanted.spec.mounts);
        self.mounts
            .iter()
            .chain(coming)
            .any(|other| **other == *mount)
    }

    /// Why a library that did not change for the app is not loaded, if it is not.
    pub(super) fn unchanged(&self, spec: &Spec) -> Option<&'static str> {
        match self.state {
            State::Loading { .. } => None,
            _ if self.serves(spec) => Some("Unchanged, not loaded again"),
            _ if self.rejected.as_deref() == Some(spec) => {
                Some("Unchanged since it was rolled back, not loaded again")
            }
            _ => None,
        }
    }

    /// Whether what serves is made of just this.
    pub(super) fn serves(&self, spec: &Spec) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|serving| *serving.spec == *spec)
    }
}
