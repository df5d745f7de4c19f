//! What the log knows of a request: its id, its trace, and the span that what it logs is in.
//!
//! A request costs the log next to nothing until a line is written: its facts are set for the
//! thread while its app runs ([`scope`]), and its span is made when something first wants to be in
//! it. The span carries the facts on, to what the app spawns in it.

mod scoped;
mod trace;

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, OnceLock},
};

use tracing::{Metadata, Span, dispatcher, error_span, field, span::Id};
use tracing_subscriber::{
    Registry,
    registry::{LookupSpan, SpanRef},
};

pub use self::{
    scoped::{Scoped, scoped},
    trace::Trace,
};
use super::request_id::RequestId;

/// A request, as the log knows it.
#[derive(Debug)]
pub struct RequestLog {
    facts: Facts,
    span: OnceLock<Span>,
}

/// What every line of a request says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What identifies it.
    pub id: RequestId,
    /// The trace that the request is a part of.
    pub trace: Option<Trace>,
    /// Whether it is logged at debug whatever the level.
    pub loud: bool,
}

impl RequestLog {
    /// A request that begins.
    #[must_use]
    pub fn new(facts: Facts) -> Arc<Self> {
        let log = Self {
            facts,
            span: OnceLock::new(),
        };
        if let Ok(Some(mut spare)) = SPARE.try_with(Cell::take)
            && let Some(place) = Arc::get_mut(&mut spare)
        {
            *place = log;
            return spare;
        }
        Arc::new(log)
    }

    /// The request has ended, as far as this holder of it is concerned. The last one leaves its memory
    /// to the thread.
    pub fn end(mut self: Arc<Self>) {
        if let Some(log) = Arc::get_mut(&mut self) {
            // Its span ends now.
            log.span.take();
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The span of the request, made when it is first wanted.
    fn span(&self) -> &Span {
        self.span.get_or_init(|| {
            let Facts { id, trace, .. } = &self.facts;
            let span = error_span!(
                target: TARGET,
                parent: None,
                "request",
                id = id.as_str(),
                trace_id = trace.as_ref().map(|trace| field::display(trace.trace_id())),
                span_id = trace.as_ref().map(|trace| field::display(trace.span_id())),
            );
            if let Some(id) = span.id() {
                with_span(&id, |span| {
                    span.extensions_mut().replace(self.facts.clone())
                });
            }
            span
        })
    }
}

/// Runs `work` for a request: what it logs on this thread is the request's.
///
/// The request is lent to the thread, which costs no count of it.
pub fn scope<T>(request: &mut Option<Arc<RequestLog>>, work: impl FnOnce() -> T) -> T {
    let outer = replace(request.take());
    let _restore = Restore { request, outer };
    work()
}

struct Restore<'a> {
    request: &'a mut Option<Arc<RequestLog>>,
    outer: Option<Arc<RequestLog>>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        *self.request = replace(self.outer.take());
    }
}

fn replace(request: Option<Arc<RequestLog>>) -> Option<Arc<RequestLog>> {
    // Requests are handled by threads that run, not by ones that end.
    CURRENT.try_with(|current| current.replace(request)).ok()?
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<RequestLog>>> = const { RefCell::new(None) };
    /// Memory that a request has left to the next one.
    static SPARE: Cell<Option<Arc<RequestLog>>> = const { Cell::new(None) };
}

/// Lends the request that this thread works on.
pub fn with_current<T>(work: impl FnOnce(Option<&RequestLog>) -> T) -> T {
    // While a thread ends its locals are gone, and plugins log in the drop code of theirs.
    if CURRENT.try_with(|_| ()).is_err() {
        return work(None);
    }
    CURRENT.with_borrow(|current| work(current.as_deref()))
}

/// The span of the request that this thread works on, for what is to be in it.
#[must_use]
pub fn current_span() -> Option<Id> {
    with_current(|request| request?.span().id())
}

/// Whether the request that a span is in, or else the one that this thread works on, is logged at
/// debug whatever the level.
#[must_use]
pub fn is_loud(span: Option<&Id>) -> bool {
    match span {
        Some(span) => {
            with_span(span, |span| facts_of(&span, |facts| facts.loud)).flatten() == Some(true)
        }
        None => with_current(|request| request.is_some_and(|request| request.facts.loud)),
    }
}

/// Lends what is known of the request that a span is in.
pub fn facts_of<'a, R: LookupSpan<'a>, T>(
    span: &SpanRef<'a, R>,
    work: impl Fn(&Facts) -> T,
) -> Option<T> {
    let root = span.scope().from_root().next()?;
    let extensions = root.extensions();
    extensions.get::<Facts>().map(work)
}

/// Whether a callsite is that of the requests' span, which passes where anything does.
#[must_use]
pub fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Lends a span of the process's subscriber.
pub fn with_span<T>(span: &Id, work: impl Fn(SpanRef<'_, Registry>) -> T) -> Option<T> {
    dispatcher::get_default(|dispatch| {
        let span = dispatch.downcast_ref::<Registry>()?.span(span)?;
        Some(work(span))
    })
}

const TARGET: &str = "request";
