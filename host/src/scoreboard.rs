//! Shared memory in which each thread of a worker shows its work. The supervisor can read the memory at any time,
//! even after the worker died.
//!
//! A thread has a slot. It writes into the slot which app it enters, and for which request
//! ([`enter_request`]), or which app it loads or stops ([`enter`]). Signal handlers write where a thread
//! crashed (`record`). All writes are relaxed stores into a memfd, so that a request costs some fifty
//! instructions. The model is Apache's scoreboard; this one also has names.
//!
//! The supervisor makes the memory ([`Scoreboard::create`]). The worker maps it ([`Scoreboard::attach`]), and
//! its threads write to it from [`Scoreboard::serve`] on. In a server of one process the memory is
//! [anonymous](Scoreboard::anonymous).

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

use self::{
    layout::{Board, LAYOUT},
    memory::SharedMemory,
};

pub use self::{
    snapshot::{
        BoardSnapshot, CodeAddress, Crash, LoadedApp, Request, ThreadState, Work, WorkKind,
    },
    thread::{AppScope, WorkNote, enter, enter_again, enter_request},
};

/// The scoreboard of one worker.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
}

impl Scoreboard {
    /// Makes a scoreboard. Also returns the descriptor by which the worker maps it.
    ///
    /// # Errors
    ///
    /// When the system gives no memory or no descriptor.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = SharedMemory::shared()?;
        Ok((Self { memory }, file))
    }

    /// Maps the scoreboard that the supervisor has made.
    ///
    /// # Errors
    ///
    /// When the descriptor is not a memory of this size, or cannot be mapped.
    pub fn attach(file: &OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::of(file)?;
        Ok(Self { memory })
    }

    /// Makes a scoreboard for a process that is both supervisor and worker.
    ///
    /// # Errors
    ///
    /// When the system gives no memory.
    pub fn anonymous() -> io::Result<Self> {
        let memory = SharedMemory::private()?;
        Ok(Self { memory })
    }

    /// Makes the threads of this process write to this scoreboard from now on. Only the first call in a process
    /// has that effect.
    pub fn serve(self) -> &'static Self {
        // Leaked, because threads write to the memory until the process ends.
        let board: &'static Self = Box::leak(Box::new(self));
        let header = &board.board().header;
        header.layout.store(LAYOUT, Ordering::Relaxed);
        board.tick();
        let _ = SERVING.set(board);
        board
    }

    /// Stores the current time for the threads. A thread copies it when it enters an app, because reading the
    /// clock costs more. Times are as exact as the pause between two calls, which should be about a second.
    pub fn tick(&self) {
        let header = &self.board().header;
        header.tick.store(coarse_ms(), Ordering::Relaxed);
    }

    /// Returns the signal that makes a thread of the process write down its stack. None before the process has a
    /// handler for it.
    #[must_use]
    pub fn dump_signal(&self) -> Option<i32> {
        let signal = self.board().header.dump_signal.load(Ordering::Relaxed);
        i32::try_from(signal).ok().filter(|signal| *signal > 0)
    }

    /// Stores the signal that makes a thread write down its stack.
    pub(crate) fn set_dump_signal(&self, signal: i32) {
        let signal = u64::from(signal.unsigned_abs());
        let header = &self.board().header;
        header.dump_signal.store(signal, Ordering::Relaxed);
    }

    fn board(&self) -> &Board {
        self.memory.board()
    }
}

/// Returns the scoreboard that the threads of this process write to.
#[must_use]
pub fn serving() -> Option<&'static Scoreboard> {
    SERVING.get().copied()
}

/// Set by [`Scoreboard::serve`].
static SERVING: OnceLock<&'static Scoreboard> = OnceLock::new();

/// The number of one generation of an app in the scoreboard's table. A thread stores the number, because that costs
/// less than a name. The default stands for an app that is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label(u16);

/// Adds a generation of an app to the table, before the library in `copy` is opened. Returns the default label when
/// the process has no scoreboard, or the table is full.
#[must_use]
pub fn label(app: &str, generation: u64, copy: &Path) -> Label {
    let Some(board) = serving().map(Scoreboard::board) else {
        return Label::default();
    };
    let number = board.header.labels.fetch_add(1, Ordering::Relaxed);
    // A full table gives the default label. The count goes on, which does no harm.
    let Some(entry) = board.labels.get(number as usize) else {
        return Label::default();
    };
    entry.generation.store(generation, Ordering::Relaxed);
    let name = text::store(&entry.name, app.as_bytes()) as u64;
    let copy = text::store(&entry.copy, copy.as_os_str().as_bytes()) as u64;
    // Last, and with release: a reader that sees the lengths also sees the texts.
    entry.lengths.store(copy << 32 | name, Ordering::Release);
    Label((number + 1) as u16)
}

/// Returns the ms since the system started, exact to a few ms. That costs a fraction of the exact time
/// (clock_gettime(2)).
pub(crate) fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}
