use std::time::Duration;

use plugin_api::Context;
use tokio::{sync::oneshot, time};

pub fn refresh(context: &Context) {
    let alone = context.previous_ended();
    let (end, mut ended) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        // The old version runs this task too, and ends only after this version has started.
        alone.await;
        let mut ticks = time::interval(Duration::from_secs(60));
        loop {
            tokio::select! {
                _ = ticks.tick() => count().await,
                _ = &mut ended => return,
            }
        }
    });
    // Without this hook the task is cancelled at its next `.await`, even in the middle of a count.
    context.on_shutdown(async move {
        drop(end);
        if task.await.is_ok() {
            tracing::debug!("the books are closed");
        }
    });
}

async fn count() {
    tracing::debug!("the stock is counted");
}
