//! Those who keep answers of the log's filter, and have to be told when it changes: every library that
//! was ever loaded.
//!
//! Being told runs code of a plugin, which can block: a thread that is stuck may hold a lock of the
//! plugin's `tracing`. So each is told on a thread of its own, with a limit of time.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task, time};

/// Everybody who follows. A clone has the same ones.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Mutex<Vec<Arc<Follower>>>>);

struct Follower {
    /// What messages call it.
    name: String,
    /// Has it ask for what is in force now. Returns who did not confirm to it, where it stands for
    /// others.
    tell: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// How long it may take.
    limit: Duration,
    state: Mutex<State>,
    is_told: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether a thread is telling it.
    is_running: bool,
    /// Whether there was a change since that thread last began to.
    is_stale: bool,
    /// Whether that thread took longer than the follower's limit.
    is_stuck: bool,
    /// Who did not confirm the last change to it.
    unconfirmed: Vec<String>,
}

impl Followers {
    /// Adds one, and tells it, on this thread.
    pub(super) fn add(&self, name: String, tell: impl Fn() + Send + Sync + 'static) {
        let tell = move || {
            tell();
            Vec::new()
        };
        self.add_group(name, LIMIT, tell);
    }

    /// Adds one that stands for others, and that has so long to be told. It returns the names of those
    /// that did not confirm.
    pub(super) fn add_group(
        &self,
        name: String,
        limit: Duration,
        tell: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        let follower = Arc::new(Follower {
            name,
            tell: Box::new(tell),
            limit,
            state: Mutex::default(),
            is_told: Condvar::new(),
        });
        // First, so that a change from now on is told.
        lock(&self.0).push(Arc::clone(&follower));
        follower.tell();
    }

    /// Tells all. The names of those that did not return in time; they are told when they do.
    pub(super) async fn tell(&self) -> Vec<String> {
        let followers = lock(&self.0).clone();
        let mut unconfirmed = Vec::new();
        for follower in followers {
            unconfirmed.extend(follower.confirms().await);
        }
        unconfirmed
    }
}

impl Follower {
    /// Tells it on another thread. Returns who did not confirm in time: itself, or those that it stands
    /// for.
    async fn confirms(self: &Arc<Self>) -> Vec<String> {
        {
            let mut state = lock(&self.state);
            if state.is_stuck {
                // Another thread would be stuck as well. The one that is tells it of this change too.
                state.is_stale = true;
                return vec![self.name.clone()];
            }
        }
        let follower = Arc::clone(self);
        let told = task::spawn_blocking(move || follower.tell());
        let is_told = time::timeout(self.limit, told).await.is_ok();
        let mut state = lock(&self.state);
        if is_told {
            return state.unconfirmed.clone();
        }
        state.is_stuck = state.is_running;
        if state.is_stuck {
            vec![self.name.clone()]
        } else {
            state.unconfirmed.clone()
        }
    }

    /// Tells it, so that it has been told of everything up to now when this returns.
    fn tell(&self) {
        let mut state = lock(&self.state);
        state.is_stale = true;
        if state.is_running {
            let is_running = |state: &mut State| state.is_running;
            drop(self.is_told.wait_while(state, is_running));
            return;
        }
        state.is_running = true;
        while state.is_stale {
            state.is_stale = false;
            drop(state);
            let unconfirmed = (self.tell)();
            state = lock(&self.state);
            state.unconfirmed = unconfirmed;
        }
        *state = State {
            unconfirmed: std::mem::take(&mut state.unconfirmed),
            ..State::default()
        };
        drop(state);
        self.is_told.notify_all();
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

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(1);

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
            assert_eq!(followers.tell().await, ["stuck"]);
        }
        assert_eq!(tells.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        release.send(()).unwrap();
        let told: Vec<_> = (0..3).map(|_| sees.recv().unwrap()).collect();
        assert_eq!(told, [0, 1, 3]);
        let deadline = time::Instant::now() + Duration::from_secs(10);
        while !followers.tell().await.is_empty() {
            assert!(time::Instant::now() < deadline);
        }
    }
}
