//! The functions of [`abi::Host`], which pass the log entries of a plugin to its [`Logger`].

use std::ffi::c_void;

use super::{
    Interest, Logger, Panic, Parent,
    view::{callsite_view, entry_view},
};
use crate::{
    abi::{self, Registered},
    crossing::PanicBoundary,
    host::boundary::HostBoundary,
};

/// Returns a table of functions whose context is `logger`. The logger is leaked, because threads of the plugin may log
/// until the process ends.
pub(in crate::host) fn host_table<L: Logger>(logger: L) -> abi::Host {
    abi::Host {
        size: size_of::<abi::Host>(),
        context: std::ptr::from_ref::<L>(Box::leak(Box::new(logger))).cast(),
        register: register::<L>,
        enabled: enabled::<L>,
        event: event::<L>,
        new_span: new_span::<L>,
        record: record::<L>,
        follows_from: follows_from::<L>,
        clone_span: clone_span::<L>,
        close_span: close_span::<L>,
        request_span: request_span::<L>,
        span_callsite: span_callsite::<L>,
        panicked: panicked::<L>,
    }
}

unsafe extern "C" fn register<L: Logger>(
    context: *const c_void,
    callsite: *const abi::Callsite,
) -> Registered {
    // SAFETY: the plugin passes the context of its table. `host_table` has made the context from a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    // SAFETY: the plugin passes a callsite that is valid until this function returns.
    let callsite = unsafe { &*callsite };
    let registered = HostBoundary.run(|| {
        // SAFETY: the slices and the array of the callsite are valid until this function returns.
        let callsite = unsafe { callsite_view(callsite) };
        logger.register(&callsite)
    });
    match registered {
        Some((callsite, interest)) => Registered {
            callsite: std::ptr::from_ref(callsite).cast(),
            interest: match interest {
                Interest::Always => Registered::ALWAYS,
                Interest::Never => Registered::NEVER,
                Interest::Sometimes => Registered::SOMETIMES,
            },
        },
        // The logger has panicked.
        None => Registered {
            callsite: std::ptr::null(),
            interest: Registered::NEVER,
        },
    }
}

/// Runs `work` with the logger of `context`. Returns `None` after a panic of `work`. Only the panic hook reports such a
/// panic, because the log itself may be the cause.
///
/// # Safety
///
/// `context` is the context of a table that [`host_table`] has returned for an `L`.
unsafe fn with_logger<L: Logger, R>(
    context: *const c_void,
    work: impl FnOnce(&L) -> R,
) -> Option<R> {
    // SAFETY: the caller guarantees that `context` points to an `L`, and `host_table` has leaked this `L`.
    let logger = unsafe { &*context.cast::<L>() };
    HostBoundary.run(|| work(logger))
}

/// Returns the callsite of a handle. Returns `None` for null, the handle after a failed registration.
///
/// # Safety
///
/// `callsite` is null or a handle that [`register`] has returned for the logger `L`.
unsafe fn callsite_ref<L: Logger>(callsite: *const c_void) -> Option<&'static L::Callsite> {
    // SAFETY: the caller guarantees that the handle comes from `register`, which makes it from a `&'static
    // L::Callsite`.
    unsafe { callsite.cast::<L::Callsite>().as_ref() }
}

unsafe extern "C" fn enabled<L: Logger>(
    context: *const c_void,
    callsite: *const c_void,
    span: u64,
) -> u32 {
    // SAFETY: the plugin passes a handle that `register` has returned, or null.
    let Some(callsite) = (unsafe { callsite_ref::<L>(callsite) }) else {
        return 0;
    };
    let is_enabled = |logger: &L| logger.enabled(callsite, Parent::of(span));
    // SAFETY: the plugin passes the context of its table.
    u32::from(unsafe { with_logger(context, is_enabled) } == Some(true))
}

unsafe extern "C" fn event<L: Logger>(context: *const c_void, event: *const abi::Entry) {
    // SAFETY: the plugin passes an entry that is valid until this function returns.
    let (callsite, entry) = unsafe { entry_view(event) };
    // SAFETY: the plugin passes a handle that `register` has returned, or null.
    let Some(callsite) = (unsafe { callsite_ref::<L>(callsite) }) else {
        return;
    };
    // SAFETY: the plugin passes the context of its table.
    let _ = unsafe { with_logger(context, |logger: &L| logger.event(callsite, entry)) };
}

unsafe extern "C" fn new_span<L: Logger>(context: *const c_void, span: *const abi::Entry) -> u64 {
    // SAFETY: the plugin passes an entry that is valid until this function returns.
    let (callsite, entry) = unsafe { entry_view(span) };
    // SAFETY: the plugin passes a handle that `register` has returned, or null.
    let Some(callsite) = (unsafe { callsite_ref::<L>(callsite) }) else {
        return 0;
    };
    // SAFETY: the plugin passes the context of its table.
    unsafe { with_logger(context, |logger: &L| logger.new_span(callsite, entry)) }.unwrap_or(0)
}

unsafe extern "C" fn record<L: Logger>(context: *const c_void, values: *const abi::Entry) {
    // SAFETY: the plugin passes an entry that is valid until this function returns.
    let (_, entry) = unsafe { entry_view(values) };
    if let Parent::Span(span) = entry.parent {
        // SAFETY: the plugin passes the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.record(span, entry.fields)) };
    }
}

unsafe extern "C" fn follows_from<L: Logger>(context: *const c_void, span: u64, cause: u64) {
    if let (Parent::Span(span), Parent::Span(cause)) = (Parent::of(span), Parent::of(cause)) {
        // SAFETY: the plugin passes the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.follows_from(span, cause)) };
    }
}

unsafe extern "C" fn clone_span<L: Logger>(context: *const c_void, span: u64) {
    if let Parent::Span(span) = Parent::of(span) {
        // SAFETY: the plugin passes the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.clone_span(span)) };
    }
}

unsafe extern "C" fn close_span<L: Logger>(context: *const c_void, span: u64) -> u32 {
    let Parent::Span(span) = Parent::of(span) else {
        return 0;
    };
    // SAFETY: the plugin passes the context of its table.
    u32::from(unsafe { with_logger(context, |logger: &L| logger.close_span(span)) } == Some(true))
}

unsafe extern "C" fn request_span<L: Logger>(context: *const c_void) -> u64 {
    // SAFETY: the plugin passes the context of its table.
    let span = unsafe { with_logger(context, |logger: &L| logger.request_span()) };
    span.flatten().unwrap_or(0)
}

unsafe extern "C" fn span_callsite<L: Logger>(context: *const c_void, span: u64) -> *const c_void {
    let Parent::Span(span) = Parent::of(span) else {
        return std::ptr::null();
    };
    // SAFETY: the plugin passes the context of its table.
    let callsite = unsafe { with_logger(context, |logger: &L| logger.span_callsite(span)) };
    callsite.flatten().map_or(std::ptr::null(), |callsite| {
        std::ptr::from_ref(callsite).cast()
    })
}

unsafe extern "C" fn panicked<L: Logger>(context: *const c_void, panic: *const abi::Panic) {
    // SAFETY: the plugin passes the context of its table. `host_table` has made the context from a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    // SAFETY: the plugin passes a panic that is valid until this function returns.
    let panic = unsafe { &*panic };
    // SAFETY: the slices of the panic are valid until this function returns.
    let text = |slice: abi::Slice| unsafe { slice.text() };
    let _ = HostBoundary.run(|| {
        logger.panicked(&Panic {
            message: text(panic.message).unwrap_or_default(),
            location: (text(panic.file), panic.line, panic.column),
            thread: text(panic.thread),
            backtrace: text(panic.backtrace),
            parent: Parent::of(panic.span),
        });
    });
}
