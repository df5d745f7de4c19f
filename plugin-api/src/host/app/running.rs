//! The apps of this process that run, for what concerns several of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::App;

/// An app that was started and has not ended.
struct Running {
    app: &'static App,
    name: Box<str>,
    /// Which load of the app it is.
    generation: u64,
    /// Whether it was told that an earlier generation runs, and not yet that none does any more.
    is_second: bool,
}

static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a generation of the app `name` runs that is earlier than `generation`.
pub(in crate::host) fn has_earlier(name: &str, generation: u64) -> bool {
    is_second(&running(), name, generation)
}

fn is_second(running: &[Running], name: &str, generation: u64) -> bool {
    running
        .iter()
        .any(|other| *other.name == *name && other.generation < generation)
}

/// The app has started. `is_second` is what it was told.
pub(in crate::host) fn add(app: &'static App, name: &str, generation: u64, is_second: bool) {
    running().push(Running {
        app,
        name: name.into(),
        generation,
        is_second,
    });
    // The earlier one may have ended while this one started.
    tell();
}

/// The app has ended.
pub(super) fn ended(app: &App) {
    running().retain(|other| !std::ptr::eq(other.app, app));
    tell();
}

/// Tells apps whose earlier generations have all ended.
fn tell() {
    let mut running = running();
    let mut alone = Vec::new();
    for at in 0..running.len() {
        let Running {
            app,
            name,
            generation,
            is_second: true,
        } = &running[at]
        else {
            continue;
        };
        if !is_second(&running, name, *generation) {
            alone.push(*app);
            running[at].is_second = false;
        }
    }
    drop(running);
    // What waits for it may be the author's code.
    alone.into_iter().for_each(App::tell_alone);
}

/// Has the runtime of each app that runs wake an idle thread if another one is blocked: else nobody would
/// wait for the app's timers and sockets until the blocked thread is back. To be called every 50 ms or so,
/// on a thread of its own: it runs code of each library, though none of the author's.
pub fn look_after_apps() {
    let apps: Vec<_> = running().iter().map(|running| running.app).collect();
    apps.into_iter().for_each(App::look_after);
}
