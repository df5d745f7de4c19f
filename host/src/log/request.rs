//! The facts about a request that its log lines contain: the id, the trace, and the span.
//!
//! A request costs the log almost nothing until a line is written. While the app runs for the request, a thread-local
//! refers to the request ([`scope`]). The span of the request is created when an event or another span first needs a
//! parent. The span stores a copy of the facts, because a task that the app spawns may run in the span on another
//! thread.

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

/// The facts about one request, and its span.
#[derive(Debug)]
pub struct RequestLog {
    meta: RequestMeta,
    /// The span of the request. Created when the span is first needed.
    span: OnceLock<Span>,
}

/// The facts about a request that each of its lines contains.
#[derive(Clone, Debug)]
pub struct RequestMeta {
    /// The id of the request.
    pub id: RequestId,
    /// The trace that the request belongs to. `None` if the client sent no trace.
    pub trace: Option<Trace>,
    /// Whether events of the request pass at level debug even if the directives disable that level.
    pub force_debug: bool,
}

impl RequestLog {
    /// Returns the `RequestLog` of a new request. Reuses the memory of an earlier request of this thread.
    #[must_use]
    pub fn new(meta: RequestMeta) -> Arc<Self> {
        let log = Self {
            meta,
            span: OnceLock::new(),
        };
        // `get_mut` fails if the memory is still shared. In that case new memory is allocated.
        if let Ok(Some(mut spare)) = SPARE.try_with(Cell::take)
            && let Some(reused) = Arc::get_mut(&mut spare)
        {
            *reused = log;
            return spare;
        }
        Arc::new(log)
    }

    /// Drops a reference. The last reference ends the span of the request, and stores the memory for the next request
    /// of this thread.
    pub fn recycle(mut self: Arc<Self>) {
        if let Some(log) = Arc::get_mut(&mut self) {
            // Ends the span now. Otherwise the span would end when the memory is reused.
            log.span.take();
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// Returns the facts about the request.
    #[must_use]
    pub fn meta(&self) -> &RequestMeta {
        &self.meta
    }

    /// Returns the span of the request. Creates the span at the first call.
    fn span(&self) -> &Span {
        self.span.get_or_init(|| {
            let RequestMeta { id, trace, .. } = &self.meta;
            // The level is error, so that the span is enabled whenever any event is enabled. See `Filter::passes`.
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

/// Runs `work`. Events that this thread emits while `work` runs belong to `request`.
///
/// The `Arc` is moved into the thread-local and back, because cloning the `Arc` would change its atomic reference count
/// for every request. `request` is `None` while `work` runs.
pub fn scope<T>(request: &mut Option<Arc<RequestLog>>, work: impl FnOnce() -> T) -> T {
    let outer = replace(request.take());
    // Restores the outer request also after a panic of `work`.
    let _restore = ScopeGuard { request, outer };
    work()
}

/// Moves the request out of the thread-local, and restores the outer request, when the guard is dropped.
struct ScopeGuard<'a> {
    /// The variable from which [`scope`] has moved the request.
    request: &'a mut Option<Arc<RequestLog>>,
    /// The request that the thread worked on before.
    outer: Option<Arc<RequestLog>>,
}

impl Drop for ScopeGuard<'_> {
    fn drop(&mut self) {
        *self.request = replace(self.outer.take());
    }
}

/// Stores the request that this thread works on. Returns the previous request.
fn replace(request: Option<Arc<RequestLog>>) -> Option<Arc<RequestLog>> {
    // Fails only on a thread that is ending, and such a thread handles no requests.
    CURRENT.try_with(|current| current.replace(request)).ok()?
}

thread_local! {
    /// The request that this thread works on. `None` outside of [`scope`].
    static CURRENT: RefCell<Option<Arc<RequestLog>>> = const { RefCell::new(None) };
    /// The memory of a request that has ended, for the next request of this thread.
    static SPARE: Cell<Option<Arc<RequestLog>>> = const { Cell::new(None) };
}

/// Runs `work` with the request that this thread works on, or with `None` outside of requests.
pub fn with_current<T>(work: impl FnOnce(Option<&RequestLog>) -> T) -> T {
    // A thread that is ending has dropped the thread-local, but drop code of plugins still logs on that thread. Checks
    // first, because a failed `try_with(work)` would drop `work` without running it.
    if CURRENT.try_with(|_| ()).is_err() {
        return work(None);
    }
    CURRENT.with_borrow(|current| work(current.as_deref()))
}

/// Returns the span of the request that this thread works on. Creates the span at the first call for a request. Returns
/// `None` outside of requests, and if the filter disables the span.
#[must_use]
pub fn current_span() -> Option<Id> {
    with_current(|request| request?.span().id())
}

/// Returns whether events of a request pass at level debug even if the directives disable that level. If `span` is not
/// `None`, the request is the request of that span. Otherwise the request is the request that this thread works on.
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

/// Runs `work` with the facts about the request that a span belongs to. Returns `None` if the span belongs to no
/// request.
pub fn with_meta_of<'a, R: LookupSpan<'a>, T>(
    span: &SpanRef<'a, R>,
    work: impl Fn(&RequestMeta) -> T,
) -> Option<T> {
    // The span of the request has no parent, so it is the outermost span.
    let root = span.scope().from_root().next()?;
    let extensions = root.extensions();
    extensions.get::<RequestMeta>().map(work)
}

/// Returns whether a callsite is the callsite of the spans of requests.
#[must_use]
pub fn is_request_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Runs `work` with the span that has the id `span` in the subscriber of the process. Returns `None` if no such span
/// exists.
pub fn with_span<T>(span: &Id, work: impl Fn(SpanRef<'_, Registry>) -> T) -> Option<T> {
    dispatcher::get_default(|dispatch| {
        let span = dispatch.downcast_ref::<Registry>()?.span(span)?;
        Some(work(span))
    })
}

/// The target of the spans of requests. [`is_request_span`] recognizes the spans by this target.
const TARGET: &str = "request";
