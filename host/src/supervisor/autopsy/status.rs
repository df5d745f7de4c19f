//! Exit statuses and signals in words.

use super::Evidence;
use crate::{
    scoreboard::Crash,
    supervisor::process::{Ended, signal_name},
};

/// The signal that a process died of.
pub(super) fn signal(status: Ended) -> Option<i32> {
    match status {
        Ended::Signaled { signal, .. } => Some(signal),
        Ended::Exited { .. } => None,
    }
}

/// What ended the process.
pub(super) fn describe(evidence: &Evidence<'_>, record: Option<&Crash>) -> String {
    let signal = match evidence.status {
        Ended::Exited { code } if record.is_some() => return format!("a call of exit({code})"),
        Ended::Exited { code } => return format!("exit code {code}"),
        Ended::Signaled { signal, .. } => signal,
    };
    let name = signal_name(signal);
    if evidence.out_of_memory {
        return format!("{name}, out of memory: killed by the kernel");
    }
    let words = last_words(evidence.last_words);
    let Some(record) = record else {
        return match words {
            Some(words) => format!("{name} ({words})"),
            None => name,
        };
    };
    if is_sent_by_others(record) {
        return format!("{name}, sent by another process");
    }
    if is_overflow(record) {
        return format!("{name}: a thread's stack is full");
    }
    if record.signal != signal {
        return format!("{name} after {}", with_address(record));
    }
    match words {
        Some(words) if record.signal == libc::SIGABRT => format!("{name} ({words})"),
        _ => with_address(record),
    }
}

/// Whether a signal says nothing about what the process did.
pub(super) fn is_from_outside(evidence: &Evidence<'_>, record: Option<&Crash>) -> bool {
    let ends = [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
    ];
    signal(evidence.status).is_some_and(|signal| ends.contains(&signal))
        || record.is_some_and(is_sent_by_others)
}

/// Whether `kill` sent it: `abort` uses another call (sigaction(2), `SI_USER` and `SI_TKILL`).
pub(super) fn is_sent_by_others(record: &Crash) -> bool {
    record.signal != 0 && matches!(record.code, libc::SI_USER | libc::SI_QUEUE)
}

/// Whether the thread touched what lies directly below its stack.
fn is_overflow(record: &Crash) -> bool {
    // A function may set aside more than a page before it touches it.
    const NEAR: u64 = 64 << 10;
    record.signal == libc::SIGSEGV
        && record.address != 0
        && record.address.abs_diff(record.stack) <= NEAR
        && record.instruction != record.address
}

fn with_address(record: &Crash) -> String {
    let name = signal_name(record.signal);
    match record.signal {
        libc::SIGSEGV if record.code == SI_KERNEL => format!("{name} at no address that there is"),
        libc::SIGSEGV | libc::SIGBUS => format!("{name} at address {:#x}", record.address),
        libc::SIGILL | libc::SIGFPE => format!("{name} at instruction {:#x}", record.instruction),
        _ => name,
    }
}

/// What C libraries and std print before they abort.
fn last_words(printed: &str) -> Option<&str> {
    let lines = printed.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty()).rev().take(LINES);
    let is_said = |line: &&str| SAID.iter().any(|said| line.contains(said));
    lines.find(is_said)
}

/// How many lines from the end may be the last words.
const LINES: usize = 5;

/// glibc's malloc, its stack protector and fortified functions, `assert`, C++, and Rust's std.
const SAID: [&str; 16] = [
    "Assertion",
    "buffer overflow detected",
    "corrupted",
    "corruption",
    "double free",
    "fatal runtime error",
    "free():",
    "has overflowed its stack",
    "malloc():",
    "memory allocation of",
    "munmap_chunk",
    "panic in a",
    "realloc():",
    "stack smashing detected",
    "terminate called",
    "unaligned",
];

/// `si_code` of a fault that the kernel tells no address of (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;
