//! The records that signal handlers write about their threads: a crash, an exit or a stack dump.
//!
//! The code runs in signal handlers, at any point of a thread's code. So it only stores into memory that is mapped
//! already; it takes no lock and allocates nothing (signal-safety(7)).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    coarse_ms,
    layout::{FRAMES, IMAGES, MappedFile, SlotState, stage},
    serving, text, thread,
};

pub(crate) use super::layout::ThreadRecord;

/// The data that the system gives a signal handler about its thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SignalInfo {
    /// The signal, or 0 for an exit.
    pub(crate) signal: i32,
    /// The signal's `si_code`, or the code of an exit.
    pub(crate) code: i32,
    /// The signal's `si_addr`.
    pub(crate) address: u64,
    /// The instruction pointer of the thread when the signal came.
    pub(crate) instruction: u64,
    /// The stack pointer likewise.
    pub(crate) stack: u64,
    /// The thread id of the system.
    pub(crate) thread: u32,
    /// The name of the thread, padded with zeros.
    pub(crate) name: [u8; 16],
}

/// Claims a record for a crash. Returns None when all are in use, or there is no scoreboard.
pub(crate) fn claim_crash() -> Option<&'static ThreadRecord> {
    let board = serving()?.board();
    board.crashes.iter().find(|record| record.claim())
}

/// Claims the record for the exit. Only the first call succeeds.
pub(crate) fn claim_exit() -> Option<&'static ThreadRecord> {
    let record = &serving()?.board().exit;
    record.claim().then_some(record)
}

/// Claims a record for a stack dump. Returns None when all are in use, or there is no scoreboard.
pub(crate) fn claim_dump() -> Option<&'static ThreadRecord> {
    let board = serving()?.board();
    let next = board.header.dumps.fetch_add(1, Ordering::Relaxed);
    let record = board.dumps.get(usize::try_from(next).ok()?)?;
    record.claim().then_some(record)
}

/// Whether this thread is in an app.
pub(crate) fn is_in_app() -> bool {
    thread::current().is_some_and(|slot| {
        let state = SlotState(slot.work.state.load(Ordering::Relaxed));
        !state.is_idle()
    })
}

impl ThreadRecord {
    /// Claims a free record for one handler. Returns false when it is in use.
    fn claim(&self) -> bool {
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
    pub(crate) fn give_back(&self) {
        self.stage.store(stage::FREE, Ordering::Release);
    }

    /// Writes what the system tells, and what this thread was doing in an app.
    pub(crate) fn note(&self, info: &SignalInfo) {
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        store(&self.signal, i64::from(info.signal) as u64);
        store(&self.code, i64::from(info.code) as u64);
        store(&self.address, info.address);
        store(&self.instruction, info.instruction);
        store(&self.stack, info.stack);
        store(&self.thread, info.thread.into());
        text::store(&self.name, &info.name);
        store(&self.at, coarse_ms());
        store(&self.frame_count, 0);
        store(&self.image_count, 0);
        match thread::current() {
            Some(slot) => {
                let words = slot.work.read();
                self.work.write(&words);
                self.work.state.store(words.state.0, Ordering::Relaxed);
            }
            None => self.work.state.store(0, Ordering::Relaxed),
        }
        // Release: a reader that sees the stage also sees all words above.
        self.stage.store(stage::NOTED, Ordering::Release);
    }

    /// Writes the return addresses of the thread's stack, the innermost first. Only the first [`FRAMES`] have room.
    pub(crate) fn trace(&self, frames: impl Iterator<Item = u64>) {
        let mut count = 0;
        for (room, address) in self.frames.iter().zip(frames) {
            room.store(address, Ordering::Relaxed);
            count += 1;
        }
        // An earlier use of the record may have left places.
        for place in &self.places[..count] {
            place.store(0, Ordering::Relaxed);
        }
        self.frame_count.store(count as u64, Ordering::Relaxed);
        self.stage.store(stage::TRACED, Ordering::Release);
    }

    /// Writes the file and the offset of each frame that is in `area`.
    pub(crate) fn place(&self, area: &Area<'_>) {
        let count = self.frame_count.load(Ordering::Relaxed) as usize;
        let mut image = None;
        for (at, address) in self.frames[..count.min(FRAMES)].iter().enumerate() {
            let address = address.load(Ordering::Relaxed);
            // A return address is behind the call, and so may be behind the last byte of the area.
            let inside = if at == 0 {
                address
            } else {
                address.wrapping_sub(1)
            };
            if !(area.start..area.end).contains(&inside) {
                continue;
            }
            if image.is_none() {
                image = self.image(area.path);
            }
            let Some(image) = image else { return };
            let place = (image as u64 + 1) << 48 | area.offset_of(address) & (u64::MAX >> 16);
            self.places[at].store(place, Ordering::Relaxed);
        }
    }

    /// Marks the record as complete, after [`place`](Self::place) for all areas.
    pub(crate) fn placed(&self) {
        self.stage.store(stage::PLACED, Ordering::Release);
    }

    /// Returns the index of the mapped file with this path, and adds the file unless it is the last one. Areas come in the
    /// order of their addresses, so that those of one file follow each other. Returns None when there is no room.
    fn image(&self, path: &[u8]) -> Option<usize> {
        let count = self.image_count.load(Ordering::Relaxed) as usize;
        if let Some(last) = count.checked_sub(1)
            && self.images.get(last)?.is(path)
        {
            return Some(last);
        }
        let image = self.images.get(count)?;
        let len = text::store(&image.path, path);
        image.len.store(len as u64, Ordering::Relaxed);
        debug_assert!(count < IMAGES);
        self.image_count.store(count as u64 + 1, Ordering::Relaxed);
        Some(count)
    }
}

impl MappedFile {
    /// Whether the file has this path.
    fn is(&self, path: &[u8]) -> bool {
        self.len.load(Ordering::Relaxed) as usize == path.len() && text::is(&self.path, path)
    }
}

/// A range of memory into which code of a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area<'a> {
    /// The first address.
    pub(crate) start: u64,
    /// The first address behind the range.
    pub(crate) end: u64,
    /// The offset in the file where the range begins.
    pub(crate) offset: u64,
    /// The path of the file.
    pub(crate) path: &'a [u8],
}

impl<'a> Area<'a> {
    /// Returns the file of an address, and the offset in the file.
    pub(crate) fn place(&self, address: u64) -> (PathBuf, u64) {
        let path = OsStr::from_bytes(self.path);
        (path.into(), self.offset_of(address))
    }

    fn offset_of(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start).wrapping_add(self.offset)
    }

    /// Parses a line of `/proc/PID/maps` (proc_pid_maps(5)). Returns None when the line has another form, or the range is
    /// not code of a file.
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
            start: hex(start)?,
            end: hex(end)?,
            offset: hex(offset)?,
            path: path.strip_suffix(b" (deleted)").unwrap_or(path),
        })
    }
}

/// Splits at the first byte `at`, as `split_once` does for strings.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == at)?;
    Some((&text[..end], &text[end + 1..]))
}

/// Parses a hexadecimal number.
fn hex(digits: &[u8]) -> Option<u64> {
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
        let area = Area::parse(
            b"7f10-7f20 r-xp 00001000 08:01 42                         /s/a shop.g1.so",
        );
        let path: &[u8] = b"/s/a shop.g1.so";
        assert_eq!(
            area,
            Some(Area {
                start: 0x7f10,
                end: 0x7f20,
                offset: 0x1000,
                path
            })
        );
        let deleted = Area::parse(b"7f10-7f20 r-xp 0 08:01 42    /s/shop.so (deleted)");
        assert_eq!(deleted.map(|area| area.path), Some(&b"/s/shop.so"[..]));
        for none in [
            &b"7f10-7f20 rw-p 00001000 08:01 42  /s/shop.so"[..],
            b"7f10-7f20 r-xp 00000000 00:00 0 ",
            b"7f10-7f20 r-xp 00000000 00:00 0    [vdso]",
            b"7f10",
            b"",
        ] {
            assert_eq!(Area::parse(none), None);
        }
    }
}
