//! A tower service whose futures are not boxed, so that they are stored in the slot of a call, and whose drop may
//! panic.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    task::{self, Poll},
};

use http::{Request, Response};
use plugin_api::{
    __private::{AppFuture, ExportedApp, build},
    BoxError, Context,
    host::{self, CallError},
};
use tokio::task::yield_now;
use tower_service::Service;

use super::driver::{TIMEOUT, body_text, exchange, start};

#[test]
fn futures_with_pointers_into_themselves_stay_where_they_are_and_end() {
    let app = start::<UnboxedApp>(None);
    for _ in 0..2 {
        assert_eq!(body_text(exchange(app, "/counts", "").unwrap()), "3");
    }
    // A service that panics in its drop must release its slot, which the next request then uses.
    assert_eq!(exchange(app, "/drop", "").unwrap_err(), CallError::Panicked);
    assert_eq!(body_text(exchange(app, "/counts", "").unwrap()), "3");
    assert_eq!(RUNNING_CALLS.load(Ordering::Relaxed), 0);
    assert_eq!(app.in_flight(), 0);
    assert_eq!(app.stop(TIMEOUT), host::Stopped::default());
}

/// An app that is a tower service, whose futures are not boxed.
struct UnboxedApp;

impl ExportedApp for UnboxedApp {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> AppFuture {
        let answer = async || {
            let _running = RunningCall::new();
            let mut count = 0;
            // The reference points into the future itself, so the future must not be moved after its first poll.
            let count_ref = &mut count;
            for _ in 0..3 {
                yield_now().await;
                *count_ref += 1;
            }
            Ok(Response::new(count.to_string()))
        };
        let service = Unboxed {
            answer,
            panics_on_drop: false,
        };
        build(move || service, context)
    }
}

/// Counts a call from its first poll to the drop of its future.
struct RunningCall(());

/// The number of futures that have been polled and not dropped.
static RUNNING_CALLS: AtomicUsize = AtomicUsize::new(0);

impl RunningCall {
    fn new() -> Self {
        RUNNING_CALLS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        RUNNING_CALLS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service whose futures are those of the closure `answer`.
#[derive(Clone)]
struct Unboxed<F> {
    answer: F,
    panics_on_drop: bool,
}

impl<F> Drop for Unboxed<F> {
    fn drop(&mut self) {
        assert!(!self.panics_on_drop, "panic in drop");
    }
}

impl<F, A> Service<Request<plugin_api::Body>> for Unboxed<F>
where
    F: Fn() -> A,
    A: Future<Output = Result<Response<String>, BoxError>>,
{
    type Response = Response<String>;
    type Error = BoxError;
    type Future = A;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<plugin_api::Body>) -> A {
        self.panics_on_drop = request.uri().path() == "/drop";
        (self.answer)()
    }
}
