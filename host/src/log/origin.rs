//! Where the log event that a thread emits comes from: set by the bridge while it re-emits a
//! plugin's.

use std::cell::{Cell, RefCell};

/// The source of a plugin's log event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The plugin's name.
    pub plugin: &'static str,
    /// Which load of the plugin, from 1.
    pub generation: u64,
}

/// The origin of the event that this thread is emitting, or `None` for the host's own.
#[must_use]
pub fn current() -> Option<Origin> {
    CURRENT.get()
}

/// Runs `emit`; events inside come from `origin`. Afterwards, and after a panic, the origin is as
/// it was before.
pub fn scope<T>(origin: Origin, emit: impl FnOnce() -> T) -> T {
    let _restore = Restore(CURRENT.replace(Some(origin)));
    emit()
}

struct Restore(Option<Origin>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Takes note of what a plugin calls this thread. Threads that a plugin made are known by name to
/// its copy of std only.
pub fn name_thread(name: &str) {
    let _ = THREAD.try_with(|known| {
        if known.borrow().as_deref() != Some(name)
            && let Ok(mut known) = known.try_borrow_mut()
        {
            *known = Some(name.into());
        }
    });
}

/// Lends the name of this thread, where it has one.
pub fn with_thread_name<T>(work: impl FnOnce(Option<&str>) -> T) -> T {
    // While a thread ends its locals are gone.
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
    // Has no destructor, so it can be read while a thread ends: plugins log in the drop code of
    // their thread-locals.
    static CURRENT: Cell<Option<Origin>> = const { Cell::new(None) };
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
