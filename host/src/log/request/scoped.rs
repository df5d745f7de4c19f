//! A future that belongs to a request: events in its polls and in its drop are the request's.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{RequestLog, scope};

pin_project! {
    /// A future that runs in the scope of a request.
    #[derive(Debug)]
    pub struct Scoped<F> {
        #[pin]
        future: Option<F>,
        request: Option<Arc<RequestLog>>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            scope(this.request, || this.future.set(None));
        }
    }
}

/// Returns a future that runs `future` in the scope of `request`.
pub fn scoped<F: Future>(request: Option<Arc<RequestLog>>, future: F) -> Scoped<F> {
    Scoped {
        future: Some(future),
        request,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            unreachable!("the future is there until the drop");
        };
        scope(this.request, || future.poll(context))
    }
}
