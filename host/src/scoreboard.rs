//! Shared memory in which each thread of a worker shows its work. The supervisor can read the memory at any time,
//! even after the worker died.
//!
//! Each thread has a slot. When a thread enters an app for a request, the thread writes the app and the request to its
//! slot ([`enter_request`]). When a thread loads or stops an app, the thread writes only the app ([`enter`]). Signal
//! handlers write a record of a thread that crashed (`record`). Nearly all writes are relaxed stores into a memfd, so
//! that a request costs about fifty instructions. The model is Apache's scoreboard. This scoreboard also has the names
//! of apps and the paths of their libraries.
//!
//! The supervisor creates the memory ([`Scoreboard::create`]). The worker maps the memory ([`Scoreboard::attach`]), and
//! its threads write to the memory after [`Scoreboard::activate`]. If supervisor and worker are one process, the memory
//! is [anonymous](Scoreboard::anonymous).

mod layout;
mod memory;
pub(crate) mod record;
mod snapshot;
mod text;
mod thread;

use std::{
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::{OnceLock, atomic::Ordering},
};

use rustix::time::{ClockId, clock_gettime};

use self::{layout::Board, memory::SharedMemory};

pub use self::{
    snapshot::{
        BoardSnapshot, CodeAddress, LoadedApp, Request, ThreadReport, ThreadState, Work, WorkKind,
    },
    thread::{AppScope, SavedWork, enter, enter_again, enter_request},
};

/// The scoreboard of one worker.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
}

impl Scoreboard {
    /// Creates a scoreboard. Returns the scoreboard, and the descriptor that the worker passes to
    /// [`attach`](Self::attach).
    ///
    /// # Errors
    ///
    /// When the system provides no memory or no descriptor.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = SharedMemory::shared()?;
        Ok((Self { memory }, file))
    }

    /// Maps the scoreboard that the supervisor has created.
    ///
    /// # Errors
    ///
    /// When the file behind the descriptor is smaller than a scoreboard, or cannot be mapped.
    pub fn attach(file: &OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::map(file)?;
        Ok(Self { memory })
    }

    /// Creates a scoreboard for a process that is both supervisor and worker.
    ///
    /// # Errors
    ///
    /// When the system provides no memory.
    pub fn anonymous() -> io::Result<Self> {
        let memory = SharedMemory::private()?;
        Ok(Self { memory })
    }

    /// Makes the threads of this process write to this scoreboard from now on. Only the first call in a process
    /// has an effect.
    pub fn activate(self) -> &'static Self {
        // Leaked, because threads write to the memory until the process ends.
        let board: &'static Self = Box::leak(Box::new(self));
        // Sets the time before the first thread copies the time.
        board.tick();
        // Fails if the process has an active scoreboard already, which then stays active.
        let _ = ACTIVE.set(board);
        board
    }

    /// Stores the current time for the threads. A thread that enters an app copies the stored time, because reading
    /// the clock costs more. Times on the scoreboard are therefore only as exact as the pause between two calls of this
    /// function, which should be about a second.
    pub fn tick(&self) {
        let header = &self.board().header;
        header.clock_ms.store(coarse_ms(), Ordering::Relaxed);
    }

    /// Returns the signal whose handler writes the backtrace of a thread to the scoreboard. Returns `None` until the
    /// process has installed that handler.
    #[must_use]
    pub fn dump_signal(&self) -> Option<i32> {
        let signal = self.board().header.dump_signal.load(Ordering::Relaxed);
        i32::try_from(signal).ok().filter(|signal| *signal > 0)
    }

    /// Stores the signal whose handler writes the backtrace of a thread.
    pub(crate) fn set_dump_signal(&self, signal: i32) {
        let signal = u64::from(signal.unsigned_abs());
        let header = &self.board().header;
        header.dump_signal.store(signal, Ordering::Relaxed);
    }

    /// Returns the shared memory as tables.
    fn board(&self) -> &Board {
        self.memory.board()
    }
}

/// Returns the scoreboard that the threads of this process write to. Returns `None` before [`Scoreboard::activate`].
#[must_use]
pub fn active() -> Option<&'static Scoreboard> {
    ACTIVE.get().copied()
}

/// The scoreboard of this process, set by [`Scoreboard::activate`].
static ACTIVE: OnceLock<&'static Scoreboard> = OnceLock::new();

/// The number of one generation of an app in the scoreboard's table, from 1. A thread writes the number into its slot,
/// because a number costs less than a name. The default, 0, means an app that is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label(u16);

/// Adds a generation of an app to the table, and returns its label. `copy` is the private copy of the library. Must be
/// called before the library is opened, because the thread that opens the library shows the label. Returns the default
/// label when the process has no active scoreboard, or the table is full.
#[must_use]
pub fn add_label(app: &str, generation: u64, copy: &Path) -> Label {
    let Some(board) = active().map(Scoreboard::board) else {
        return Label::default();
    };
    // Each call gets another index, so that several threads can add entries at the same time without a lock.
    let index = board.header.label_count.fetch_add(1, Ordering::Relaxed);
    // If the table is full, the count still grows. That does no harm, because readers limit the count to the size of
    // the table.
    let Some(entry) = board.labels.get(index as usize) else {
        return Label::default();
    };
    entry.generation.store(generation, Ordering::Relaxed);
    let name_len = text::store(&entry.name, app.as_bytes()) as u64;
    let copy_len = text::store(&entry.copy, copy.as_os_str().as_bytes()) as u64;
    // The lengths are stored last, and with Release: a reader that loads the lengths (Acquire) also sees the texts and
    // the generation.
    entry
        .lengths
        .store(copy_len << 32 | name_len, Ordering::Release);
    Label((index + 1) as u16)
}

/// Returns the milliseconds of the coarse monotonic clock, which is exact to a few milliseconds. Reading the coarse
/// clock costs a fraction of reading the exact one (clock_gettime(2), `CLOCK_MONOTONIC_COARSE`).
pub(crate) fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}
