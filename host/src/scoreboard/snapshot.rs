//! Reads a scoreboard. The process that writes to it may be running, stuck or dead, or may have overwritten any bytes.
//! So every number is checked before use.

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
        Board, DUMPS, FRAMES, IMAGES, LABELS, SLOTS, Slot, ThreadRecord, Words, WorkWords, stage,
    },
    text,
};

/// The contents of a scoreboard at one moment.
#[derive(Clone, Debug, Default)]
pub struct BoardSnapshot {
    /// The threads that have entered an app at least once, and have not ended.
    pub threads: Vec<ThreadState>,
    /// The crashes, in the order in which they happened.
    pub crashes: Vec<Crash>,
    /// The thread that called `exit`, unless that was the main thread. The signal is 0.
    pub exit: Option<Crash>,
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
    /// The path of the private copy that was loaded. A long path is cut off.
    pub copy: PathBuf,
}

/// The state of a thread.
#[derive(Clone, Debug)]
pub struct ThreadState {
    /// The thread id of the system.
    pub thread: u32,
    /// The name of the thread when it first entered an app. It has up to 15 bytes.
    pub name: String,
    /// How often the thread has entered or left an app. A thread that is in an app and whose number stays the same makes
    /// no progress.
    pub changes: u64,
    /// The work of the thread in an app. None outside of apps.
    pub work: Option<Work>,
}

/// The work of a thread in an app.
#[derive(Clone, Debug)]
pub struct Work {
    /// The app. None when the process had no label for it.
    pub app: Option<LoadedApp>,
    /// The kind of work.
    pub kind: WorkKind,
    /// The request, if the work is for one.
    pub request: Option<Request>,
    /// How long the thread has been doing the work, until now or until it crashed. Exact to about a second.
    pub lasts: Duration,
}

/// The parts of a request that a scoreboard shows. Long texts are cut off.
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
    /// The thread takes the state from the app for a handover.
    HandOver,
    /// The thread notifies the app that the app drains.
    Drain,
    /// The thread stops the app, whose shutdown hooks run.
    Stop,
}

impl WorkKind {
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

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the work is a part of loading.
    #[must_use]
    pub fn is_load(self) -> bool {
        matches!(self, Self::Open | Self::Init)
    }
}

/// A record that a signal handler has written about its thread: at a crash, at an exit, or on request.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The signal. 0 for an exit.
    pub signal: i32,
    /// The cause of the signal (`si_code`, sigaction(2)), or the exit code.
    pub code: i32,
    /// The address that could not be accessed, if the signal is about one.
    pub address: u64,
    /// The instruction pointer.
    pub instruction: u64,
    /// The stack pointer.
    pub stack: u64,
    /// The thread id of the system.
    pub thread: u32,
    /// The name of the thread.
    pub name: String,
    /// The work of the thread in an app. None outside of apps, and for threads that an app has started.
    pub work: Option<Work>,
    /// The frames of the stack, the innermost first.
    pub frames: Vec<CodeAddress>,
}

/// The address of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeAddress {
    /// The address in the memory of the process.
    pub address: u64,
    /// The mapped file and the offset in that file, if they are known.
    pub place: Option<(PathBuf, u64)>,
}

impl Scoreboard {
    /// Returns the contents of the scoreboard at this moment.
    #[must_use]
    pub fn snapshot(&self) -> BoardSnapshot {
        let board = self.board();
        let now = coarse_ms();
        let reader = Reader { board, now };
        // Slots behind this number were never used.
        let slots = bounded(&board.header.slots, SLOTS);
        BoardSnapshot {
            threads: board.slots[..slots]
                .iter()
                .filter_map(|slot| reader.thread(slot))
                .collect(),
            crashes: reader.records(&board.crashes),
            exit: reader.record(&board.exit).map(|(_, exit)| exit),
            apps: reader.apps(),
        }
    }

    /// Frees the records of stack dumps.
    pub(crate) fn forget_dumps(&self) {
        let board = self.board();
        for record in &board.dumps[..bounded(&board.header.dumps, DUMPS)] {
            record.give_back();
        }
        board.header.dumps.store(0, Ordering::Relaxed);
    }

    /// Returns the stack dumps of the threads that were asked for them.
    #[must_use]
    pub fn dumps(&self) -> Vec<Crash> {
        let board = self.board();
        let now = coarse_ms();
        let begun = bounded(&board.header.dumps, board.dumps.len());
        Reader { board, now }.records(&board.dumps[..begun])
    }
}

/// Reads a board at the time `now`.
struct Reader<'a> {
    board: &'a Board,
    now: u64,
}

impl Reader<'_> {
    fn apps(&self) -> Vec<LoadedApp> {
        let labels = bounded(&self.board.header.labels, LABELS);
        (1..=labels)
            .filter_map(|label| self.app(label as u16))
            .collect()
    }

    /// Returns the generation with this label. None when its entry is not complete.
    fn app(&self, label: u16) -> Option<LoadedApp> {
        let label = self.board.labels.get(usize::from(label.checked_sub(1)?))?;
        let lengths = label.lengths.load(Ordering::Acquire);
        let (name, copy) = (lengths as u32 as usize, (lengths >> 32) as usize);
        if name == 0 {
            return None;
        }
        let copy = text::load(&text::words(&label.copy), copy);
        Some(LoadedApp {
            app: lossy(text::load(&text::words(&label.name), name)),
            generation: label.generation.load(Ordering::Relaxed),
            copy: OsString::from_vec(copy).into(),
        })
    }

    fn thread(&self, slot: &Slot) -> Option<ThreadState> {
        let thread = slot.thread.load(Ordering::Acquire);
        if thread == 0 {
            return None;
        }
        let words = consistent(&slot.work);
        Some(ThreadState {
            thread: thread as u32,
            name: name(&text::words(&slot.name)),
            changes: words.state.count(),
            work: self.work(&words, self.now),
        })
    }

    fn work(&self, words: &Words, now: u64) -> Option<Work> {
        let kind = WorkKind::from_number(words.state.kind())?;
        let len = |shift| usize::from((words.lengths >> shift) as u16);
        let request = (words.lengths != 0).then(|| Request {
            id: lossy(text::load(&words.id, len(0))),
            method: lossy(text::load(&words.method, len(16))),
            path: lossy(text::load(&words.path, len(32))),
        });
        Some(Work {
            app: self.app(words.state.label()),
            kind,
            request,
            lasts: Duration::from_millis(now.saturating_sub(words.since)),
        })
    }

    fn records(&self, records: &[ThreadRecord]) -> Vec<Crash> {
        let mut crashes: Vec<_> = records
            .iter()
            .filter_map(|record| self.record(record))
            .collect();
        crashes.sort_by_key(|(at, _)| *at);
        crashes.into_iter().map(|(_, crash)| crash).collect()
    }

    /// Returns a record and the time when it was written. None when it is free, or not complete.
    fn record(&self, record: &ThreadRecord) -> Option<(u64, Crash)> {
        let reached = record.stage.load(Ordering::Acquire);
        // A record that a handler has begun and not finished has words of an earlier use.
        if !(stage::NOTED..=stage::PLACED).contains(&reached) {
            return None;
        }
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let at = load(&record.at);
        let crash = Crash {
            signal: load(&record.signal) as i32,
            code: load(&record.code) as i32,
            address: load(&record.address),
            instruction: load(&record.instruction),
            stack: load(&record.stack),
            thread: load(&record.thread) as u32,
            name: name(&text::words(&record.name)),
            work: self.work(&record.work.read(), at),
            frames: frames(record, reached),
        };
        Some((at, crash))
    }
}

/// Reads the words of a slot at a moment when its thread is not writing them. If the thread died while it was writing,
/// there is no such moment; then the words are returned as they are.
fn consistent(work: &WorkWords) -> Words {
    for _ in 0..100 {
        let before = work.state.load(Ordering::Acquire);
        let words = work.read();
        // Orders the words above before the second look at the state below. With the fence of the writer,
        // words of two different states are noticed.
        fence(Ordering::Acquire);
        if !words.state.is_writing() && work.state.load(Ordering::Relaxed) == before {
            return words;
        }
        hint::spin_loop();
    }
    work.read()
}

/// Returns the frames of a record, as far as they are written.
fn frames(record: &ThreadRecord, reached: u64) -> Vec<CodeAddress> {
    let address = record.instruction.load(Ordering::Relaxed);
    if reached < stage::TRACED {
        let place = None;
        return vec![CodeAddress { address, place }];
    }
    let images = bounded(&record.image_count, IMAGES);
    let images: Vec<PathBuf> = record.images[..images]
        .iter()
        .map(|image| {
            let len = image.len.load(Ordering::Relaxed) as usize;
            OsString::from_vec(text::load(&text::words(&image.path), len)).into()
        })
        .collect();
    let count = bounded(&record.frame_count, FRAMES);
    let frames = record.frames[..count].iter().zip(&record.places);
    let frame = |(address, place): (&AtomicU64, &AtomicU64)| {
        let place = place.load(Ordering::Relaxed);
        let image = ((place >> 48) as usize).checked_sub(1);
        let image = image.and_then(|image| images.get(image));
        CodeAddress {
            address: address.load(Ordering::Relaxed),
            place: image.map(|image| (image.clone(), place & (u64::MAX >> 16))),
        }
    };
    frames.map(frame).collect()
}

/// Reads a count, which is at most `limit` whatever the memory has.
fn bounded(count: &AtomicU64, limit: usize) -> usize {
    let count = count.load(Ordering::Relaxed);
    usize::try_from(count).unwrap_or(limit).min(limit)
}

/// Returns the name of a thread, which ends at the first zero byte (prctl(2)).
fn name(words: &[u64; 2]) -> String {
    let mut name = text::load(words, 16);
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    lossy(name)
}

/// Converts bytes to text. Invalid bytes and control characters are replaced, because the process may have overwritten
/// the text, and the text is shown on terminals.
fn lossy(text: Vec<u8>) -> String {
    let text = String::from_utf8_lossy(&text);
    text.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}
