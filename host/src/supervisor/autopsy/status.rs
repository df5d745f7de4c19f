//! Describes exit statuses and signals for people.

use super::Evidence;
use crate::{
    scoreboard::ThreadReport,
    supervisor::process::{ChildExit, signal_name},
};

/// Returns the signal that ended a process, or `None` if the process exited by itself.
pub(super) fn signal(status: ChildExit) -> Option<i32> {
    match status {
        ChildExit::Signaled { signal, .. } => Some(signal),
        ChildExit::Exited { .. } => None,
    }
}

/// Returns the cause of death as a text for people.
pub(super) fn describe(evidence: &Evidence<'_>, record: Option<&ThreadReport>) -> String {
    let signal = match evidence.status {
        ChildExit::Exited { code } if record.is_some() => return format!("a call of exit({code})"),
        ChildExit::Exited { code } => return format!("exit code {code}"),
        ChildExit::Signaled { signal, .. } => signal,
    };
    let name = signal_name(signal);
    if evidence.out_of_memory {
        return format!("{name}, out of memory: killed by the kernel");
    }
    let message = abort_message(evidence.last_words);
    let Some(record) = record else {
        return match message {
            Some(message) => format!("{name} ({message})"),
            None => name,
        };
    };
    if is_sent_by_others(record) {
        return format!("{name}, sent by another process");
    }
    if is_overflow(record) {
        return format!("{name}: a thread's stack is full");
    }
    // The process died of another signal than the recorded one, for example because another handler has aborted.
    if record.signal != signal {
        return format!("{name} after {}", with_address(record));
    }
    // For an abort, the printed message is the only detail.
    match message {
        Some(message) if record.signal == libc::SIGABRT => format!("{name} ({message})"),
        _ => with_address(record),
    }
}

/// Returns whether the signal came from outside the worker, so that no app can be blamed for the signal.
pub(super) fn is_from_outside(evidence: &Evidence<'_>, record: Option<&ThreadReport>) -> bool {
    // The kernel does not send these signals for a fault in the program, so somebody has sent them.
    let outside_signals = [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
    ];
    signal(evidence.status).is_some_and(|signal| outside_signals.contains(&signal))
        || record.is_some_and(is_sent_by_others)
}

/// Returns whether another process sent the signal. The code is then `SI_USER`, which `kill` sets, or `SI_QUEUE`. A
/// call of `abort` in the worker itself sets `SI_TKILL` instead (sigaction(2)).
pub(super) fn is_sent_by_others(record: &ThreadReport) -> bool {
    record.signal != 0 && matches!(record.code, libc::SI_USER | libc::SI_QUEUE)
}

/// Returns whether the crash is a stack overflow: the thread accessed memory close to its stack pointer.
fn is_overflow(record: &ThreadReport) -> bool {
    // In bytes. A function with large local variables moves the stack pointer by more than a page before it accesses
    // the memory.
    const MAX_DISTANCE: u64 = 64 << 10;
    // If the instruction pointer equals the address, the thread has jumped to the address, and the stack is not to
    // blame.
    record.signal == libc::SIGSEGV
        && record.address != 0
        && record.address.abs_diff(record.stack) <= MAX_DISTANCE
        && record.instruction != record.address
}

/// Returns the name of the signal with the address that the kernel reported.
fn with_address(record: &ThreadReport) -> String {
    let name = signal_name(record.signal);
    match record.signal {
        libc::SIGSEGV if record.code == SI_KERNEL => format!("{name} at no address that there is"),
        libc::SIGSEGV | libc::SIGBUS => format!("{name} at address {:#x}", record.address),
        libc::SIGILL | libc::SIGFPE => format!("{name} at instruction {:#x}", record.instruction),
        _ => name,
    }
}

/// Returns the line that a C library or std printed before it aborted, if the last lines contain one.
fn abort_message(printed: &str) -> Option<&str> {
    let lines = printed.lines().map(str::trim);
    let mut lines = lines
        .filter(|line| !line.is_empty())
        .rev()
        .take(MAX_SEARCHED_LINES);
    let is_abort_message =
        |line: &&str| ABORT_MESSAGES.iter().any(|message| line.contains(message));
    // The lines are in reverse order, so the latest message is found first.
    lines.find(is_abort_message)
}

/// How many of the last lines are searched for an abort message.
const MAX_SEARCHED_LINES: usize = 5;

/// Parts of the messages of glibc's malloc, its stack protector and fortified functions, `assert`, C++, and
/// Rust's std.
const ABORT_MESSAGES: [&str; 16] = [
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
