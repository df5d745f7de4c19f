//! The records that signal handlers write about their threads: after a crash, at a call of `exit`, or for a requested
//! backtrace.
//!
//! This code runs in signal handlers, which interrupt a thread at any instruction. The code therefore takes no lock,
//! allocates no memory, and stores only into memory that is mapped already (signal-safety(7)).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    active, coarse_ms,
    layout::{MAX_FILES, MAX_FRAMES, MappedFile, SlotState, stage},
    text, thread,
};

pub(crate) use super::layout::ThreadRecord;

/// The data that the kernel passes to a signal handler, and the id and the name of the thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SignalInfo {
    /// The number of the signal. 0 for a call of `exit`.
    pub(crate) signal: i32,
    /// The `si_code` of the signal (sigaction(2)), or the exit code.
    pub(crate) code: i32,
    /// The address that could not be accessed (`si_addr`). 0 if the signal is not about an address.
    pub(crate) address: u64,
    /// The instruction pointer of the thread at the signal. 0 if unknown.
    pub(crate) instruction: u64,
    /// The stack pointer of the thread at the signal. 0 if unknown.
    pub(crate) stack: u64,
    /// The id of the thread in the kernel.
    pub(crate) thread: u32,
    /// The name of the thread, padded with zeros.
    pub(crate) name: [u8; 16],
}

/// Claims a record for a crash. Returns `None` if all records are in use, or the process has no active scoreboard.
pub(crate) fn claim_crash() -> Option<&'static ThreadRecord> {
    let board = active()?.board();
    board.crashes.iter().find(|record| record.claim())
}

/// Claims the record for a call of `exit`. Returns `None` if the record is in use, or the process has no active
/// scoreboard.
pub(crate) fn claim_exit() -> Option<&'static ThreadRecord> {
    let record = &active()?.board().exit;
    record.claim().then_some(record)
}

/// Claims a record for a requested backtrace. Returns `None` if all records are in use, or the process has no active
/// scoreboard.
pub(crate) fn claim_dump() -> Option<&'static ThreadRecord> {
    let board = active()?.board();
    // The counter gives each thread another record, because all threads get the signal at about the same time.
    let index = board.header.dump_count.fetch_add(1, Ordering::Relaxed);
    let record = board.dumps.get(usize::try_from(index).ok()?)?;
    record.claim().then_some(record)
}

/// Returns whether this thread is in an app.
pub(crate) fn is_in_app() -> bool {
    thread::current().is_some_and(|slot| {
        let state = SlotState(slot.work.state.load(Ordering::Relaxed));
        !state.is_idle()
    })
}

impl ThreadRecord {
    /// Claims the record for the calling handler. Returns false if the record is in use.
    fn claim(&self) -> bool {
        // An atomic exchange, because several threads may crash at the same time.
        self.stage
            .compare_exchange(
                stage::FREE,
                stage::CLAIMED,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Makes the record free again.
    pub(crate) fn release(&self) {
        self.stage.store(stage::FREE, Ordering::Release);
    }

    /// Writes the facts from the kernel, and a copy of this thread's work in an app.
    pub(crate) fn write_facts(&self, info: &SignalInfo) {
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        store(&self.signal, i64::from(info.signal) as u64);
        store(&self.code, i64::from(info.code) as u64);
        store(&self.address, info.address);
        store(&self.instruction, info.instruction);
        store(&self.stack, info.stack);
        store(&self.thread, info.thread.into());
        text::store(&self.name, &info.name);
        store(&self.time_ms, coarse_ms());
        // An earlier use of the record may have left frames and files.
        store(&self.frame_count, 0);
        store(&self.file_count, 0);
        match thread::current() {
            Some(slot) => {
                // No retry as in a seqlock: the handler runs on the thread that writes the slot, so the words do not
                // change meanwhile.
                let work = slot.work.read();
                self.work.write(&work);
                self.work.state.store(work.state.0, Ordering::Relaxed);
            }
            // The thread has no slot. 0 means that the thread is outside of apps.
            None => self.work.state.store(0, Ordering::Relaxed),
        }
        // Release: a reader that sees the stage also sees all words above.
        self.stage.store(stage::FACTS_WRITTEN, Ordering::Release);
    }

    /// Writes the addresses of the frames of the thread's stack, the innermost first. Writes at most [`MAX_FRAMES`]
    /// addresses.
    pub(crate) fn write_frames(&self, frames: impl Iterator<Item = u64>) {
        let mut count = 0;
        for (entry, address) in self.frames.iter().zip(frames) {
            entry.store(address, Ordering::Relaxed);
            count += 1;
        }
        // An earlier use of the record may have left locations.
        for location in &self.locations[..count] {
            location.store(0, Ordering::Relaxed);
        }
        self.frame_count.store(count as u64, Ordering::Relaxed);
        // Release: a reader that sees the stage also sees the frames.
        self.stage.store(stage::FRAMES_WRITTEN, Ordering::Release);
    }

    /// Writes the locations of the frames that are in `area`. Writes nothing if the record cannot name one more file.
    pub(crate) fn locate_frames(&self, area: &CodeArea<'_>) {
        let count = self.frame_count.load(Ordering::Relaxed) as usize;
        let mut file_index = None;
        for (index, address) in self.frames[..count.min(MAX_FRAMES)].iter().enumerate() {
            let address = address.load(Ordering::Relaxed);
            // All addresses but the first are return addresses. A return address is the address after the call, and may
            // lie after the last byte of the area, so the byte before is checked.
            let inside = if index == 0 {
                address
            } else {
                // Wrapping, because a corrupt stack may contain any address, also 0.
                address.wrapping_sub(1)
            };
            if !(area.start..area.end).contains(&inside) {
                continue;
            }
            if file_index.is_none() {
                file_index = self.find_or_add_file(area.path);
            }
            let Some(file_index) = file_index else { return };
            let location =
                (file_index as u64 + 1) << 48 | area.offset_of(address) & (u64::MAX >> 16);
            self.locations[index].store(location, Ordering::Relaxed);
        }
    }

    /// Marks the record as complete. Must be called after [`locate_frames`](Self::locate_frames) for all areas.
    pub(crate) fn mark_complete(&self) {
        self.stage.store(stage::COMPLETE, Ordering::Release);
    }

    /// Returns the index of the file with this path in `files`. Adds the file if the last added file has another path.
    /// Returns `None` if the table of files is full.
    fn find_or_add_file(&self, path: &[u8]) -> Option<usize> {
        let count = self.file_count.load(Ordering::Relaxed) as usize;
        // Comparing with the last file is enough. The callers pass areas in the order of their addresses, and the areas
        // of one file follow each other.
        if let Some(last) = count.checked_sub(1)
            && self.files.get(last)?.has_path(path)
        {
            return Some(last);
        }
        let file = self.files.get(count)?;
        let len = text::store(&file.path, path);
        file.len.store(len as u64, Ordering::Relaxed);
        debug_assert!(count < MAX_FILES);
        self.file_count.store(count as u64 + 1, Ordering::Relaxed);
        Some(count)
    }
}

impl MappedFile {
    /// Returns whether the file has this path.
    fn has_path(&self, path: &[u8]) -> bool {
        self.len.load(Ordering::Relaxed) as usize == path.len() && text::equals(&self.path, path)
    }
}

/// A range of memory that contains mapped code of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeArea<'a> {
    /// The first address of the range.
    pub(crate) start: u64,
    /// The first address after the range.
    pub(crate) end: u64,
    /// The offset in the file that is mapped at `start`.
    pub(crate) offset: u64,
    /// The path of the file.
    pub(crate) path: &'a [u8],
}

impl<'a> CodeArea<'a> {
    /// Returns the path of the file, and the offset of an address in the file. `address` must be in this range.
    pub(crate) fn locate(&self, address: u64) -> (PathBuf, u64) {
        let path = OsStr::from_bytes(self.path);
        (path.into(), self.offset_of(address))
    }

    fn offset_of(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start).wrapping_add(self.offset)
    }

    /// Parses a line of `/proc/PID/maps` (proc_pid_maps(5)). Returns `None` if the line has another form, or the range
    /// is not executable, or is not mapped from a file.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let (range, rest) = split(line, b' ')?;
        let (start, end) = split(range, b'-')?;
        let (permissions, rest) = split(rest, b' ')?;
        let (offset, rest) = split(rest, b' ')?;
        let (_device, rest) = split(rest, b' ')?;
        let (_inode, path) = split(rest, b' ')?;
        let path = path.trim_ascii();
        let is_code = permissions.get(2) == Some(&b'x') && path.first() == Some(&b'/');
        is_code.then_some(Self {
            start: parse_hex(start)?,
            end: parse_hex(end)?,
            offset: parse_hex(offset)?,
            // The kernel appends this text to the path of a file that was removed.
            path: path.strip_suffix(b" (deleted)").unwrap_or(path),
        })
    }
}

/// Splits `text` at the first byte that equals `separator`, as `split_once` does for strings. Returns `None` if `text`
/// has no such byte.
fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..end], &text[end + 1..]))
}

/// Parses a hexadecimal number. Returns `None` if `digits` is empty, has other bytes, or is too large.
fn parse_hex(digits: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for digit in digits {
        let digit = (*digit as char).to_digit(16)?;
        number = number.checked_mul(16)? | u64::from(digit);
    }
    (!digits.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_code_that_is_mapped_from_a_file() {
        let area = CodeArea::parse(
            b"7f10-7f20 r-xp 00001000 08:01 42                         /s/a shop.g1.so",
        );
        let path: &[u8] = b"/s/a shop.g1.so";
        assert_eq!(
            area,
            Some(CodeArea {
                start: 0x7f10,
                end: 0x7f20,
                offset: 0x1000,
                path
            })
        );
        let deleted = CodeArea::parse(b"7f10-7f20 r-xp 0 08:01 42    /s/shop.so (deleted)");
        assert_eq!(deleted.map(|area| area.path), Some(&b"/s/shop.so"[..]));
        for none in [
            &b"7f10-7f20 rw-p 00001000 08:01 42  /s/shop.so"[..],
            b"7f10-7f20 r-xp 00000000 00:00 0 ",
            b"7f10-7f20 r-xp 00000000 00:00 0    [vdso]",
            b"7f10",
            b"",
        ] {
            assert_eq!(CodeArea::parse(none), None);
        }
    }
}
