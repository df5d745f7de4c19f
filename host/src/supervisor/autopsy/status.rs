//! Describes exit statuses and signals in words.

use super::Evidence;
use crate::{
    scoreboard::Crash,
    supervisor::process::{ChildExit, signal_name},
};

/// Returns the signal that ended a process.
pub(super) fn signal(status: ChildExit) -> Option<i32> {
    match status {
        ChildExit::Signaled { signal, .. } => Some(signal),
        ChildExit::Exited { .. } => None,
    }
}

/// Returns the cause of death in words.
pub(super) fn describe(evidence: &Evidence<'_>, record: Option<&Crash>) -> String {
    let signal = match evidence.status {
        ChildExit::Exited { code } if record.is_some() => return format!("a call of exit({code})"),
        ChildExit::Exited { code } => return format!("exit code {code}"),
        ChildExit::Signaled { signal, .. } => signal,
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

/// Returns whether the signal came from outside, so that it says nothing about the apps.
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

/// Returns whether another process sent the signal. `kill` sets `SI_USER`; `abort` uses another call, which sets
/// `SI_TKILL` (sigaction(2)).
pub(super) fn is_sent_by_others(record: &Crash) -> bool {
    record.signal != 0 && matches!(record.code, libc::SI_USER | libc::SI_QUEUE)
}

/// Returns whether the thread touched memory directly below its stack: a stack overflow.
fn is_overflow(record: &Crash) -> bool {
    // A function with large locals moves the stack pointer by more than a page before it touches the memory.
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

/// Returns the last line that a C library or std printed before it aborted.
fn last_words(printed: &str) -> Option<&str> {
    let lines = printed.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty()).rev().take(LINES);
    let is_said = |line: &&str| SAID.iter().any(|said| line.contains(said));
    lines.find(is_said)
}

/// How many of the last lines are searched.
const LINES: usize = 5;

/// Parts of the messages of glibc's malloc, its stack protector and fortified functions, `assert`, C++, and
/// Rust's std.
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

/// The `si_code` of a fault without an address, such as a non-canonical pointer (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;
