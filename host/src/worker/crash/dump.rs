//! Collects backtraces of all threads of a process. Each thread gets a signal, whose handler writes the backtrace of
//! that thread to the scoreboard.

use std::{
    ffi::{c_int, c_void},
    fs, io,
};

use libc::siginfo_t;
use rustix::process::Pid;

use super::{set_handler, trace::Context};
use crate::scoreboard::{
    Scoreboard, ThreadReport,
    record::{self, CodeArea},
};

/// Requests a backtrace from each thread of a process, which may be this process. Returns the number of threads that
/// got the request. The backtraces appear in [`Scoreboard::dumps`] soon after. A thread that is stopped, or that waits
/// for a disk, does not write a backtrace.
///
/// # Errors
///
/// When the process has not installed the handler yet, or has exited.
pub fn request(process: Pid, board: &Scoreboard) -> io::Result<usize> {
    let signal = board
        .dump_signal()
        .ok_or_else(|| io::Error::other("the process cannot say where it is"))?;
    // Earlier backtraces would be taken for answers to this request.
    board.clear_dumps();
    let process = process.as_raw_nonzero().get();
    let threads = fs::read_dir(format!("/proc/{process}/task"))?;
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    let send_signal = |thread: &c_int| {
        // SAFETY: `tgkill` takes no pointer. The process has a handler for the signal, so the signal does not end the
        // process.
        unsafe { libc::tgkill(process, *thread, signal) == 0 }
    };
    Ok(numbers.filter(send_signal).count())
}

/// Finds the mapped file of each address in `dumps`, and stores the files in `dumps`. The process must still be alive,
/// because its memory maps are read.
///
/// # Errors
///
/// When the memory maps of the process cannot be read.
pub fn find_files(process: Pid, dumps: &mut [ThreadReport]) -> io::Result<()> {
    let maps = fs::read(format!("/proc/{}/maps", process.as_raw_nonzero()))?;
    let areas: Vec<_> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(CodeArea::parse)
        .collect();
    for dump in dumps {
        for (index, frame) in dump.frames.iter_mut().enumerate() {
            // All addresses but the first are return addresses. A return address is the address after the call, and may
            // lie after the last byte of the area, so the byte before is looked up.
            let inside = frame.address.saturating_sub(u64::from(index > 0));
            let area = areas
                .iter()
                .find(|area| (area.start..area.end).contains(&inside));
            frame.location = area.map(|area| area.locate(frame.address));
        }
    }
    Ok(())
}

/// Installs the handler that writes the backtrace of a thread.
pub(super) fn install(board: &Scoreboard) -> io::Result<()> {
    // Libraries hardly ever use the highest real-time signals. The C library itself uses the lowest.
    let signal = libc::SIGRTMAX() - 3;
    // SA_ONSTACK is not set, so the handler runs on the normal stack of the thread. That stack is not full here, and an
    // alternate stack may be too small. SA_RESTART hides the signal from system calls that the threads are
    // waiting in.
    set_handler(signal, handle_dump_signal, libc::SA_RESTART)?;
    board.set_dump_signal(signal);
    Ok(())
}

extern "C" fn handle_dump_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(record) = record::claim_dump() else {
        return;
    };
    // SAFETY: the kernel calls this handler, and its arguments are valid until the handler returns.
    let context = unsafe { Context::new(signal, info, context) };
    record.write_facts(&context.signal_info());
    record.trace_from_signal(&context);
}
