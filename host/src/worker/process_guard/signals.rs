//! Guards the dispositions of the signals that the host depends on. The disposition of a signal is the default action,
//! to ignore the signal, or a handler.

use plugin_api::host::{Disposition, DispositionKind};
use signal_hook::low_level::signal_name;

use super::ProcessChange;

/// The disposition of each signal of [`SIGNALS`].
pub(super) struct Dispositions(Vec<(i32, Disposition)>);

impl Dispositions {
    /// Reads the current dispositions.
    pub(super) fn read() -> Self {
        let read = |signal| Some((signal, Disposition::of(signal).ok()?));
        Self(SIGNALS.into_iter().filter_map(read).collect())
    }

    /// Restores the dispositions whose change would harm the host, and adds a description of each to `changes`.
    pub(super) fn restore(&self, changes: &mut Vec<ProcessChange>) {
        for (signal, before) in &self.0 {
            let Ok(now) = Disposition::of(*signal) else {
                continue;
            };
            if now != *before && is_harmful(*signal, before.kind(), now.kind()) {
                let name = signal_name(*signal).unwrap_or("a signal");
                let new_disposition = match now.kind() {
                    DispositionKind::Default => "has its default action",
                    DispositionKind::Ignored => "is ignored",
                    DispositionKind::Handler | DispositionKind::InfoHandler => {
                        "has a handler of the plugin's"
                    }
                };
                let setting = format!("{name}, which {new_disposition}");
                changes.push(ProcessChange::restored(setting, before.restore(*signal)));
            }
        }
    }
}

/// Returns whether the change of a disposition would harm the host: the host would miss a signal, or the signal would
/// end the process.
fn is_harmful(signal: i32, before: DispositionKind, now: DispositionKind) -> bool {
    match (before, now) {
        // The host ignores the signal, so only the default action would do harm: it would end the process.
        (DispositionKind::Ignored, now) => now == DispositionKind::Default,
        // While SIGCHLD is ignored, the kernel reaps all children itself, and wait(2) fails for all code of the
        // process.
        (DispositionKind::Default, DispositionKind::Ignored) => signal == libc::SIGCHLD,
        (DispositionKind::Default, _) => false,
        // Such a handler is normally that of tokio's copy in the plugin, which calls the previous handler, so plugin
        // and host both get the signal.
        (_, DispositionKind::InfoHandler) => false,
        _ => true,
    }
}

/// The signals that the host handles, that would end the host, or that report child processes. Fatal signals are
/// handled by [`crash`](super::super::crash).
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
    fn only_changes_that_take_a_signal_away_are_harmful() {
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
