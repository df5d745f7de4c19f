//! The threads that open libraries and start apps.
//!
//! Loader threads live as long as the process, because an allocator in a library may take the thread that opened
//! it for the main thread, and crash when that thread ends (mimalloc 3 does). An idle thread takes the next
//! load. A thread that hangs in a plugin's code is abandoned.

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

/// Runs blocking work on a loader thread, which is named `name` meanwhile: threads that the author's code starts
/// inherit the name. Work that takes longer than `limit` is abandoned, and its late result discarded.
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
            // The receiver is gone if the work took too long.
            if let Err(late) = sender.send(work()) {
                late.discard();
            }
        }),
    };
    start(job).map_err(LoadError::Thread)?;
    // The plugin's runtime ends an async start at `limit` by itself and cleans up, so it gets a grace
    // period.
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

/// The idle loader threads.
static IDLE: Mutex<Vec<mpsc::Sender<LoaderJob>>> = Mutex::new(Vec::new());

/// Gives the job to an idle thread, or to a new one.
fn start(job: LoaderJob) -> io::Result<()> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let job = match idle {
        None => job,
        Some(thread) => match thread.send(job) {
            Ok(()) => return Ok(()),
            // The thread ended because an earlier job panicked.
            Err(mpsc::SendError(job)) => job,
        },
    };
    let (sender, jobs) = mpsc::channel();
    // Sending cannot fail, because the receiver is in this function.
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

/// Names the current thread, for the kernel and for the log.
fn rename(name: &str) {
    origin::name_thread(name);
    if let Ok(name) = std::ffi::CString::new(name) {
        // A thread without a name does no harm.
        let _ = set_name(&name);
    }
}

/// A result that may come too late to be used.
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

/// The name of an idle loader thread.
const LOADER: &str = "host-loader";

/// The grace period for a start to end itself at its time limit.
const GRACE: Duration = Duration::from_millis(500);
