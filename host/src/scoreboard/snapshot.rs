//! Reads a scoreboard. The process that writes to the scoreboard may be running, stuck or dead, or may have overwritten
//! any bytes. Therefore every number is checked before use.

use std::{
    ffi::OsString,
    hint,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering, fence},
    time::Duration,
};

use super::{
    Scoreboard, coarse_ms,
    layout::{
        AtomicWork, Board, MAX_DUMPS, MAX_FILES, MAX_FRAMES, MAX_LABELS, MAX_SLOTS, Slot,
        ThreadRecord, WorkCopy, stage,
    },
    text,
};

/// The contents of a scoreboard at one moment.
#[derive(Clone, Debug, Default)]
pub struct BoardSnapshot {
    /// The threads that have entered an app at least once and have not ended. Also the thread that called `exit` inside
    /// an app.
    pub threads: Vec<ThreadState>,
    /// The crashes, in the order in which they happened.
    pub crashes: Vec<ThreadReport>,
    /// The thread that called `exit`. `None` if no thread called `exit`, or if the main thread called `exit` outside of
    /// apps.
    pub exit: Option<ThreadReport>,
    /// The generations that the process has loaded.
    pub apps: Vec<LoadedApp>,
}

/// One generation of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedApp {
    /// The app's name.
    pub app: String,
    /// The number of the generation.
    pub generation: u64,
    /// The path of the private copy of the library. A long path is truncated.
    pub copy: PathBuf,
}

/// The state of a thread.
#[derive(Clone, Debug)]
pub struct ThreadState {
    /// The id of the thread in the kernel.
    pub thread: u32,
    /// The name of the thread at its first entry into an app: up to 15 bytes.
    pub name: String,
    /// A number that increases whenever the thread enters or leaves an app. If the thread is in an app and the number
    /// stays the same, the thread makes no progress.
    pub changes: u64,
    /// The work of the thread in an app. `None` outside of apps.
    pub work: Option<Work>,
}

/// The work of a thread in an app.
#[derive(Clone, Debug)]
pub struct Work {
    /// The generation of the app. `None` if the app has no label, because the table of labels is full.
    pub app: Option<LoadedApp>,
    /// The kind of work.
    pub kind: WorkKind,
    /// The request. `None` if the work belongs to no request.
    pub request: Option<Request>,
    /// How long the thread has been doing the work, until now or until the crash. Exact to about a second.
    pub duration: Duration,
}

/// The parts of a request that a scoreboard shows. Long texts are truncated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The id of the request in the log.
    pub id: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
}

/// The kind of work that a thread does in an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkKind {
    /// The thread calls the app with a request, or polls the app for the response.
    Request = 1,
    /// The thread polls the body of a response.
    Body,
    /// The thread drops a future or a body of the app.
    Drop,
    /// The thread opens the library, whose static constructors run.
    Open,
    /// The thread runs the app's start function.
    Init,
    /// The thread calls the handover hook of the app, which returns the state of the app.
    HandOver,
    /// The thread notifies the app that the drain begins.
    Drain,
    /// The thread stops the app, whose shutdown hooks run.
    Stop,
}

impl WorkKind {
    /// All kinds. [`from_number`](Self::from_number) searches this list.
    const ALL: [Self; 8] = [
        Self::Request,
        Self::Body,
        Self::Drop,
        Self::Open,
        Self::Init,
        Self::HandOver,
        Self::Drain,
        Self::Stop,
    ];

    /// Returns the kind with this number in a [`SlotState`](super::layout::SlotState). Returns `None` for 0, which
    /// means no work, and for a number that is no kind.
    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Returns whether the work is a part of loading a library.
    #[must_use]
    pub fn is_load(self) -> bool {
        matches!(self, Self::Open | Self::Init)
    }
}

/// A copy of the record that a signal handler has written about its thread: after a crash, at a call of `exit`, or for
/// a requested backtrace.
#[derive(Clone, Debug)]
pub struct ThreadReport {
    /// The number of the signal. 0 for a call of `exit`.
    pub signal: i32,
    /// The cause of the signal (`si_code`, sigaction(2)), or the exit code.
    pub code: i32,
    /// The address that could not be accessed. 0 if the signal is not about an address.
    pub address: u64,
    /// The instruction pointer. 0 if unknown.
    pub instruction: u64,
    /// The stack pointer. 0 if unknown.
    pub stack: u64,
    /// The id of the thread in the kernel.
    pub thread: u32,
    /// The name of the thread.
    pub name: String,
    /// The work of the thread in an app. `None` outside of apps, and for threads that an app has started.
    pub work: Option<Work>,
    /// The frames of the stack, the innermost first.
    pub frames: Vec<CodeAddress>,
}

/// The address of an instruction in a backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeAddress {
    /// The address in the memory of the process.
    pub address: u64,
    /// The path of the mapped file, and the offset in that file. `None` if unknown.
    pub location: Option<(PathBuf, u64)>,
}

impl Scoreboard {
    /// Returns the contents of the scoreboard at this moment.
    #[must_use]
    pub fn snapshot(&self) -> BoardSnapshot {
        let board = self.board();
        let now = coarse_ms();
        let reader = Reader { board, now };
        let slots = read_count(&board.header.slot_count, MAX_SLOTS);
        BoardSnapshot {
            threads: board.slots[..slots]
                .iter()
                .filter_map(|slot| reader.thread(slot))
                .collect(),
            crashes: reader.records(&board.crashes),
            exit: reader.record(&board.exit).map(|(_, report)| report),
            apps: reader.apps(),
        }
    }

    /// Frees the records of requested backtraces, so that the next request can use them.
    pub(crate) fn clear_dumps(&self) {
        let board = self.board();
        for record in &board.dumps[..read_count(&board.header.dump_count, MAX_DUMPS)] {
            record.release();
        }
        board.header.dump_count.store(0, Ordering::Relaxed);
    }

    /// Returns the requested backtraces that threads have written so far.
    #[must_use]
    pub fn dumps(&self) -> Vec<ThreadReport> {
        let board = self.board();
        let now = coarse_ms();
        let claimed = read_count(&board.header.dump_count, board.dumps.len());
        Reader { board, now }.records(&board.dumps[..claimed])
    }
}

/// Reads a board.
struct Reader<'a> {
    board: &'a Board,
    /// The time of the reading: the coarse monotonic clock in milliseconds.
    now: u64,
}

impl Reader<'_> {
    /// Returns all generations in the table.
    fn apps(&self) -> Vec<LoadedApp> {
        let labels = read_count(&self.board.header.label_count, MAX_LABELS);
        (1..=labels)
            .filter_map(|label| self.app(label as u16))
            .collect()
    }

    /// Returns the generation with this label. Returns `None` if the label is 0 or not in the table, or if the entry is
    /// not complete.
    fn app(&self, label: u16) -> Option<LoadedApp> {
        let entry = self.board.labels.get(usize::from(label.checked_sub(1)?))?;
        // Acquire, and Release in `add_label`: if the lengths are set, the texts are complete.
        let lengths = entry.lengths.load(Ordering::Acquire);
        let (name_len, copy_len) = (lengths as u32 as usize, (lengths >> 32) as usize);
        if name_len == 0 {
            return None;
        }
        let copy = text::decode(&text::read_words(&entry.copy), copy_len);
        Some(LoadedApp {
            app: sanitize(text::decode(&text::read_words(&entry.name), name_len)),
            generation: entry.generation.load(Ordering::Relaxed),
            copy: OsString::from_vec(copy).into(),
        })
    }

    /// Returns the state of the thread that owns a slot. Returns `None` if the slot is free.
    fn thread(&self, slot: &Slot) -> Option<ThreadState> {
        // The slot of a thread that has ended is free, and its old words have no meaning.
        let thread = slot.thread.load(Ordering::Acquire);
        if thread == 0 {
            return None;
        }
        let work = read_consistent(&slot.work);
        Some(ThreadState {
            thread: thread as u32,
            name: thread_name(&text::read_words(&slot.name)),
            changes: work.state.count(),
            work: self.work(&work, self.now),
        })
    }

    /// Decodes a copy of a thread's work. `end` is the time until which the duration of the work counts. Returns `None`
    /// if the thread was outside of apps.
    fn work(&self, copy: &WorkCopy, end: u64) -> Option<Work> {
        let kind = WorkKind::from_number(copy.state.kind())?;
        let len = |shift| usize::from((copy.lengths >> shift) as u16);
        let request = (copy.lengths != 0).then(|| Request {
            id: sanitize(text::decode(&copy.id, len(0))),
            method: sanitize(text::decode(&copy.method, len(16))),
            path: sanitize(text::decode(&copy.path, len(32))),
        });
        Some(Work {
            app: self.app(copy.state.label()),
            kind,
            request,
            duration: Duration::from_millis(end.saturating_sub(copy.since_ms)),
        })
    }

    /// Returns the records that are written, ordered by the time of the writing.
    fn records(&self, records: &[ThreadRecord]) -> Vec<ThreadReport> {
        let mut reports: Vec<_> = records
            .iter()
            .filter_map(|record| self.record(record))
            .collect();
        // Handlers claim records by their position in the table, not by time.
        reports.sort_by_key(|(time, _)| *time);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// Returns the time when a record was written, and its contents. Returns `None` if the record is free, or a handler
    /// has not finished the first part.
    fn record(&self, record: &ThreadRecord) -> Option<(u64, ThreadReport)> {
        // Acquire, and Release in `ThreadRecord`: all words of the reached stage are visible.
        let reached = record.stage.load(Ordering::Acquire);
        // At an earlier stage the record may contain facts of an earlier use. A later number is no stage.
        if !(stage::FACTS_WRITTEN..=stage::COMPLETE).contains(&reached) {
            return None;
        }
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let time = load(&record.time_ms);
        let report = ThreadReport {
            signal: load(&record.signal) as i32,
            code: load(&record.code) as i32,
            address: load(&record.address),
            instruction: load(&record.instruction),
            stack: load(&record.stack),
            thread: load(&record.thread) as u32,
            name: thread_name(&text::read_words(&record.name)),
            work: self.work(&record.work.read(), time),
            frames: frames(record, reached),
        };
        Some((time, report))
    }
}

/// Reads the words of a slot, and reads again if the thread has changed the words meanwhile. After [`MAX_ATTEMPTS`],
/// returns the words as they are, because the thread may have died while it was writing.
fn read_consistent(work: &AtomicWork) -> WorkCopy {
    for _ in 0..MAX_ATTEMPTS {
        // Acquire, and Release in `ThreadSlot::end`: the words below are at least as new as this state.
        let before = work.state.load(Ordering::Acquire);
        let copy = work.read();
        // The fence orders the loads of the words above before the second load of the state below. This fence pairs
        // with the fence of the writer: if a word above is newer than the first state, the second state is newer, too.
        fence(Ordering::Acquire);
        if !copy.state.is_writing() && work.state.load(Ordering::Relaxed) == before {
            return copy;
        }
        hint::spin_loop();
    }
    work.read()
}

/// Returns the frames of a record that has reached the stage `reached`. If the frames are not written yet, returns only
/// the instruction pointer.
fn frames(record: &ThreadRecord, reached: u64) -> Vec<CodeAddress> {
    let address = record.instruction.load(Ordering::Relaxed);
    if reached < stage::FRAMES_WRITTEN {
        let location = None;
        return vec![CodeAddress { address, location }];
    }
    let file_count = read_count(&record.file_count, MAX_FILES);
    let files: Vec<PathBuf> = record.files[..file_count]
        .iter()
        .map(|file| {
            let len = file.len.load(Ordering::Relaxed) as usize;
            OsString::from_vec(text::decode(&text::read_words(&file.path), len)).into()
        })
        .collect();
    let count = read_count(&record.frame_count, MAX_FRAMES);
    let frames = record.frames[..count].iter().zip(&record.locations);
    let frame = |(address, location): (&AtomicU64, &AtomicU64)| {
        let location = location.load(Ordering::Relaxed);
        // The number of the file counts from 1, and 0 means an unknown file.
        let file_index = ((location >> 48) as usize).checked_sub(1);
        let file = file_index.and_then(|index| files.get(index));
        CodeAddress {
            address: address.load(Ordering::Relaxed),
            location: file.map(|file| (file.clone(), location & (u64::MAX >> 16))),
        }
    };
    frames.map(frame).collect()
}

/// Reads a count. Returns at most `limit`, because the shared memory may contain any number.
fn read_count(count: &AtomicU64, limit: usize) -> usize {
    let count = count.load(Ordering::Relaxed);
    usize::try_from(count).unwrap_or(limit).min(limit)
}

/// Decodes the name of a thread. The name ends at the first zero byte (prctl(2)).
fn thread_name(words: &[u64; 2]) -> String {
    let mut name = text::decode(words, 16);
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    sanitize(name)
}

/// Converts bytes to text. Replaces invalid UTF-8 and control characters, because the process may have overwritten the
/// text, and the text is shown on terminals.
fn sanitize(text: Vec<u8>) -> String {
    let text = String::from_utf8_lossy(&text);
    text.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// The number of attempts to read a slot while its thread is not writing.
const MAX_ATTEMPTS: usize = 100;
