//! What a scoreboard says at one moment, as values. The process that writes to the scoreboard may be running, hung, dead, or out of its
//! mind: every number is checked.

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
    layout::{Board, DUMPS, FRAMES, IMAGES, LABELS, Record, SLOTS, Slot, Words, WorkWords, stage},
    text,
};

/// What the threads of a process do, or did when it died.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The threads that were in an app once, and have not ended.
    pub threads: Vec<ThreadState>,
    /// What the handlers of fatal signals wrote, the first first.
    pub crashes: Vec<Crash>,
    /// The thread that called `exit`, when it was not the main one; its signal is 0.
    pub exit: Option<Crash>,
    /// The loads that the process knows.
    pub apps: Vec<LoadedApp>,
}

/// One load of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedApp {
    /// The app's name.
    pub app: String,
    /// Which load of the app.
    pub generation: u64,
    /// The private copy that it was loaded from, as far as there was room for its path.
    pub copy: PathBuf,
}

/// What a thread does.
#[derive(Clone, Debug)]
pub struct ThreadState {
    /// The system's number for it.
    pub thread: u32,
    /// Its name, of up to 15 bytes, when it first was in an app.
    pub name: String,
    /// How often it entered or left an app: a thread that is in one, and whose number stays, makes no progress.
    pub changes: u64,
    /// What it does in an app; none outside of apps.
    pub work: Option<Work>,
}

/// What a thread does in an app.
#[derive(Clone, Debug)]
pub struct Work {
    /// Which app, if the process knew.
    pub app: Option<LoadedApp>,
    /// What for.
    pub doing: Doing,
    /// The request, where there is one.
    pub request: Option<Request>,
    /// How long the thread has been at it, to a second or so, until now or until it crashed.
    pub lasts: Duration,
}

/// A request, as much of it as is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The beginning of what identifies it in the log.
    pub id: String,
    /// The beginning of its method.
    pub method: String,
    /// The beginning of its path.
    pub path: String,
}

/// What a thread is in an app for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// It calls the app with a request, or polls it for the response.
    Request = 1,
    /// It polls the body of a response.
    Body,
    /// It drops what the app made for a request.
    Drop,
    /// It opens the library: static constructors run.
    Open,
    /// It starts the app.
    Init,
    /// The app hands over its state.
    HandOver,
    /// The app hears that it is to finish what it has.
    Drain,
    /// It stops the app: shutdown hooks run.
    Stop,
}

impl Doing {
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
        Self::ALL.into_iter().find(|doing| *doing as u8 == number)
    }

    /// Whether it is a part of loading.
    #[must_use]
    pub fn is_load(self) -> bool {
        matches!(self, Self::Open | Self::Init)
    }
}

/// What a thread wrote down of itself, as it crashed or was asked.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The signal; of an exit, 0.
    pub signal: i32,
    /// Why the signal came (`si_code`, sigaction(2)); of an exit, its code.
    pub code: i32,
    /// The address that could not be had, where the signal is about one.
    pub address: u64,
    /// The instruction that the thread was at.
    pub instruction: u64,
    /// Its stack pointer.
    pub stack: u64,
    /// The system's number for the thread.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// What it did in an app. None outside of apps, and for the threads of an app.
    pub work: Option<Work>,
    /// Where it was, the innermost first.
    pub frames: Vec<Address>,
}

/// Where code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// In the memory of the process.
    pub address: u64,
    /// The file that it was mapped from and where in it, when that is known.
    pub place: Option<(PathBuf, u64)>,
}

impl Scoreboard {
    /// What the board says now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let board = self.board();
        let now = coarse_ms();
        let reader = Reader { board, now };
        let slots = bounded(&board.header.slots, SLOTS);
        Snapshot {
            threads: board.slots[..slots]
                .iter()
                .filter_map(|slot| reader.thread(slot))
                .collect(),
            crashes: reader.records(&board.crashes),
            exit: reader.record(&board.exit).map(|(_, exit)| exit),
            apps: reader.apps(),
        }
    }

    /// Makes room for where threads are now.
    pub(crate) fn forget_dumps(&self) {
        let board = self.board();
        for record in &board.dumps[..bounded(&board.header.dumps, DUMPS)] {
            record.give_back();
        }
        board.header.dumps.store(0, Ordering::Relaxed);
    }

    /// Where the threads were that were asked.
    #[must_use]
    pub fn dumps(&self) -> Vec<Crash> {
        let board = self.board();
        let now = coarse_ms();
        let begun = bounded(&board.header.dumps, board.dumps.len());
        Reader { board, now }.records(&board.dumps[..begun])
    }
}

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
        let doing = Doing::from_number(words.state.doing())?;
        let len = |shift| usize::from((words.lengths >> shift) as u16);
        let request = (words.lengths != 0).then(|| Request {
            id: lossy(text::load(&words.id, len(0))),
            method: lossy(text::load(&words.method, len(16))),
            path: lossy(text::load(&words.path, len(32))),
        });
        Some(Work {
            app: self.app(words.state.label()),
            doing,
            request,
            lasts: Duration::from_millis(now.saturating_sub(words.since)),
        })
    }

    fn records(&self, records: &[Record]) -> Vec<Crash> {
        let mut crashes: Vec<_> = records
            .iter()
            .filter_map(|record| self.record(record))
            .collect();
        crashes.sort_by_key(|(at, _)| *at);
        crashes.into_iter().map(|(_, crash)| crash).collect()
    }

    /// A record, and when it was written.
    fn record(&self, record: &Record) -> Option<(u64, Crash)> {
        let reached = record.stage.load(Ordering::Acquire);
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

/// The words of a slot, at a moment when its thread was not writing them. A thread that died while it wrote did so for
/// good: then what is there.
fn consistent(work: &WorkWords) -> Words {
    for _ in 0..100 {
        let before = work.state.load(Ordering::Acquire);
        let words = work.read();
        fence(Ordering::Acquire);
        if !words.state.is_writing() && work.state.load(Ordering::Relaxed) == before {
            return words;
        }
        hint::spin_loop();
    }
    work.read()
}

fn frames(record: &Record, reached: u64) -> Vec<Address> {
    let address = record.instruction.load(Ordering::Relaxed);
    if reached < stage::TRACED {
        let place = None;
        return vec![Address { address, place }];
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
        Address {
            address: address.load(Ordering::Relaxed),
            place: image.map(|image| (image.clone(), place & (u64::MAX >> 16))),
        }
    };
    frames.map(frame).collect()
}

fn bounded(count: &AtomicU64, limit: usize) -> usize {
    let count = count.load(Ordering::Relaxed);
    usize::try_from(count).unwrap_or(limit).min(limit)
}

/// A thread's name, which ends at the first zero (prctl(2)).
fn name(words: &[u64; 2]) -> String {
    let mut name = text::load(words, 16);
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    lossy(name)
}

/// Names and paths of a process that may be out of its mind, without characters that control a terminal.
fn lossy(text: Vec<u8>) -> String {
    let text = String::from_utf8_lossy(&text);
    text.chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}
