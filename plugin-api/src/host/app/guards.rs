//! The guards of an app: for a request in flight, for another use of the app, and for a pause. Dropping a guard ends
//! the request, the use or the pause.

use std::sync::{PoisonError, atomic::Ordering};

use super::{App, OPEN, PAUSED};

/// A request in flight. The app is not freed while this handle exists.
#[derive(Debug)]
pub struct InFlight(pub(super) &'static App);

impl InFlight {
    /// Returns the app that the request has entered.
    #[must_use]
    pub fn app(&self) -> &'static App {
        self.0
    }

    /// Returns a second handle of the same request. An upgraded connection owns this handle, because the connection
    /// outlives the response.
    pub(in crate::host) fn second_handle(&self) -> Self {
        self.0.second_handles.fetch_add(1, Ordering::SeqCst);
        self.0.entered.fetch_add(1, Ordering::SeqCst);
        Self(self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.exited.fetch_add(1, Ordering::SeqCst);
        self.0.notify_if_drained();
    }
}

/// A use of the app that is not a request, for example a call of a hook. The code that creates the guard adds 1 to
/// `entered`, and the drop subtracts 1.
///
/// The code that uses the app counts the use first, and reads `stopped` afterwards. [`App::stop`] sets `stopped` first,
/// and reads the count afterwards. Therefore either this code sees that the app is stopped, or `stop` sees the use and
/// does not let the plugin free the app.
pub(super) struct UseGuard<'a>(pub(super) &'a App);

impl Drop for UseGuard<'_> {
    fn drop(&mut self) {
        // Subtracted from `entered` instead of added to `exited`, because `requests` must not count the use.
        self.0.entered.fetch_sub(1, Ordering::SeqCst);
        self.0.notify_if_drained();
    }
}

/// A pause of an app: no request can enter. Dropping this value opens the app again, unless the app was closed
/// meanwhile.
#[derive(Debug)]
pub struct Paused(pub(super) &'static App);

impl Drop for Paused {
    fn drop(&mut self) {
        let Self(app) = self;
        let requested = app
            .drain_requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Before the gate opens, because otherwise a new request could find `Context::draining` ready. Not if `drain`
        // was called: the app then drains also after the pause.
        if !*requested && app.gate.load(Ordering::SeqCst) == PAUSED {
            app.notify_draining(false);
        }
        drop(requested);
        if app.change_gate(PAUSED, OPEN) {
            app.changed.notify_waiters();
        }
    }
}
