//! Notifies systemd of the server's state (sd_notify(3)). Does nothing if systemd has not started the server, or if the
//! unit is not of the type `notify` or `notify-reload`.
//!
//! The process number of the server is not sent, because the number never changes: an upgrade replaces the supervisor
//! in place.

use sd_notify::{NotifyState, notify};
use tracing::warn;

/// Notifies that the server is ready: after the start, after the configuration was read again, and after
/// an upgrade.
pub fn ready() {
    notify_systemd(&[NotifyState::Ready]);
}

/// Notifies that the configuration is being read again, or that the server upgrades. The caller must call [`ready`]
/// afterwards. The notification contains the current time, because systemd uses the time to match the notification with
/// its own request to reload.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_systemd(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "Cannot tell systemd that the server reloads"),
    }
}

/// Notifies that the server stops.
pub fn stopping() {
    notify_systemd(&[NotifyState::Stopping]);
}

/// Sends the notification, and logs a failure.
fn notify_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        warn!(%error, "Cannot tell systemd about the state of the server (see NOTIFY_SOCKET)");
    }
}
