//! The host's functions for logging, as safe methods.

use std::{ffi::c_void, ptr};

use crate::abi::{self, Callsite, Entry, Registered};

/// The host's table of functions, with which this library logs.
///
/// The methods are those of [`abi::Host`]. Each method passes the context of the same table, and its arguments are
/// valid until the function returns. The host lets any thread call these functions at any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLog(&'static abi::Host);

// SAFETY: the contract of `abi::Host` lets any thread call its functions at any time.
unsafe impl Send for HostLog {}
// SAFETY: the contract of `abi::Host` lets any thread call its functions at any time.
unsafe impl Sync for HostLog {}

/// The host's handle of a callsite: an opaque pointer that only the host may dereference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallsiteHandle(pub(super) *const c_void);

// SAFETY: only the host dereferences the pointer, and it accepts the pointer from any thread.
unsafe impl Send for CallsiteHandle {}
// SAFETY: only the host dereferences the pointer, and it accepts the pointer from any thread.
unsafe impl Sync for CallsiteHandle {}

impl CallsiteHandle {
    /// A null handle, for values of an existing span ([`HostLog::record`]) and for a callsite that is not registered
    /// yet.
    pub(super) const NULL: Self = Self(ptr::null());
}

impl HostLog {
    /// Creates the methods for the host's table.
    ///
    /// # Safety
    ///
    /// `host` points to a table that satisfies the contract of [`abi::Host`] and is never freed.
    pub(crate) unsafe fn new(host: *const abi::Host) -> Self {
        // SAFETY: the caller guarantees that the table is never freed.
        Self(unsafe { &*host })
    }

    /// Registers a callsite. Returns the host's handle, and the interest: a constant of [`Registered`].
    pub(super) fn register(self, callsite: &Callsite) -> (CallsiteHandle, u32) {
        // SAFETY: the context belongs to the table, and the callsite is valid until the call returns.
        let Registered { callsite, interest } =
            unsafe { (self.0.register)(self.0.context, callsite) };
        (CallsiteHandle(callsite), interest)
    }

    /// Returns whether the host wants an entry now. `span` has the values of [`Entry::span`].
    pub(super) fn enabled(self, callsite: CallsiteHandle, span: u64) -> bool {
        // SAFETY: the context belongs to the table, and the handle comes from `register`.
        unsafe { (self.0.enabled)(self.0.context, callsite.0, span) != 0 }
    }

    /// Logs an event.
    pub(super) fn event(self, event: &Entry) {
        // SAFETY: the context belongs to the table, and the entry is valid until the call returns.
        unsafe { (self.0.event)(self.0.context, event) }
    }

    /// Creates a span, and returns its number, or 0 if the host creates no span.
    pub(super) fn new_span(self, span: &Entry) -> u64 {
        // SAFETY: the context belongs to the table, and the entry is valid until the call returns.
        unsafe { (self.0.new_span)(self.0.context, span) }
    }

    /// Adds values to an existing span.
    pub(super) fn record(self, values: &Entry) {
        // SAFETY: the context belongs to the table, and the entry is valid until the call returns.
        unsafe { (self.0.record)(self.0.context, values) }
    }

    /// Records that the span `cause` has caused `span`.
    pub(super) fn follows_from(self, span: u64, cause: u64) {
        // SAFETY: the context belongs to the table. The host looks the number of the span up.
        unsafe { (self.0.follows_from)(self.0.context, span, cause) }
    }

    /// Adds a handle to a span.
    pub(super) fn clone_span(self, span: u64) {
        // SAFETY: the context belongs to the table. The host looks the number of the span up.
        unsafe { (self.0.clone_span)(self.0.context, span) }
    }

    /// Releases a handle of a span. Returns whether this was the last handle.
    pub(super) fn close_span(self, span: u64) -> bool {
        // SAFETY: the context belongs to the table. The host looks the number of the span up.
        unsafe { (self.0.close_span)(self.0.context, span) != 0 }
    }

    /// Returns the span of the request on which this thread works, or 0 if there is no such request.
    pub(super) fn request_span(self) -> u64 {
        // SAFETY: the context belongs to the table.
        unsafe { (self.0.request_span)(self.0.context) }
    }

    /// Returns the callsite of a span, or null if this library did not create the span.
    pub(super) fn span_callsite(self, span: u64) -> CallsiteHandle {
        // SAFETY: the context belongs to the table. The host looks the number of the span up.
        CallsiteHandle(unsafe { (self.0.span_callsite)(self.0.context, span) })
    }

    /// Reports a panic.
    pub(crate) fn panicked(self, panic: &abi::Panic) {
        // SAFETY: the context belongs to the table, and the panic is valid until the call returns.
        unsafe { (self.0.panicked)(self.0.context, panic) }
    }
}
