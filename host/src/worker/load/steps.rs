//! Which step a load is at, and who hears of it.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::orders::Step;

/// The current step of a load, and the function that reports each step.
pub struct LoadProgress {
    step: AtomicU8,
    tell: Box<dyn Fn(Step) + Send + Sync>,
}

impl LoadProgress {
    /// Begins at the first step. `tell` is called with each step that begins.
    #[must_use]
    pub fn new(tell: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self {
            step: AtomicU8::new(Step::Stage as u8),
            tell: Box::new(tell),
        }
    }

    /// Returns the current step.
    #[must_use]
    pub fn step(&self) -> Step {
        Step::ALL[usize::from(self.step.load(Ordering::Relaxed))]
    }

    pub(super) fn at(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
        (self.tell)(step);
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
