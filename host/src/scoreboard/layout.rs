//! The layout of the shared memory: tables of atomic words, which are all zero at first.
//!
//! All bytes are valid. A process that goes wrong may write anything here, so that a reader checks each number
//! before use. The header has a version of the layout, because the supervisor may be another build.

use std::sync::atomic::{AtomicU64, Ordering};

use super::text::{TextWords, words};

/// The whole memory. Most of its pages are never touched, and cost nothing.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Board {
    pub(super) header: BoardHeader,
    pub(super) labels: [LabelEntry; LABELS],
    pub(super) slots: [Slot; SLOTS],
    /// Crashes, written by signal handlers.
    pub(super) crashes: [ThreadRecord; CRASHES],
    /// The thread that ended the process by `exit`.
    pub(super) exit: ThreadRecord,
    /// The stacks of threads that were asked for them.
    pub(super) dumps: [ThreadRecord; DUMPS],
}

/// How many generations have room in the table. A process can load about as many libraries, because each takes a
/// pthread key.
pub(super) const LABELS: usize = 1024;
/// How many threads have a slot.
pub(super) const SLOTS: usize = 512;
/// How many crashing threads have a record.
pub(super) const CRASHES: usize = 4;
/// How many threads can write down their stacks.
pub(super) const DUMPS: usize = 256;
/// How many return addresses a record has.
pub(super) const FRAMES: usize = 64;
/// How many mapped files a record can name.
pub(super) const IMAGES: usize = 16;

/// The numbers that concern the whole process.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct BoardHeader {
    /// [`LAYOUT`], once a process serves.
    pub(super) layout: AtomicU64,
    /// The coarse monotonic clock in ms at the last [`tick`](super::Scoreboard::tick).
    pub(super) tick: AtomicU64,
    /// How many labels are in use.
    pub(super) labels: AtomicU64,
    /// How many slots were ever in use.
    pub(super) slots: AtomicU64,
    /// How many dumps were begun.
    pub(super) dumps: AtomicU64,
    /// The signal that makes a thread write down its stack. 0 before its handler is installed.
    pub(super) dump_signal: AtomicU64,
}

/// The version of the layout. It has to change with every change of the layout.
pub(super) const LAYOUT: u64 = 0x686f_7374_0000_0001;

/// One generation of an app.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct LabelEntry {
    pub(super) generation: AtomicU64,
    /// The length of the name, and in the upper half that of the copy's path. Written last: an entry whose word is 0 is
    /// not complete.
    pub(super) lengths: AtomicU64,
    pub(super) name: TextWords<8>,
    pub(super) copy: TextWords<64>,
    /// Unused, for counters of later versions.
    pub(super) counters: [AtomicU64; 14],
}

/// The slot of one thread.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) work: WorkWords,
    /// The thread id of the system. 0 when the slot is free.
    pub(super) thread: AtomicU64,
    pub(super) name: TextWords<2>,
}

/// The work of a thread in an app. Part of a [`Slot`], and copied into a [`ThreadRecord`].
///
/// A slot is a seqlock with one writer, its thread. The thread sets the state to "writing", writes the other words, and
/// sets a state with a new count. A reader reads the state, the words, and the state again. The words belong together
/// if both states are equal and neither is "writing".
#[repr(C)]
#[derive(Debug)]
pub(super) struct WorkWords {
    /// A [`SlotState`].
    pub(super) state: AtomicU64,
    /// The header's tick when the thread entered the app.
    pub(super) since: AtomicU64,
    /// The lengths of id, method and path, in two bytes each.
    pub(super) lengths: AtomicU64,
    pub(super) method: TextWords<1>,
    pub(super) id: TextWords<4>,
    pub(super) path: TextWords<8>,
}

impl WorkWords {
    /// Reads all words, which may be in the middle of a change.
    pub(super) fn read(&self) -> Words {
        Words {
            state: SlotState(self.state.load(Ordering::Relaxed)),
            since: self.since.load(Ordering::Relaxed),
            lengths: self.lengths.load(Ordering::Relaxed),
            method: words(&self.method),
            id: words(&self.id),
            path: words(&self.path),
        }
    }

    /// Writes all of `words`, except their state.
    pub(super) fn write(&self, words: &Words) {
        let store = |to: &[AtomicU64], from: &[u64]| {
            for (to, from) in to.iter().zip(from) {
                to.store(*from, Ordering::Relaxed);
            }
        };
        self.since.store(words.since, Ordering::Relaxed);
        self.lengths.store(words.lengths, Ordering::Relaxed);
        store(&self.method, &words.method);
        store(&self.id, &words.id);
        store(&self.path, &words.path);
    }
}

/// A copy of [`WorkWords`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) state: SlotState,
    pub(super) since: u64,
    pub(super) lengths: u64,
    pub(super) method: [u64; 1],
    pub(super) id: [u64; 4],
    pub(super) path: [u64; 8],
}

/// The state of a slot in one word: the label of the app (16 bits; 0 outside of apps), the kind of work (8 bits), and a
/// count (40 bits) that goes up at every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotState(pub(super) u64);

// From the lowest bit: 16 bits of label, 8 bits of kind, 40 bits of count.
impl SlotState {
    /// One step of the count.
    const COUNT: u64 = 1 << 24;
    /// The kind of work that means: the words of the slot are being written.
    const WRITING: u64 = 0xff << 16;
    /// The bits below the count.
    const MEANING: u64 = Self::COUNT - 1;

    /// Whether the thread is outside of apps.
    pub(super) fn is_idle(self) -> bool {
        self.0 & Self::MEANING == 0
    }

    /// Whether the thread is writing the other words.
    pub(super) fn is_writing(self) -> bool {
        self.0 & Self::WRITING == Self::WRITING
    }

    /// Returns how often the state has changed.
    pub(super) fn count(self) -> u64 {
        self.0 >> 24
    }

    /// Returns the number of the app's generation, from 1.
    pub(super) fn label(self) -> u16 {
        self.0 as u16
    }

    /// Returns the number of the [kind](super::WorkKind) of work.
    pub(super) fn kind(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Returns the state after the thread left the app.
    pub(super) fn next_idle(self) -> Self {
        Self((self.0 & !Self::MEANING).wrapping_add(Self::COUNT))
    }

    /// Returns the state while the thread writes the other words.
    pub(super) fn next_writing(self) -> Self {
        Self(self.next_idle().0 | Self::WRITING)
    }

    /// Returns the state after the thread entered an app.
    pub(super) fn next(self, label: u16, kind: u8) -> Self {
        Self(self.next_idle().0 | u64::from(kind) << 16 | u64::from(label))
    }
}

/// The data that a signal handler has written about its thread.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct ThreadRecord {
    /// How much of the record is written: see [`stage`].
    pub(super) stage: AtomicU64,
    /// The number of the signal. 0 for an exit.
    pub(super) signal: AtomicU64,
    pub(super) code: AtomicU64,
    pub(super) address: AtomicU64,
    pub(super) instruction: AtomicU64,
    pub(super) stack: AtomicU64,
    pub(super) thread: AtomicU64,
    pub(super) name: TextWords<2>,
    /// When the record was written, by the coarse monotonic clock in ms.
    pub(super) at: AtomicU64,
    pub(super) work: WorkWords,
    pub(super) frame_count: AtomicU64,
    pub(super) image_count: AtomicU64,
    /// Return addresses, the innermost first.
    pub(super) frames: [AtomicU64; FRAMES],
    /// The offset of each frame in its file (48 bits), and the number of that file in `images` (16 bits, from 1).
    pub(super) places: [AtomicU64; FRAMES],
    pub(super) images: [MappedFile; IMAGES],
}

/// The values of [`ThreadRecord::stage`]. Each stage includes those before it.
pub(super) mod stage {
    /// The record is free.
    pub(in crate::scoreboard) const FREE: u64 = 0;
    /// A handler has begun to write.
    pub(in crate::scoreboard) const CLAIMED: u64 = 1;
    /// All is written but the frames.
    pub(in crate::scoreboard) const NOTED: u64 = 2;
    /// The addresses of the frames are written.
    pub(in crate::scoreboard) const TRACED: u64 = 3;
    /// The files of the frames are written.
    pub(in crate::scoreboard) const PLACED: u64 = 4;
}

/// A file from which code is mapped.
#[repr(C)]
#[derive(Debug)]
pub(super) struct MappedFile {
    pub(super) len: AtomicU64,
    pub(super) path: TextWords<64>,
}
