//! Waits for conditions: no longer than needed, and long enough for a slow machine.

use std::{env, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Returns the time limit for an event that must happen: `HOST_TEST_PATIENCE` seconds, or 60.
#[must_use]
pub fn patience() -> Duration {
    let seconds = env::var("HOST_TEST_PATIENCE").ok();
    Duration::from_secs(
        seconds
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(60),
    )
}

/// Waits for a future, and returns its output.
///
/// # Panics
///
/// When the time limit ends first. The text of the panic is that `what` did not happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(patience(), future).await {
        Ok(done) => done,
        Err(_) => panic!("in vain: {what}"),
    }
}

/// Calls `probe` again and again until it returns something, and returns that.
///
/// # Panics
///
/// Like [`within`].
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_for(patience(), what, probe).await
}

/// Like [`eventually`], with a time limit for an event that takes longer than others, such as a
/// first build.
///
/// # Panics
///
/// When the time limit ends first. The text of the panic is that `what` did not happen.
pub async fn eventually_for<T>(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
