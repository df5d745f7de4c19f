//! Notifies systemd of the server's state (sd_notify(3)). Does nothing without systemd, or in a unit that
//! is not of the type `notify` or `notify-reload`.
//!
//! The process number is not sent, because it never changes: an upgrade replaces the supervisor in place.

use sd_notify::{NotifyState, notify};
use tracing::warn;

/// Notifies that the server is ready: after the start, after the configuration was read again, and after
/// an upgrade.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Notifies that the configuration is being read again, or that the server upgrades. [`ready`] must follow.
/// The time is sent along, because systemd matches a reload with its own request by that time.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "Cannot tell systemd that the server reloads"),
    }
}

/// Notifies that the server stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        warn!(%error, "Cannot tell systemd about the state of the server (see NOTIFY_SOCKET)");
    }
}
