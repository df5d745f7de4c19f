//! The origin of the event that a thread is emitting: the generation of a plugin, or the host. The bridge sets the
//! origin while it emits an event for a plugin. This module also stores the names of threads.

use std::cell::{Cell, RefCell};

/// A generation of a plugin that emits an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The plugin's name.
    pub plugin: &'static str,
    /// The number of the generation.
    pub generation: u64,
}

/// Returns the origin of the event that this thread is emitting. Returns `None` for an event of the host.
#[must_use]
pub fn current() -> Option<Origin> {
    CURRENT.get()
}

/// Runs `emit`. Events that `emit` emits on this thread have the origin `origin`. Afterwards, also after a panic, the
/// thread has its previous origin again.
pub fn scope<T>(origin: Origin, emit: impl FnOnce() -> T) -> T {
    let _restore = OriginGuard(CURRENT.replace(Some(origin)));
    emit()
}

/// Restores the previous origin of a thread when the guard is dropped.
struct OriginGuard(Option<Origin>);

impl Drop for OriginGuard {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Stores the name of this thread for the lines of the log. A plugin passes the name, because for a thread that the
/// plugin has started, only the plugin's copy of std knows the name.
pub fn set_thread_name(name: &str) {
    // Does nothing on a thread that is ending and has dropped its thread-locals.
    let _ = THREAD_NAME.try_with(|stored| {
        // Compares first, because the same name is usually stored already, and storing a name allocates memory.
        if stored.borrow().as_deref() != Some(name)
            && let Ok(mut stored) = stored.try_borrow_mut()
        {
            *stored = Some(name.into());
        }
    });
}

/// Runs `work` with the name of this thread. Passes `None` if the name is unknown.
pub fn with_thread_name<T>(work: impl FnOnce(Option<&str>) -> T) -> T {
    // A thread that is ending has dropped its thread-locals with a destructor. Checks first, because a failed
    // `try_with(work)` would drop `work` without running it.
    if THREAD_NAME.try_with(|_| ()).is_err() {
        return work(None);
    }
    THREAD_NAME.with(|stored| {
        if stored.borrow().is_none() {
            stored.replace(std::thread::current().name().map(Into::into));
        }
        work(stored.borrow().as_deref())
    })
}

thread_local! {
    /// The origin of the event that this thread is emitting. Has no destructor, so that a thread that is ending can
    /// still read the origin: plugins log in the drop code of their thread-locals.
    static CURRENT: Cell<Option<Origin>> = const { Cell::new(None) };
    /// The name of this thread. `None` until a line needs the name or a plugin passes the name.
    static THREAD_NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    #[test]
    fn scopes_nest_and_end_with_a_panic() {
        let origin = |plugin| Origin {
            plugin,
            generation: 1,
        };
        assert_eq!(current(), None);
        scope(origin("outer"), || {
            scope(origin("inner"), || {
                assert_eq!(current(), Some(origin("inner")))
            });
            let caught = panic::catch_unwind(|| {
                scope(origin("broken"), || panic::resume_unwind(Box::new(())))
            });
            assert!(caught.is_err());
            assert_eq!(current(), Some(origin("outer")));
        });
        assert_eq!(current(), None);
    }
}
