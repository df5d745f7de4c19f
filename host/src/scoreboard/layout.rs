//! The layout of the shared memory: tables of atomic words. All words are zero at first.
//!
//! Any bytes are a valid [`Board`]. A faulty worker may overwrite any bytes, so a reader checks each number before use.
//! The layout has no version, because both processes that use a scoreboard are of the same build: an upgrade of the
//! supervisor does not hand over scoreboards.

use std::sync::atomic::{AtomicU64, Ordering};

use super::text::{TextField, read_words};

/// The whole shared memory. Most pages are never written, and the system provides memory only for written pages.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Board {
    pub(super) header: BoardHeader,
    /// The generations that the process has loaded. The entry at index 0 has label 1.
    pub(super) labels: [LabelEntry; MAX_LABELS],
    /// The work of each thread.
    pub(super) slots: [Slot; MAX_SLOTS],
    /// The records of threads that crashed.
    pub(super) crashes: [ThreadRecord; MAX_CRASHES],
    /// The record of the thread that called `exit`.
    pub(super) exit: ThreadRecord,
    /// The records of threads whose backtraces were requested.
    pub(super) dumps: [ThreadRecord; MAX_DUMPS],
}

/// The size of the table of generations. A process can load about as many libraries, because each library takes a
/// pthread key.
pub(super) const MAX_LABELS: usize = 1024;
/// The number of threads that can have a slot at the same time.
pub(super) const MAX_SLOTS: usize = 512;
/// The number of records for threads that crash.
pub(super) const MAX_CRASHES: usize = 4;
/// The number of records for requested backtraces.
pub(super) const MAX_DUMPS: usize = 256;
/// The number of return addresses that a record can hold.
pub(super) const MAX_FRAMES: usize = 64;
/// The number of mapped files that a record can name.
pub(super) const MAX_FILES: usize = 16;

/// The numbers that concern the whole process.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct BoardHeader {
    /// The time of the last [`tick`](super::Scoreboard::tick): the coarse monotonic clock in milliseconds.
    pub(super) clock_ms: AtomicU64,
    /// The number of labels that were requested. Larger than the table if the table is full.
    pub(super) label_count: AtomicU64,
    /// The number of slots that were ever in use. The slots after these were never written.
    pub(super) slot_count: AtomicU64,
    /// The number of dump records that were requested since the dumps were cleared. May be larger than the table.
    pub(super) dump_count: AtomicU64,
    /// The signal whose handler writes the backtrace of a thread. 0 until the handler is installed.
    pub(super) dump_signal: AtomicU64,
}

/// One generation of an app. Written once, by [`add_label`](super::add_label).
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct LabelEntry {
    /// The number of the generation.
    pub(super) generation: AtomicU64,
    /// The length of `name` in the lower 32 bits, and the length of `copy` in the upper 32 bits. Written last: while
    /// the word is 0, the entry is not complete.
    pub(super) lengths: AtomicU64,
    /// The name of the app.
    pub(super) name: TextField<8>,
    /// The path of the private copy of the library.
    pub(super) copy: TextField<64>,
    /// Unused, for counters of later versions.
    pub(super) counters: [AtomicU64; 14],
}

/// The slot of one thread.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) work: AtomicWork,
    /// The id of the thread in the kernel. 0 while the slot is free.
    pub(super) thread: AtomicU64,
    /// The name of the thread, padded with zeros.
    pub(super) name: TextField<2>,
}

/// The work of a thread in an app. Is a part of a [`Slot`], and is copied into a [`ThreadRecord`] by a signal handler.
///
/// The work in a slot is a seqlock with one writer: the thread that owns the slot. The thread sets the state to
/// "writing", writes the other words, and then sets a state with a new count. A reader reads the state, the other
/// words, and the state again. The words belong together if both states are equal and neither is "writing".
#[repr(C)]
#[derive(Debug)]
pub(super) struct AtomicWork {
    /// A [`SlotState`].
    pub(super) state: AtomicU64,
    /// When the thread entered the app: the header's `clock_ms` at that moment.
    pub(super) since_ms: AtomicU64,
    /// The lengths of `id`, `method` and `path`, with 16 bits each, from the lowest bit. 0 if the work is not for a
    /// request.
    pub(super) lengths: AtomicU64,
    /// The method of the request.
    pub(super) method: TextField<1>,
    /// The id of the request in the log.
    pub(super) id: TextField<4>,
    /// The path of the request.
    pub(super) path: TextField<8>,
}

impl AtomicWork {
    /// Reads all words one after the other. If the thread is writing meanwhile, the words may not belong together.
    pub(super) fn read(&self) -> WorkCopy {
        WorkCopy {
            state: SlotState(self.state.load(Ordering::Relaxed)),
            since_ms: self.since_ms.load(Ordering::Relaxed),
            lengths: self.lengths.load(Ordering::Relaxed),
            method: read_words(&self.method),
            id: read_words(&self.id),
            path: read_words(&self.path),
        }
    }

    /// Writes all words of `copy` except the state. The caller writes the state, because the state tells readers when
    /// the other words are complete.
    pub(super) fn write(&self, copy: &WorkCopy) {
        let store = |to: &[AtomicU64], from: &[u64]| {
            for (to, from) in to.iter().zip(from) {
                to.store(*from, Ordering::Relaxed);
            }
        };
        self.since_ms.store(copy.since_ms, Ordering::Relaxed);
        self.lengths.store(copy.lengths, Ordering::Relaxed);
        store(&self.method, &copy.method);
        store(&self.id, &copy.id);
        store(&self.path, &copy.path);
    }
}

/// A copy of [`AtomicWork`] outside of the shared memory. The fields are the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkCopy {
    pub(super) state: SlotState,
    pub(super) since_ms: u64,
    pub(super) lengths: u64,
    pub(super) method: [u64; 1],
    pub(super) id: [u64; 4],
    pub(super) path: [u64; 8],
}

/// The state of a slot in one word. From the lowest bit: the label of the app (16 bits; 0 if the app has no label), the
/// kind of work (8 bits; 0 outside of apps), and a count (40 bits) that every change increases by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotState(pub(super) u64);

impl SlotState {
    /// The lowest bit of the count. Adding this value increases the count by one.
    const COUNT_STEP: u64 = 1 << 24;
    /// The bits of the kind, all set. This kind means that the thread is writing the other words of the slot.
    const WRITING: u64 = 0xff << 16;
    /// The bits of label and kind.
    const LABEL_AND_KIND: u64 = Self::COUNT_STEP - 1;

    /// Returns whether the thread is outside of apps.
    pub(super) fn is_idle(self) -> bool {
        self.0 & Self::LABEL_AND_KIND == 0
    }

    /// Returns whether the thread is writing the other words of the slot.
    pub(super) fn is_writing(self) -> bool {
        self.0 & Self::WRITING == Self::WRITING
    }

    /// Returns how often the state has changed.
    pub(super) fn count(self) -> u64 {
        self.0 >> 24
    }

    /// Returns the number in the [label](super::Label) of the app, from 1. Returns 0 if the app has no label.
    pub(super) fn label(self) -> u16 {
        self.0 as u16
    }

    /// Returns the number of the [kind](super::WorkKind) of work.
    pub(super) fn kind(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Returns the state that follows this state when the thread leaves the app.
    pub(super) fn next_idle(self) -> Self {
        Self((self.0 & !Self::LABEL_AND_KIND).wrapping_add(Self::COUNT_STEP))
    }

    /// Returns the state that follows this state while the thread writes the other words.
    pub(super) fn next_writing(self) -> Self {
        Self(self.next_idle().0 | Self::WRITING)
    }

    /// Returns the state that follows this state when the thread works in an app.
    pub(super) fn next_working(self, label: u16, kind: u8) -> Self {
        Self(self.next_idle().0 | u64::from(kind) << 16 | u64::from(label))
    }
}

/// The data that a signal handler, or the handler of `exit`, writes about its thread. The fields from `signal` to
/// `name` have the meaning of the same fields of [`SignalInfo`](super::record::SignalInfo).
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct ThreadRecord {
    /// The progress of the writing: one of the constants in [`stage`].
    pub(super) stage: AtomicU64,
    pub(super) signal: AtomicU64,
    pub(super) code: AtomicU64,
    pub(super) address: AtomicU64,
    pub(super) instruction: AtomicU64,
    pub(super) stack: AtomicU64,
    pub(super) thread: AtomicU64,
    pub(super) name: TextField<2>,
    /// When the record was written: the coarse monotonic clock in milliseconds.
    pub(super) time_ms: AtomicU64,
    /// A copy of the thread's work in an app, from the thread's slot.
    pub(super) work: AtomicWork,
    /// The number of addresses in `frames`.
    pub(super) frame_count: AtomicU64,
    /// The number of files in `files`.
    pub(super) file_count: AtomicU64,
    /// The instruction pointer and the return addresses of the stack, the innermost first.
    pub(super) frames: [AtomicU64; MAX_FRAMES],
    /// The location of each frame: the offset in its file (lower 48 bits), and the number of that file in `files`
    /// (upper 16 bits, from 1). 0 if the location is not known.
    pub(super) locations: [AtomicU64; MAX_FRAMES],
    /// The files that `locations` refers to.
    pub(super) files: [MappedFile; MAX_FILES],
}

/// The values of [`ThreadRecord::stage`], in the order in which a record reaches them.
pub(super) mod stage {
    /// The record is free.
    pub(in crate::scoreboard) const FREE: u64 = 0;
    /// A handler has claimed the record, and has not finished the first part.
    pub(in crate::scoreboard) const CLAIMED: u64 = 1;
    /// All fields but the frames, the locations and the files are written.
    pub(in crate::scoreboard) const FACTS_WRITTEN: u64 = 2;
    /// The frames are written, too.
    pub(in crate::scoreboard) const FRAMES_WRITTEN: u64 = 3;
    /// The locations and the files are written, too.
    pub(in crate::scoreboard) const COMPLETE: u64 = 4;
}

/// A file from which code is mapped.
#[repr(C)]
#[derive(Debug)]
pub(super) struct MappedFile {
    /// The length of the path in bytes.
    pub(super) len: AtomicU64,
    pub(super) path: TextField<64>,
}
