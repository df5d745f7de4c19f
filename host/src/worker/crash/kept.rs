//! The host's handlers of ordinary signals, which a plugin or a C library in it may replace: SIGTERM that stops nothing any more, SIGCHLD that
//! nobody hears of.

use std::{ffi::c_int, fmt, ptr, sync::OnceLock};

use super::action;

/// Keeps the handlers of now, once. To be called when all handlers of the host are set: tokio sets one when a signal is first
/// listened to.
pub fn keep() {
    KEPT.get_or_init(Handlers::now);
}

/// Sets the handlers again that somebody has replaced since [`keep`]. Returns the names of their signals.
#[must_use]
pub fn restore() -> Vec<&'static str> {
    KEPT.get().map(Handlers::restore).unwrap_or_default()
}

static KEPT: OnceLock<Handlers> = OnceLock::new();

/// Who handles the signals that a server lives by.
pub struct Handlers(Vec<(c_int, &'static str, libc::sigaction)>);

impl Handlers {
    /// Those of now.
    #[must_use]
    pub fn now() -> Self {
        let kept = SIGNALS.into_iter();
        Self(
            kept.filter_map(|(signal, name)| Some((signal, name, action(signal)?)))
                .collect(),
        )
    }

    /// Sets those again that somebody has replaced since. Returns the names of their signals.
    pub fn restore(&self) -> Vec<&'static str> {
        let put_back = |(signal, name, kept): &(c_int, &'static str, libc::sigaction)| {
            let now = action(*signal)?;
            let is_kept = now.sa_sigaction == kept.sa_sigaction
                && (now.sa_flags ^ kept.sa_flags) & libc::SA_SIGINFO == 0;
            if is_kept {
                return None;
            }
            // SAFETY: the action was this signal's before, and its handler is the host's, which is never unloaded.
            let failed = unsafe { libc::sigaction(*signal, kept, ptr::null_mut()) };
            (failed == 0).then_some(*name)
        };
        self.0.iter().filter_map(put_back).collect()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(_, name, _)| name);
        formatter.debug_list().entries(names).finish()
    }
}

const SIGNALS: [(c_int, &str); 10] = [
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
];
