//! An app whose futures lie in the slot of a call as they are, and whose service may panic as it is
//! dropped.

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

use super::driver::{LONG, ask, started, text};

#[test]
fn futures_with_pointers_into_themselves_stay_where_they_are_and_end() {
    let app = started::<Careless>(None);
    for _ in 0..2 {
        assert_eq!(text(ask(app, "/counts", "").unwrap()), "3");
    }
    // Also when the service panics as it is dropped: the room is free for the next one.
    assert_eq!(ask(app, "/drop", "").unwrap_err(), CallError::Panicked);
    assert_eq!(text(ask(app, "/counts", "").unwrap()), "3");
    assert_eq!(LIVING.load(Ordering::Relaxed), 0);
    assert_eq!(app.in_flight(), 0);
    assert_eq!(app.stop(LONG), host::Stopped::default());
}

/// An app that is a tower service, whose futures are not boxed.
struct Careless;

impl ExportedApp for Careless {
    const VERSION: &'static str = "1.2.3";

    fn build(context: Context) -> AppFuture {
        let answer = async || {
            let _living = Living::new();
            let mut count = 0;
            // It points into the future.
            let counted = &mut count;
            for _ in 0..3 {
                yield_now().await;
                *counted += 1;
            }
            Ok(Response::new(count.to_string()))
        };
        let service = Unboxed {
            answer,
            is_bomb: false,
        };
        build(move || service, context)
    }
}

/// Something that has begun, and has not ended.
struct Living(());

static LIVING: AtomicUsize = AtomicUsize::new(0);

impl Living {
    fn new() -> Self {
        LIVING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Unboxed<F> {
    answer: F,
    is_bomb: bool,
}

impl<F> Drop for Unboxed<F> {
    fn drop(&mut self) {
        assert!(!self.is_bomb, "it is a bomb");
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
        self.is_bomb = request.uri().path() == "/drop";
        (self.answer)()
    }
}
