//! Tracks and reports the current step of a load.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::orders::Step;

/// The current step of a load, and the function that reports each step.
pub struct LoadProgress {
    /// The current [`Step`] as a number.
    step: AtomicU8,
    report: Box<dyn Fn(Step) + Send + Sync>,
}

impl LoadProgress {
    /// Creates the progress of a load at its first step. `report` is called with each step that begins.
    #[must_use]
    pub fn new(report: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self {
            step: AtomicU8::new(Step::Stage as u8),
            report: Box::new(report),
        }
    }

    /// Returns the current step.
    #[must_use]
    pub fn step(&self) -> Step {
        Step::ALL[usize::from(self.step.load(Ordering::Relaxed))]
    }

    /// Records and reports that a step begins.
    pub(super) fn begin_step(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
        (self.report)(step);
    }
}

impl fmt::Debug for LoadProgress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Progress")
            .field(&self.step())
            .finish()
    }
}
