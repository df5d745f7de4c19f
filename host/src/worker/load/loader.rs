//! Loader threads, which open libraries and start apps.
//!
//! A loader thread runs until the process exits. The reason is that an allocator in a library may treat the thread that
//! opened the library as the main thread, and crash when that thread ends (mimalloc 3 does). An idle thread runs the
//! next load. A thread that hangs in a plugin's code is abandoned.

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

/// Runs blocking work on a loader thread and returns the result. The thread has the name `name` during the work,
/// because threads that the author's code starts inherit the name.
///
/// Fails if no thread can be started, if the work panics, or if the work takes longer than `limit`. Work that takes
/// longer is abandoned, and a late result is discarded.
pub(super) async fn run<T: LateResult + Send + 'static>(
    name: String,
    progress: &Arc<LoadProgress>,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    let (sender, result) = oneshot::channel();
    let job = LoaderJob {
        name,
        work: Box::new(move || {
            // Sending fails if the receiver was dropped because the work took too long.
            if let Err(late_result) = sender.send(work()) {
                late_result.discard();
            }
        }),
    };
    dispatch(job).map_err(LoadError::Thread)?;
    // The grace period lets the plugin's runtime end an async start at `limit` by itself and clean up.
    let result = time::timeout(limit.saturating_add(GRACE), result)
        .await
        .map_err(|_| LoadError::Hangs {
            step: progress.step(),
            limit,
        })?;
    // The sender is dropped without a result only if the work panicked.
    result.map_err(|_| LoadError::Thread(io::Error::other("it panicked")))
}

/// Work for a loader thread.
struct LoaderJob {
    /// The name of the thread during the work.
    name: String,
    work: Box<dyn FnOnce() + Send>,
}

/// The idle loader threads, as senders of jobs to them.
static IDLE_THREADS: Mutex<Vec<mpsc::Sender<LoaderJob>>> = Mutex::new(Vec::new());

/// Sends the job to an idle thread, or to a new thread. Fails if no thread can be started.
fn dispatch(job: LoaderJob) -> io::Result<()> {
    let idle = IDLE_THREADS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop();
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
        .name(IDLE_THREAD_NAME.to_owned())
        .spawn(move || run_jobs(&sender, &jobs))?;
    Ok(())
}

/// The main loop of a loader thread. `own` sends to `jobs`, and makes the thread available again after each job.
fn run_jobs(own: &mpsc::Sender<LoaderJob>, jobs: &mpsc::Receiver<LoaderJob>) {
    stack::install();
    while let Ok(LoaderJob { name, work }) = jobs.recv() {
        name_current_thread(&name);
        work();
        // The old name would count the idle thread as a thread of the app.
        name_current_thread(IDLE_THREAD_NAME);
        IDLE_THREADS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(own.clone());
    }
}

/// Sets the name of the current thread in the kernel and in the log.
fn name_current_thread(name: &str) {
    origin::set_thread_name(name);
    if let Ok(name) = std::ffi::CString::new(name) {
        // An error is ignored, because a thread with a wrong name does no harm.
        let _ = set_name(&name);
    }
}

/// A result that may arrive after the time limit.
pub(super) trait LateResult {
    /// Ends everything that the work has started.
    fn discard(self);
}

impl LateResult for Result<&'static App, LoadError> {
    fn discard(self) {
        // The app has started, and no generation will stop the app.
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
const IDLE_THREAD_NAME: &str = "host-loader";

/// How long a start may take after its time limit to end by itself.
const GRACE: Duration = Duration::from_millis(500);
