//! The threads that open libraries and start apps.
//!
//! They live as long as the process: an allocator in a library may take the thread that opened it
//! for the program's main thread, and crash when that thread ends (mimalloc 3 does). A thread that
//! is done takes up the next load; one that hangs in a plugin's code is left behind.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use plugin_api::host::{App, HandoverError, Plugin};
use rustix::thread::set_name;
use tokio::{sync::oneshot, time};

use super::{LoadError, LoadProgress};
use crate::{log::origin, worker::crash::stack};

/// Runs what may block on a loader thread that is named `name` meanwhile: the author's code may
/// start threads, and these get the name. Work that is not done within `limit` is left behind.
pub(super) async fn run<T: LateResult + Send + 'static>(
    name: String,
    progress: &Arc<LoadProgress>,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    let (sender, done) = oneshot::channel();
    let job = LoaderJob {
        name,
        work: Box::new(move || {
            // Nobody waits any more when it took too long.
            if let Err(late) = sender.send(work()) {
                late.discard();
            }
        }),
    };
    start(job).map_err(LoadError::Thread)?;
    // What can be ended is ended by the plugin's runtime, so that nothing of it is left behind.
    let done = time::timeout(limit.saturating_add(GRACE), done)
        .await
        .map_err(|_| LoadError::Hangs {
            step: progress.step(),
            limit,
        })?;
    done.map_err(|_| LoadError::Thread(io::Error::other("it panicked")))
}

struct LoaderJob {
    name: String,
    work: Box<dyn FnOnce() + Send>,
}

/// The threads that have nothing to do.
static IDLE: Mutex<Vec<mpsc::Sender<LoaderJob>>> = Mutex::new(Vec::new());

/// Gives the job to an idle thread, or to a new one.
fn start(job: LoaderJob) -> io::Result<()> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let job = match idle {
        None => job,
        Some(thread) => match thread.send(job) {
            Ok(()) => return Ok(()),
            // The thread ended with a panic of an earlier job's.
            Err(mpsc::SendError(job)) => job,
        },
    };
    let (sender, jobs) = mpsc::channel();
    // The receiver goes to the thread, so that sending to it cannot fail.
    let _ = sender.send(job);
    thread::Builder::new()
        .name(LOADER.to_owned())
        .spawn(move || serve(&sender, &jobs))?;
    Ok(())
}

fn serve(own: &mpsc::Sender<LoaderJob>, jobs: &mpsc::Receiver<LoaderJob>) {
    stack::alternate();
    while let Ok(LoaderJob { name, work }) = jobs.recv() {
        rename(&name);
        work();
        rename(LOADER);
        IDLE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(own.clone());
    }
}

/// Names the thread, for the system and for the log.
fn rename(name: &str) {
    origin::name_thread(name);
    if let Ok(name) = std::ffi::CString::new(name) {
        // A thread without its name is no harm.
        let _ = set_name(&name);
    }
}

/// A result that comes after nobody waits for it.
pub(super) trait LateResult {
    fn discard(self);
}

impl LateResult for Result<&'static App, LoadError> {
    fn discard(self) {
        if let Ok(app) = self {
            app.stop(Duration::ZERO);
        }
    }
}

impl LateResult for Result<Plugin, LoadError> {
    fn discard(self) {}
}

impl LateResult for Result<Bytes, HandoverError> {
    fn discard(self) {}
}

/// What a loader thread is named while it has nothing to do.
const LOADER: &str = "host-loader";

/// How much longer than its time a start may take to notice that the time is over.
const GRACE: Duration = Duration::from_millis(500);
