//! Waits for conditions and futures: not longer than necessary, and long enough for a slow machine.

use std::{env, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Returns the time limit for an event that must happen: `HOST_TEST_PATIENCE` seconds, or 60.
#[must_use]
pub fn time_limit() -> Duration {
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
/// Panics after the [time limit](time_limit). The panic message contains `what`, the name of the missing event.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(time_limit(), future).await {
        Ok(output) => output,
        Err(_) => panic!("in vain: {what}"),
    }
}

/// Calls `probe` again and again until it returns `Some`, and returns the value.
///
/// # Panics
///
/// Panics after the [time limit](time_limit). The panic message contains `what`, the name of the missing event.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_for(time_limit(), what, probe).await
}

/// Like [`eventually`], with another time limit. For an event that takes longer than others, such as a first build.
///
/// # Panics
///
/// Panics after `limit`. The panic message contains `what`, the name of the missing event.
pub async fn eventually_for<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
