//! What each thread of a worker does, in memory that the supervisor reads at any time, also when the worker is dead.
//!
//! A thread has a slot, in which it notes which app it enters, for which request ([`enter_request`]), or what it loads or
//! stops ([`enter`]); and signal handlers write down where it crashed. It is Apache's scoreboard with names in it. All
//! of it is relaxed stores into a memfd: a request costs some fifty instructions.
//!
//! The supervisor makes the memory ([`Scoreboard::create`]), the worker attaches it and [serves](Scoreboard::serve) from
//! then on; where both are one process it is [anonymous](Scoreboard::anonymous).

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
    memory::Memory,
};

pub use self::{
    snapshot::{Address, Crash, Doing, LoadedApp, Request, Snapshot, ThreadState, Work},
    thread::{Entered, Note, enter, enter_again, enter_request},
};

/// The scoreboard of one worker.
#[derive(Debug)]
pub struct Scoreboard {
    memory: Memory,
}

impl Scoreboard {
    /// A new scoreboard, and the descriptor by which the worker has it too.
    ///
    /// # Errors
    ///
    /// When the system gives no memory or no descriptor.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Memory::shared()?;
        Ok((Self { memory }, file))
    }

    /// The scoreboard that the supervisor has made.
    ///
    /// # Errors
    ///
    /// When the descriptor is no memory of this size, or cannot be mapped.
    pub fn attach(file: &OwnedFd) -> io::Result<Self> {
        let memory = Memory::of(file)?;
        Ok(Self { memory })
    }

    /// A scoreboard for one process that is supervisor and worker.
    ///
    /// # Errors
    ///
    /// When the system gives no memory.
    pub fn anonymous() -> io::Result<Self> {
        let memory = Memory::private()?;
        Ok(Self { memory })
    }

    /// From now on the threads of this process write here. The first scoreboard of a process stays; a second one is only
    /// returned.
    pub fn serve(self) -> &'static Self {
        let board: &'static Self = Box::leak(Box::new(self));
        let header = &board.board().header;
        header.layout.store(LAYOUT, Ordering::Relaxed);
        board.tick();
        let _ = SERVING.set(board);
        board
    }

    /// Tells the threads what time it is: since when a thread is in an app is known to as much as lies between two calls,
    /// which should be about a second.
    pub fn tick(&self) {
        let header = &self.board().header;
        header.tick.store(coarse_ms(), Ordering::Relaxed);
    }

    /// Which signal makes a thread of the process write down where it is; none before it can.
    #[must_use]
    pub fn dump_signal(&self) -> Option<i32> {
        let signal = self.board().header.dump_signal.load(Ordering::Relaxed);
        i32::try_from(signal).ok().filter(|signal| *signal > 0)
    }

    /// The threads write down where they are when they get this signal.
    pub(crate) fn set_dump_signal(&self, signal: i32) {
        let signal = u64::from(signal.unsigned_abs());
        let header = &self.board().header;
        header.dump_signal.store(signal, Ordering::Relaxed);
    }

    fn board(&self) -> &Board {
        self.memory.board()
    }
}

/// The scoreboard of this process.
#[must_use]
pub fn serving() -> Option<&'static Scoreboard> {
    SERVING.get().copied()
}

static SERVING: OnceLock<&'static Scoreboard> = OnceLock::new();

/// Which load of which app a thread works for: what a thread notes instead of names. Stands for a number in a table of the
/// process; the default is for an app that is in no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label(u16);

/// Gives a load of an app its label, before the library in `copy` is opened. Where the process has no scoreboard, or one that
/// is full, the label says nothing.
#[must_use]
pub fn label(app: &str, generation: u64, copy: &Path) -> Label {
    let Some(board) = serving().map(Scoreboard::board) else {
        return Label::default();
    };
    let number = board.header.labels.fetch_add(1, Ordering::Relaxed);
    let Some(entry) = board.labels.get(number as usize) else {
        return Label::default();
    };
    entry.generation.store(generation, Ordering::Relaxed);
    let name = text::store(&entry.name, app.as_bytes()) as u64;
    let copy = text::store(&entry.copy, copy.as_os_str().as_bytes()) as u64;
    entry.lengths.store(copy << 32 | name, Ordering::Release);
    Label((number + 1) as u16)
}

/// The time in ms since the system started, to a few of them, for a fraction of what it costs to have it exactly
/// (clock_gettime(2)).
pub(crate) fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}
