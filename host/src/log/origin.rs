//! Which plugin the current log event comes from: set by the bridge while it re-emits a plugin's
//! event.

use std::cell::Cell;

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

thread_local! {
    // Has no destructor, so it can be read while a thread ends: plugins log in the drop code of
    // their thread-locals.
    static CURRENT: Cell<Option<Origin>> = const { Cell::new(None) };
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
