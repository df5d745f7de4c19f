//! A future that runs in the scope of a request: events that are emitted while the future is polled or dropped belong
//! to the request.

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
        // `None` after the drop has begun: the drop code of the future must run inside the scope.
        #[pin]
        future: Option<F>,
        // `None` if the future belongs to no request.
        request: Option<Arc<RequestLog>>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            // Drops the future here, inside the scope. The fields would be dropped outside of the scope.
            let mut this = this.project();
            scope(this.request, || this.future.set(None));
        }
    }
}

/// Returns a future that polls and drops `future` in the scope of `request`.
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
            unreachable!("the future exists until the drop");
        };
        scope(this.request, || future.poll(context))
    }
}
