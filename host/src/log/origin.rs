//! The generation that logs the event which a thread is emitting. The bridge sets it while it emits an event
//! for a plugin.

use std::cell::{Cell, RefCell};

/// A generation of a plugin, as the origin of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The plugin's name.
    pub plugin: &'static str,
    /// The number of the generation.
    pub generation: u64,
}

/// Returns the origin of the event that this thread is emitting, or None for an event of the host.
#[must_use]
pub fn current() -> Option<Origin> {
    CURRENT.get()
}

/// Runs `emit`, whose events have this origin. Afterwards, and after a panic, the thread has the origin that
/// it had before.
pub fn scope<T>(origin: Origin, emit: impl FnOnce() -> T) -> T {
    let _restore = OriginGuard(CURRENT.replace(Some(origin)));
    emit()
}

/// Restores the origin that a thread had before.
struct OriginGuard(Option<Origin>);

impl Drop for OriginGuard {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Stores the name that a plugin has for this thread. When a plugin made the thread, only the plugin's copy of
/// std knows the name.
pub fn name_thread(name: &str) {
    let _ = THREAD.try_with(|known| {
        // The name is usually known, so that the comparison saves an allocation.
        if known.borrow().as_deref() != Some(name)
            && let Ok(mut known) = known.try_borrow_mut()
        {
            *known = Some(name.into());
        }
    });
}

/// Runs `work` with the name of this thread, if it has one.
pub fn with_thread_name<T>(work: impl FnOnce(Option<&str>) -> T) -> T {
    // A thread that ends has no thread-locals with a destructor any more.
    if THREAD.try_with(|_| ()).is_err() {
        return work(None);
    }
    THREAD.with(|known| {
        if known.borrow().is_none() {
            known.replace(std::thread::current().name().map(Into::into));
        }
        work(known.borrow().as_deref())
    })
}

thread_local! {
    /// Has no destructor, so that it can be read while a thread ends: plugins log in the drop code of their
    /// thread-locals.
    static CURRENT: Cell<Option<Origin>> = const { Cell::new(None) };
    /// The name of this thread.
    static THREAD: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
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
