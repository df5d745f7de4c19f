//! What systemd is told of the server's state (sd_notify(3)). Without systemd, or in a unit that is
//! not of the type
//! `notify` or `notify-reload`, nothing is told.
//!
//! The process's number is not told, because it stays: an upgrade replaces the supervisor in place.

use sd_notify::{NotifyState, notify};
use tracing::warn;

/// Tells that the server serves: after the start, after a reading of the configuration, and after
/// an upgrade.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the configuration is being read again, or that the server upgrades. [`ready`] has to
/// follow. The time is told along, because systemd takes no answer for its own request without it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "Cannot tell systemd that the server reloads"),
    }
}

/// Tells that the server stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        warn!(%error, "Cannot tell systemd about the state of the server (see NOTIFY_SOCKET)");
    }
}
