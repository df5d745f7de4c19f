//! The list of the running apps of this process. Compares the generations of an app, and wakes stalled runtimes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::App;

/// An app that has started and was not stopped.
struct RunningApp {
    app: &'static App,
    name: Box<str>,
    /// The number of the generation.
    generation: u64,
    /// Whether the app still has to be notified when all its earlier generations have ended. True if the app was
    /// started with [`Init::is_second`](crate::abi::Init::is_second), until the notification.
    is_second: bool,
}

static RUNNING: Mutex<Vec<RunningApp>> = Mutex::new(Vec::new());

fn lock_running() -> MutexGuard<'static, Vec<RunningApp>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a generation of the app `name` is running that is earlier than `generation`.
pub(in crate::host) fn has_earlier(name: &str, generation: u64) -> bool {
    has_earlier_in(&lock_running(), name, generation)
}

fn has_earlier_in(running: &[RunningApp], name: &str, generation: u64) -> bool {
    running
        .iter()
        .any(|other| *other.name == *name && other.generation < generation)
}

/// Adds an app that has started. `is_second` is the value with which the app was started.
pub(in crate::host) fn add(app: &'static App, name: &str, generation: u64, is_second: bool) {
    lock_running().push(RunningApp {
        app,
        name: name.into(),
        generation,
        is_second,
    });
    // The earlier generation may have ended while this generation was starting.
    notify_last_generations();
}

/// Removes an app that was stopped.
pub(super) fn remove(app: &App) {
    lock_running().retain(|other| !std::ptr::eq(other.app, app));
    notify_last_generations();
}

/// Notifies the apps whose earlier generations have all ended, each of them once.
fn notify_last_generations() {
    let mut running = lock_running();
    let mut without_earlier = Vec::new();
    for index in 0..running.len() {
        let RunningApp {
            app,
            name,
            generation,
            is_second: true,
        } = &running[index]
        else {
            continue;
        };
        if !has_earlier_in(&running, name, *generation) {
            without_earlier.push(*app);
            running[index].is_second = false;
        }
    }
    // Unlocked before the plugins are called, because the notification wakes wakers, and a waker may be the author's
    // code.
    drop(running);
    without_earlier
        .into_iter()
        .for_each(App::notify_previous_ended);
}

/// Wakes an idle thread in the runtime of each running app whose blocked thread keeps the runtime from serving its
/// timers and sockets.
///
/// Call this about every 50 ms, on a thread that does nothing else for the apps: the function runs code of each
/// library, but no code of an author.
pub fn wake_stalled_apps() {
    let apps: Vec<_> = lock_running().iter().map(|running| running.app).collect();
    apps.into_iter().for_each(App::wake_if_stalled);
}
