//! The followers of the log's filter: every library that was ever loaded. Each stores answers of the filter
//! and has to be notified when the filter changes.
//!
//! A notification runs code of a plugin, which can block, because a stuck thread of the plugin may hold a lock
//! of the plugin's `tracing`. So each follower is notified on a thread of its own, with a time limit.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task, time};

/// The list of followers. Clones share one list.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Mutex<Vec<Arc<Follower>>>>);

/// One follower.
struct Follower {
    /// The follower's name in messages.
    name: String,
    /// Notifies the follower. A follower that stands for others returns the names of those that did not
    /// confirm.
    callback: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// How long the callback may take.
    limit: Duration,
    state: Mutex<FollowerState>,
    /// Notified when `is_running` becomes false.
    finished: Condvar,
}

/// The part of a follower that its lock protects.
#[derive(Default)]
struct FollowerState {
    /// Whether a thread runs the callback.
    is_running: bool,
    /// Whether the filter has changed since the callback last began, so that it has to run again.
    has_missed_change: bool,
    /// Whether the callback took longer than its limit and still runs.
    is_stuck: bool,
    /// The names that the last callback returned.
    unconfirmed: Vec<String>,
}

impl Followers {
    /// Adds a follower, and notifies it on this thread.
    pub(super) fn add(&self, name: String, callback: impl Fn() + Send + Sync + 'static) {
        let callback = move || {
            callback();
            Vec::new()
        };
        self.add_group(name, NOTIFY_TIMEOUT, callback);
    }

    /// Adds a follower that stands for others, and notifies it on this thread. The callback returns the
    /// names of those that did not confirm, and may take `limit`.
    pub(super) fn add_group(
        &self,
        name: String,
        limit: Duration,
        callback: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        let follower = Arc::new(Follower {
            name,
            callback: Box::new(callback),
            limit,
            state: Mutex::default(),
            finished: Condvar::new(),
        });
        // Added before it is notified, so that no change between the two is missed.
        lock(&self.0).push(Arc::clone(&follower));
        follower.run_callback();
    }

    /// Notifies all followers. Returns the names of followers that did not confirm in time. A follower that
    /// blocks is notified of the latest change as soon as it no longer blocks.
    pub(super) async fn notify(&self) -> Vec<String> {
        let followers = lock(&self.0).clone();
        let mut unconfirmed = Vec::new();
        for follower in followers {
            unconfirmed.extend(follower.notify().await);
        }
        unconfirmed
    }
}

impl Follower {
    /// Notifies the follower on another thread. Returns the names of those that did not confirm in time: its
    /// own name, or those that it stands for.
    async fn notify(self: &Arc<Self>) -> Vec<String> {
        {
            let mut state = lock(&self.state);
            if state.is_stuck {
                // Another thread would be stuck as well. The stuck one runs the callback again later.
                state.has_missed_change = true;
                return vec![self.name.clone()];
            }
        }
        let follower = Arc::clone(self);
        let run = task::spawn_blocking(move || follower.run_callback());
        let is_finished = time::timeout(self.limit, run).await.is_ok();
        let mut state = lock(&self.state);
        if is_finished {
            return state.unconfirmed.clone();
        }
        // The callback may have returned between the timeout and the lock.
        state.is_stuck = state.is_running;
        if state.is_stuck {
            vec![self.name.clone()]
        } else {
            state.unconfirmed.clone()
        }
    }

    /// Runs the callback. When this returns, the follower knows all changes before the call.
    ///
    /// Only one thread runs the callback at a time. A thread that finds the callback running marks its change as
    /// missed and waits. The thread that runs the callback then runs it once more.
    fn run_callback(&self) {
        let mut state = lock(&self.state);
        state.has_missed_change = true;
        if state.is_running {
            let is_running = |state: &mut FollowerState| state.is_running;
            drop(self.finished.wait_while(state, is_running));
            return;
        }
        state.is_running = true;
        while state.has_missed_change {
            state.has_missed_change = false;
            // Not under the lock, because the callback may block.
            drop(state);
            let unconfirmed = (self.callback)();
            state = lock(&self.state);
            state.unconfirmed = unconfirmed;
        }
        *state = FollowerState {
            unconfirmed: std::mem::take(&mut state.unconfirmed),
            ..FollowerState::default()
        };
        drop(state);
        self.finished.notify_all();
    }
}

impl fmt::Debug for Followers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Followers").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the notification of one follower may take.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test]
    async fn one_that_is_stuck_holds_up_nobody_and_is_told_of_the_last_change() {
        let followers = Followers::default();
        let level = Arc::new(AtomicU64::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (seen, sees) = mpsc::channel();
        let of_stuck = Arc::clone(&level);
        followers.add("stuck".to_owned(), move || {
            let level = of_stuck.load(Ordering::SeqCst);
            if level == 1 {
                let _ = released.lock().unwrap().recv();
            }
            seen.send(level).unwrap();
        });
        let (told, tells) = mpsc::channel();
        let of_other = Arc::clone(&level);
        followers.add("other".to_owned(), move || {
            told.send(of_other.load(Ordering::SeqCst)).unwrap();
        });
        for change in [1, 2, 3] {
            level.store(change, Ordering::SeqCst);
            assert_eq!(followers.notify().await, ["stuck"]);
        }
        assert_eq!(tells.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        release.send(()).unwrap();
        let told: Vec<_> = (0..3).map(|_| sees.recv().unwrap()).collect();
        assert_eq!(told, [0, 1, 3]);
        let deadline = time::Instant::now() + Duration::from_secs(10);
        while !followers.notify().await.is_empty() {
            assert!(time::Instant::now() < deadline);
        }
    }
}
