//! Guards the dispositions of the signals that the host depends on.

use plugin_api::host::{Disposition, DispositionKind};
use signal_hook::low_level::signal_name;

use super::ProcessChange;

/// The disposition of each signal of [`SIGNALS`].
pub(super) struct Dispositions(Vec<(i32, Disposition)>);

impl Dispositions {
    pub(super) fn now() -> Self {
        let of = |signal| Some((signal, Disposition::of(signal).ok()?));
        Self(SIGNALS.into_iter().filter_map(of).collect())
    }

    /// Restores the signals whose new disposition would harm the host.
    pub(super) fn restore(&self, changes: &mut Vec<ProcessChange>) {
        for (signal, before) in &self.0 {
            let Ok(now) = Disposition::of(*signal) else {
                continue;
            };
            if now != *before && is_harmful(*signal, before.kind(), now.kind()) {
                let name = signal_name(*signal).unwrap_or("a signal");
                let does = match now.kind() {
                    DispositionKind::Default => "has its default action",
                    DispositionKind::Ignored => "is ignored",
                    DispositionKind::Handler | DispositionKind::InfoHandler => {
                        "has a handler of the plugin's"
                    }
                };
                let what = format!("{name}, which {does}");
                changes.push(ProcessChange::restore(what, before.restore(*signal)));
            }
        }
    }
}

/// Returns whether a new disposition takes a signal away from the host.
fn is_harmful(signal: i32, before: DispositionKind, now: DispositionKind) -> bool {
    match (before, now) {
        // Only the default action ends the process.
        (DispositionKind::Ignored, now) => now == DispositionKind::Default,
        // With SIGCHLD ignored, the kernel reaps children, and wait(2) fails for everybody.
        (DispositionKind::Default, DispositionKind::Ignored) => signal == libc::SIGCHLD,
        (DispositionKind::Default, _) => false,
        // tokio's handler in the plugin calls the host's handler, so both get the signal.
        (_, DispositionKind::InfoHandler) => false,
        _ => true,
    }
}

/// The signals that the host handles, that would end the host, or that report child processes. Fatal signals are
/// the subject of [`crash`](super::super::crash).
const SIGNALS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGPIPE,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

#[cfg(test)]
mod tests {
    use super::{DispositionKind::*, *};

    #[test]
    fn only_what_takes_a_signal_away_is_harm() {
        for (signal, before, now, expected) in [
            (libc::SIGTERM, InfoHandler, Default, true),
            (libc::SIGTERM, InfoHandler, Ignored, true),
            (libc::SIGTERM, InfoHandler, Handler, true),
            (libc::SIGTERM, InfoHandler, InfoHandler, false),
            (libc::SIGPIPE, Ignored, Default, true),
            (libc::SIGPIPE, Ignored, Handler, false),
            (libc::SIGCHLD, Default, Ignored, true),
            (libc::SIGCHLD, Default, InfoHandler, false),
            (libc::SIGQUIT, Default, Handler, false),
            (libc::SIGQUIT, Default, Ignored, false),
        ] {
            let found = is_harmful(signal, before, now);
            assert_eq!(found, expected, "{signal}, {before:?} to {now:?}");
        }
    }
}
