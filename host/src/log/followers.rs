//! The followers of the log's filter: every library that was ever loaded. A follower stores decisions of the filter,
//! and must be notified when the filter changes.
//!
//! A notification runs code of a plugin. This code may block, because a stuck thread of the plugin may hold a lock of
//! the plugin's copy of `tracing`. Therefore each follower is notified on another thread, with a time limit.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task, time};

/// The list of followers. Clones share one list.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Mutex<Vec<Arc<Follower>>>>);

/// A follower, or a group of followers that is notified by one callback.
struct Follower {
    /// The name of the follower in messages.
    name: String,
    /// Notifies the follower. The callback of a group returns the names of the members that did not confirm.
    callback: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The time limit of the callback.
    limit: Duration,
    state: Mutex<FollowerState>,
    /// Notified when `is_running` becomes false.
    finished: Condvar,
}

/// The state of a follower, which its lock protects.
#[derive(Default)]
struct FollowerState {
    /// Whether a thread is running the callback.
    is_running: bool,
    /// Whether the filter has changed after the callback began, so that the callback must run again.
    has_missed_change: bool,
    /// Whether the callback has exceeded its time limit and is still running.
    is_stuck: bool,
    /// The names that the callback returned at its last run.
    unconfirmed: Vec<String>,
}

impl Followers {
    /// Adds a follower, and runs its callback on this thread.
    pub(super) fn add(&self, name: String, callback: impl Fn() + Send + Sync + 'static) {
        let callback = move || {
            callback();
            Vec::new()
        };
        self.add_group(name, NOTIFY_TIMEOUT, callback);
    }

    /// Adds a group of followers, and runs its callback on this thread. The callback returns the names of the members
    /// that did not confirm. `limit` is the time limit of later runs of the callback.
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
        // Added to the list before the callback runs, so that a change between the two steps is not missed.
        lock(&self.0).push(Arc::clone(&follower));
        follower.run_callback();
    }

    /// Notifies all followers, one after the other. Returns the names of the followers that did not confirm in time. A
    /// follower that blocks is notified of the latest change as soon as its callback returns.
    pub(super) async fn notify(&self) -> Vec<String> {
        // Copies the list, because the lock must not be held across an await.
        let followers = lock(&self.0).clone();
        let mut unconfirmed = Vec::new();
        for follower in followers {
            unconfirmed.extend(follower.notify().await);
        }
        unconfirmed
    }
}

impl Follower {
    /// Runs the callback on another thread. Returns the name of this follower if the callback exceeds its time limit,
    /// and otherwise the names that the callback returned.
    async fn notify(self: &Arc<Self>) -> Vec<String> {
        {
            let mut state = lock(&self.state);
            if state.is_stuck {
                // A second thread would wait, too. The stuck thread runs the callback again when the callback returns.
                state.has_missed_change = true;
                return vec![self.name.clone()];
            }
        }
        let follower = Arc::clone(self);
        let run = task::spawn_blocking(move || follower.run_callback());
        // A timeout drops only the handle of the task. The callback continues to run on its thread.
        let is_finished = time::timeout(self.limit, run).await.is_ok();
        let mut state = lock(&self.state);
        if is_finished {
            return state.unconfirmed.clone();
        }
        // The callback may have returned after the timeout and before this thread got the lock.
        state.is_stuck = state.is_running;
        if state.is_stuck {
            vec![self.name.clone()]
        } else {
            state.unconfirmed.clone()
        }
    }

    /// Runs the callback. After this call, the follower knows all changes that were made before the call.
    ///
    /// Only one thread at a time runs the callback. If another thread is running the callback, this thread marks its
    /// change as missed and waits. The other thread then runs the callback again.
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
            // Releases the lock, because the callback may block.
            drop(state);
            let unconfirmed = (self.callback)();
            state = lock(&self.state);
            state.unconfirmed = unconfirmed;
        }
        // Keeps the names and clears all flags, also `is_stuck`.
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

/// The time limit of the callback of one follower.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test]
    async fn a_stuck_follower_delays_no_other_and_is_notified_of_the_last_change() {
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
