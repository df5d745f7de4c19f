//! Backtraces of all threads of a process: each thread gets a signal, whose handler writes its backtrace.

use std::{
    ffi::{c_int, c_void},
    fs, io,
};

use libc::siginfo_t;
use rustix::process::Pid;

use super::{handle, trace::Context};
use crate::scoreboard::{
    Crash, Scoreboard,
    record::{self, Area},
};

/// Asks each thread of a process, which may be this one, for a backtrace. Returns the number of threads asked. The
/// backtraces appear in [`Scoreboard::dumps`] soon after. A thread that waits for a disk or is stopped never
/// answers.
///
/// # Errors
///
/// When the process has no handler yet, or has exited.
pub fn ask(process: Pid, board: &Scoreboard) -> io::Result<usize> {
    let signal = board
        .dump_signal()
        .ok_or_else(|| io::Error::other("the process cannot say where it is"))?;
    board.forget_dumps();
    let process = process.as_raw_nonzero().get();
    let threads = fs::read_dir(format!("/proc/{process}/task"))?;
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    let is_asked = |thread: &c_int| {
        // SAFETY: it has no memory to be wrong about. The process has a handler for the signal, so that nobody dies of it.
        unsafe { libc::tgkill(process, *thread, signal) == 0 }
    };
    Ok(numbers.filter(is_asked).count())
}

/// Finds the mapped files of the addresses, while the process still lives.
///
/// # Errors
///
/// When the maps of the process cannot be read.
pub fn place(process: Pid, dumps: &mut [Crash]) -> io::Result<()> {
    let maps = fs::read(format!("/proc/{}/maps", process.as_raw_nonzero()))?;
    let areas: Vec<_> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(Area::parse)
        .collect();
    for dump in dumps {
        for (at, frame) in dump.frames.iter_mut().enumerate() {
            let inside = frame.address.saturating_sub(u64::from(at > 0));
            let area = areas
                .iter()
                .find(|area| (area.start..area.end).contains(&inside));
            frame.place = area.map(|area| area.place(frame.address));
        }
    }
    Ok(())
}

/// Installs the handler with which threads answer.
pub(super) fn install(board: &Scoreboard) -> io::Result<()> {
    // The highest real-time signals are hardly ever used; the C library uses the lowest.
    let signal = libc::SIGRTMAX() - 3;
    // The handler runs on the thread's own stack, which is not full here. An alternate stack may be too small.
    handle(signal, dumps, libc::SA_RESTART)?;
    board.set_dump_signal(signal);
    Ok(())
}

extern "C" fn dumps(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(record) = record::claim_dump() else {
        return;
    };
    // SAFETY: the kernel calls.
    let context = unsafe { Context::new(signal, info, context) };
    record.note(&context.signal_info());
    record.trace_from(&context);
}
