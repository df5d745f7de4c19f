//! The log's view of a request: its id, its trace, and its span.
//!
//! A request costs the log next to nothing until a line is written. While its app runs, a thread-local has
//! its metadata ([`scope`]). Its span is made when an event or another span first needs a parent. The
//! span also has the metadata, for tasks that the app spawns in it.

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

/// The log's view of one request.
#[derive(Debug)]
pub struct RequestLog {
    meta: RequestMeta,
    /// Made when it is first needed.
    span: OnceLock<Span>,
}

/// The parts of a request that are on each of its lines.
#[derive(Clone, Debug)]
pub struct RequestMeta {
    /// The id of the request.
    pub id: RequestId,
    /// The trace that the request is a part of.
    pub trace: Option<Trace>,
    /// Whether the request is logged at debug, whatever the level.
    pub force_debug: bool,
}

impl RequestLog {
    /// Returns the log of a request that begins. Reuses the memory of an earlier request of this thread.
    #[must_use]
    pub fn new(meta: RequestMeta) -> Arc<Self> {
        let log = Self {
            meta,
            span: OnceLock::new(),
        };
        // `get_mut` fails if a task of the earlier request still holds its log. Then new memory is made.
        if let Ok(Some(mut spare)) = SPARE.try_with(Cell::take)
            && let Some(place) = Arc::get_mut(&mut spare)
        {
            *place = log;
            return spare;
        }
        Arc::new(log)
    }

    /// Ends the use of one reference. The last reference ends the request's span and leaves its memory to
    /// the next request of this thread.
    pub fn recycle(mut self: Arc<Self>) {
        if let Some(log) = Arc::get_mut(&mut self) {
            // Ends the span now, and not when the memory is used again.
            log.span.take();
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// Returns the metadata of the request.
    #[must_use]
    pub fn meta(&self) -> &RequestMeta {
        &self.meta
    }

    /// Returns the span of the request, which is made at the first call.
    fn span(&self) -> &Span {
        self.span.get_or_init(|| {
            let RequestMeta { id, trace, .. } = &self.meta;
            // At the level error, so that the span passes whenever anything does; see `Filter::passes`.
            let span = error_span!(
                target: TARGET,
                parent: None,
                "request",
                id = id.as_str(),
                trace_id = trace.as_ref().map(|trace| field::display(trace.trace_id())),
                span_id = trace.as_ref().map(|trace| field::display(trace.span_id())),
            );
            if let Some(id) = span.id() {
                with_span(&id, |span| span.extensions_mut().replace(self.meta.clone()));
            }
            span
        })
    }
}

/// Runs `work`. Events that this thread emits meanwhile belong to the request.
///
/// The `Arc` moves into the thread-local and back, so that its count does not change. `request` is None
/// meanwhile.
pub fn scope<T>(request: &mut Option<Arc<RequestLog>>, work: impl FnOnce() -> T) -> T {
    let outer = replace(request.take());
    let _restore = ScopeGuard { request, outer };
    work()
}

/// Moves the request back, and restores the one that the thread had before. Also runs after a panic.
struct ScopeGuard<'a> {
    request: &'a mut Option<Arc<RequestLog>>,
    outer: Option<Arc<RequestLog>>,
}

impl Drop for ScopeGuard<'_> {
    fn drop(&mut self) {
        *self.request = replace(self.outer.take());
    }
}

fn replace(request: Option<Arc<RequestLog>>) -> Option<Arc<RequestLog>> {
    // Fails only on a thread that ends, and no such thread handles requests.
    CURRENT.try_with(|current| current.replace(request)).ok()?
}

thread_local! {
    /// The request that this thread works on.
    static CURRENT: RefCell<Option<Arc<RequestLog>>> = const { RefCell::new(None) };
    /// The memory of a request that has ended, for the next one.
    static SPARE: Cell<Option<Arc<RequestLog>>> = const { Cell::new(None) };
}

/// Runs `work` with the request that this thread works on, if there is one.
pub fn with_current<T>(work: impl FnOnce(Option<&RequestLog>) -> T) -> T {
    // A thread that ends has no such thread-local any more, but drop code of plugins still logs on it.
    if CURRENT.try_with(|_| ()).is_err() {
        return work(None);
    }
    CURRENT.with_borrow(|current| work(current.as_deref()))
}

/// Returns the span of the request that this thread works on, and makes the span if need be.
#[must_use]
pub fn current_span() -> Option<Id> {
    with_current(|request| request?.span().id())
}

/// Whether a request is logged at debug, whatever the level. The request is the one that `span` is in, or
/// without a span the one that this thread works on.
#[must_use]
pub fn is_debug_forced(span: Option<&Id>) -> bool {
    match span {
        Some(span) => {
            with_span(span, |span| with_meta_of(&span, |meta| meta.force_debug)).flatten()
                == Some(true)
        }
        None => with_current(|request| request.is_some_and(|request| request.meta.force_debug)),
    }
}

/// Runs `work` with the metadata of the request that a span is in. Returns None outside of requests.
pub fn with_meta_of<'a, R: LookupSpan<'a>, T>(
    span: &SpanRef<'a, R>,
    work: impl Fn(&RequestMeta) -> T,
) -> Option<T> {
    let root = span.scope().from_root().next()?;
    let extensions = root.extensions();
    extensions.get::<RequestMeta>().map(work)
}

/// Whether a callsite is that of the spans of requests.
#[must_use]
pub fn is_request_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Runs `work` with a span of the process's subscriber. Returns None when there is no such span.
pub fn with_span<T>(span: &Id, work: impl Fn(SpanRef<'_, Registry>) -> T) -> Option<T> {
    dispatcher::get_default(|dispatch| {
        let span = dispatch.downcast_ref::<Registry>()?.span(span)?;
        Some(work(span))
    })
}

/// The target of the spans of requests.
const TARGET: &str = "request";
