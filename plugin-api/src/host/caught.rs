//! The boundary of the host's own code.

use std::panic::{self, AssertUnwindSafe};

use crate::crossing::PanicBoundary;

/// How the host runs its own code when a plugin calls in: panics are caught, and std's hook reports them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught;

impl PanicBoundary for Caught {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        panic::catch_unwind(AssertUnwindSafe(work)).ok()
    }
}
