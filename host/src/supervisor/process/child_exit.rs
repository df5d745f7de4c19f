//! The exit status of a child process.

use std::fmt;

use rustix::process::WaitIdStatus;
use serde::{Deserialize, Serialize};

/// How a process exited. `Display` writes a text for people: `exit code 3`, `SIGSEGV (core dumped)`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildExit {
    /// The process called `exit` or returned from `main`.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal ended the process.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
}

impl ChildExit {
    /// Returns whether the process exited with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited { code: 0 }
    }

    /// Returns the name of the signal that ended the process, such as `SIGSEGV`. Returns `None` if no signal did.
    #[must_use]
    pub fn signal_name(self) -> Option<String> {
        match self {
            Self::Exited { .. } => None,
            Self::Signaled { signal, .. } => Some(signal_name(signal)),
        }
    }
}

impl From<WaitIdStatus> for ChildExit {
    fn from(status: WaitIdStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signaled {
                signal,
                core: status.dumped(),
            },
            None => Self::Exited {
                code: status.exit_status().unwrap_or_default(),
            },
        }
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Signaled { signal, core } => {
                f.write_str(&signal_name(signal))?;
                f.write_str(if core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// Returns the name of a signal (signal(7)), or its number as text if it has no name.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let name = NAMES.iter().find(|(number, _)| *number == signal);
    match name {
        Some((_, name)) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

/// The signals whose default action ends or stops a process, without the real-time signals.
const NAMES: [(i32, &str); 26] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGCHLD, "CHLD"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGXFSZ, "XFSZ"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGIO, "IO"),
    (libc::SIGPWR, "PWR"),
    (libc::SIGSYS, "SYS"),
];
