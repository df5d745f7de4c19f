//! The panic boundary of the host side.

use std::panic::{self, AssertUnwindSafe};

use crate::crossing::PanicBoundary;

/// Runs the host's own code in a call from a plugin, and catches its panics. The panic hook of the host reports each
/// panic before it is caught.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostBoundary;

impl PanicBoundary for HostBoundary {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        panic::catch_unwind(AssertUnwindSafe(work)).ok()
    }
}
