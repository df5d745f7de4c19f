//! The shared memory's layout: tables of atomic words, all zero at first.
//!
//! Any bytes are a valid board: a process that goes wrong may write anything here, and the reader checks each
//! number before using it. A version of the layout is part of the header, as a supervisor may be of another build.

use std::sync::atomic::{AtomicU64, Ordering};

use super::text::{Text, words};

/// All of it. Most of its pages are never touched, and cost nothing.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Board {
    pub(super) header: Header,
    pub(super) labels: [Label; LABELS],
    pub(super) slots: [Slot; SLOTS],
    /// What signal handlers wrote of crashes.
    pub(super) crashes: [Record; CRASHES],
    /// What a thread that ended the process by `exit` was doing.
    pub(super) exit: Record,
    /// Where threads were when they were asked.
    pub(super) dumps: [Record; DUMPS],
}

/// How many loads of a library a process can label: about as many as it can do (thread keys).
pub(super) const LABELS: usize = 1024;
/// How many threads can be in apps at once.
pub(super) const SLOTS: usize = 512;
/// How many threads may crash at once.
pub(super) const CRASHES: usize = 4;
/// How many threads can say where they are.
pub(super) const DUMPS: usize = 256;
/// How many return addresses a record has.
pub(super) const FRAMES: usize = 64;
/// How many files with code a record names.
pub(super) const IMAGES: usize = 16;

#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Header {
    /// [`LAYOUT`], once a process has attached the memory.
    pub(super) layout: AtomicU64,
    /// The coarse monotonic clock in ms when it was last looked at.
    pub(super) tick: AtomicU64,
    /// How many labels are in use.
    pub(super) labels: AtomicU64,
    /// How many slots were ever in use.
    pub(super) slots: AtomicU64,
    /// How many dumps were begun.
    pub(super) dumps: AtomicU64,
    /// Which signal makes a thread say where it is; 0 before the handler is there.
    pub(super) dump_signal: AtomicU64,
}

/// Changes with the layout.
pub(super) const LAYOUT: u64 = 0x686f_7374_0000_0001;

/// One load of an app.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Label {
    pub(super) generation: AtomicU64,
    /// Of the name, and in the upper half of the copy's path. Set last.
    pub(super) lengths: AtomicU64,
    pub(super) name: Text<8>,
    pub(super) copy: Text<64>,
    /// Room for what is counted of each load.
    pub(super) counters: [AtomicU64; 14],
}

/// What one thread does.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) work: WorkWords,
    /// The system's number for the thread; 0 when the slot is free.
    pub(super) thread: AtomicU64,
    pub(super) name: Text<2>,
}

/// What a thread does in an app: the words of a [`Slot`], copied into a [`Record`].
#[repr(C)]
#[derive(Debug)]
pub(super) struct WorkWords {
    /// See [`State`].
    pub(super) state: AtomicU64,
    /// By the header's tick.
    pub(super) since: AtomicU64,
    /// Of id, method and path, in two bytes each.
    pub(super) lengths: AtomicU64,
    pub(super) method: Text<1>,
    pub(super) id: Text<4>,
    pub(super) path: Text<8>,
}

impl WorkWords {
    /// The words as they are now.
    pub(super) fn read(&self) -> Words {
        Words {
            state: State(self.state.load(Ordering::Relaxed)),
            since: self.since.load(Ordering::Relaxed),
            lengths: self.lengths.load(Ordering::Relaxed),
            method: words(&self.method),
            id: words(&self.id),
            path: words(&self.path),
        }
    }

    /// Writes all of `words` but their state.
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

/// The values of [`WorkWords`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) state: State,
    pub(super) since: u64,
    pub(super) lengths: u64,
    pub(super) method: [u64; 1],
    pub(super) id: [u64; 4],
    pub(super) path: [u64; 8],
}

/// The state of a slot in one word: which label (16 bits, from 1; 0 outside of an app), what the thread does for it (8
/// bits), and a count (40 bits) that goes up whenever that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

impl State {
    const COUNT: u64 = 1 << 24;
    /// The words of the slot are being written.
    const WRITING: u64 = 0xff << 16;
    const MEANING: u64 = Self::COUNT - 1;

    pub(super) fn is_idle(self) -> bool {
        self.0 & Self::MEANING == 0
    }

    pub(super) fn is_writing(self) -> bool {
        self.0 & Self::WRITING == Self::WRITING
    }

    pub(super) fn count(self) -> u64 {
        self.0 >> 24
    }

    pub(super) fn label(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn doing(self) -> u8 {
        (self.0 >> 16) as u8
    }

    pub(super) fn next_idle(self) -> Self {
        Self((self.0 & !Self::MEANING).wrapping_add(Self::COUNT))
    }

    pub(super) fn next_writing(self) -> Self {
        Self(self.next_idle().0 | Self::WRITING)
    }

    pub(super) fn next(self, label: u16, doing: u8) -> Self {
        Self(self.next_idle().0 | u64::from(doing) << 16 | u64::from(label))
    }
}

/// What a handler noted of one thread.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Record {
    /// How much of it is written: [`stage`].
    pub(super) stage: AtomicU64,
    /// The signal's number; of an exit, the code.
    pub(super) signal: AtomicU64,
    pub(super) code: AtomicU64,
    pub(super) address: AtomicU64,
    pub(super) instruction: AtomicU64,
    pub(super) stack: AtomicU64,
    pub(super) thread: AtomicU64,
    pub(super) name: Text<2>,
    /// The coarse monotonic clock in ms.
    pub(super) at: AtomicU64,
    pub(super) work: WorkWords,
    pub(super) frame_count: AtomicU64,
    pub(super) image_count: AtomicU64,
    /// Addresses, the innermost first.
    pub(super) frames: [AtomicU64; FRAMES],
    /// Where each frame is in its file (48 bits), and which of the images that is (from 1).
    pub(super) places: [AtomicU64; FRAMES],
    pub(super) images: [Image; IMAGES],
}

/// How much of a [`Record`] is there.
pub(super) mod stage {
    /// Nothing.
    pub(in crate::scoreboard) const FREE: u64 = 0;
    /// A handler is at its beginning.
    pub(in crate::scoreboard) const CLAIMED: u64 = 1;
    /// All but the frames.
    pub(in crate::scoreboard) const NOTED: u64 = 2;
    /// The frames as well.
    pub(in crate::scoreboard) const TRACED: u64 = 3;
    /// And the files that they are in.
    pub(in crate::scoreboard) const PLACED: u64 = 4;
}

/// A file that code was mapped from.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Image {
    pub(super) len: AtomicU64,
    pub(super) path: Text<64>,
}
