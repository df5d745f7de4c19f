//! The host's functions for logging, as calls.

use std::{ffi::c_void, ptr};

use crate::abi::{self, Callsite, Entry, Registered};

/// The host's functions, by which this library logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLog(&'static abi::Host);

// SAFETY: the host lets any thread call its functions at any time, with its context.
unsafe impl Send for HostLog {}
// SAFETY: as above.
unsafe impl Sync for HostLog {}

/// The host's handle of a callsite: an opaque pointer that only the host may dereference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostSite(pub(super) *const c_void);

// SAFETY: only the host dereferences the pointer, and it accepts the pointer from any thread.
unsafe impl Send for HostSite {}
// SAFETY: as above.
unsafe impl Sync for HostSite {}

impl HostSite {
    /// None.
    pub(super) const NONE: Self = Self(ptr::null());
}

impl HostLog {
    /// # Safety
    ///
    /// `host` points to a table that stays for ever.
    pub(crate) unsafe fn new(host: *const abi::Host) -> Self {
        // SAFETY: the caller says so.
        Self(unsafe { &*host })
    }

    /// The host's name for a callsite, and a constant of [`Registered`].
    pub(super) fn register(self, callsite: &Callsite) -> (HostSite, u32) {
        // SAFETY: the table is the host's, its context goes with it, and the callsite is borrowed
        // for the call.
        let Registered { callsite, interest } =
            unsafe { (self.0.register)(self.0.context, callsite) };
        (HostSite(callsite), interest)
    }

    pub(super) fn enabled(self, site: HostSite, span: u64) -> bool {
        // SAFETY: as above; the site came from the host.
        unsafe { (self.0.enabled)(self.0.context, site.0, span) != 0 }
    }

    pub(super) fn event(self, event: &Entry) {
        // SAFETY: as above.
        unsafe { (self.0.event)(self.0.context, event) }
    }

    pub(super) fn new_span(self, span: &Entry) -> u64 {
        // SAFETY: as above.
        unsafe { (self.0.new_span)(self.0.context, span) }
    }

    pub(super) fn record(self, values: &Entry) {
        // SAFETY: as above.
        unsafe { (self.0.record)(self.0.context, values) }
    }

    pub(super) fn follows_from(self, span: u64, cause: u64) {
        // SAFETY: as above. The host looks the numbers up.
        unsafe { (self.0.follows_from)(self.0.context, span, cause) }
    }

    pub(super) fn clone_span(self, span: u64) {
        // SAFETY: as above.
        unsafe { (self.0.clone_span)(self.0.context, span) }
    }

    pub(super) fn close_span(self, span: u64) -> bool {
        // SAFETY: as above.
        unsafe { (self.0.close_span)(self.0.context, span) != 0 }
    }

    pub(super) fn request_span(self) -> u64 {
        // SAFETY: as above.
        unsafe { (self.0.request_span)(self.0.context) }
    }

    pub(super) fn span_callsite(self, span: u64) -> HostSite {
        // SAFETY: as above.
        HostSite(unsafe { (self.0.span_callsite)(self.0.context, span) })
    }

    pub(crate) fn panicked(self, panic: &abi::Panic) {
        // SAFETY: as above.
        unsafe { (self.0.panicked)(self.0.context, panic) }
    }
}
