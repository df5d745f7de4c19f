//! The two tables of functions: the plugin's, which the host calls, and the host's, which the
//! plugin calls.

use std::{ffi::c_void, mem::ManuallyDrop, ptr};

use super::{
    CallContext, CallSlot, Callsite, Entry, OwnedBytes, Panic, Registered, Request, Slice,
};

/// The functions of a plugin. Static in the library, which is never unloaded.
///
/// The life of an app: `set_level`, and `init` once; then `call`, `poll`, `cancel`, `hand_over` and
/// `drain` from any threads; then `stop` once. `set_level` may come at any time, for the rest of the
/// process: what is left of an app, such as a thread that does not end, still logs.
#[repr(C)]
#[derive(Debug)]
pub struct Plugin {
    /// The size of this table in bytes.
    pub size: usize,
    /// Starts the app, on a thread that may block. 0: `out.app` is the app. Anything else:
    /// `out.message` says why not.
    pub init: unsafe extern "C" fn(init: *const Init, out: *mut Initialized) -> u32,
    /// Starts a request and polls it once. [`READY`](super::poll::READY): the response was given to
    /// `context`. [`PENDING`](super::poll::PENDING): `slot` now holds the call, and goes on with
    /// `poll` or ends with `cancel`.
    pub call: unsafe extern "C" fn(
        app: *mut c_void,
        request: *const Request,
        slot: *mut CallSlot,
        context: *const CallContext,
    ) -> u32,
    /// Polls a call that is pending. Anything but `PENDING` ends it and empties the slot.
    pub poll: unsafe extern "C" fn(slot: *mut CallSlot, context: *const CallContext) -> u32,
    /// Ends a call that is pending, as when the client went away.
    pub cancel: unsafe extern "C" fn(slot: *mut CallSlot),
    /// Tells the library the most verbose level in force (see [`Callsite::level`]); it asks anew
    /// about each callsite before this returns.
    pub set_level: unsafe extern "C" fn(level: u32),
    /// Ends the app: its shutdown hooks, its background tasks, its runtime. On a thread that may
    /// block.
    pub stop: unsafe extern "C" fn(app: *mut c_void, stop: *const Stop, out: *mut Stopped),
    /// Asks an app that [hands over](Initialized::hands_over) for the state that the next
    /// generation is to start with, on a thread that may block, and while no call is in the app.
    /// 0: `out.state` is the state. Anything else: `out.message` says why there is none. The app
    /// keeps its own state: it goes on with it when the next generation does not start.
    pub hand_over:
        unsafe extern "C" fn(app: *mut c_void, ask: *const HandOver, out: *mut HandedOver) -> u32,
    /// Since 1.3, where `size` covers it: tells the app whether it is to finish what it has (1), as
    /// no more requests are to come, or goes on after all (0). It returns at once, may come more than
    /// once, and not after `stop`.
    pub drain: Option<unsafe extern "C" fn(app: *mut c_void, draining: u32)>,
    /// Since 1.4, where `size` covers it: has the app's runtime wake an idle thread if another one is
    /// blocked, so that somebody waits for timers and sockets. Called every 50 ms or so, by one thread at a
    /// time, and not after `stop` was called. It returns at once, and runs none of the author's code.
    pub look_after: Option<unsafe extern "C" fn(app: *mut c_void)>,
    /// Since 1.4, where `size` covers it: tells an app whose `hand_over` was called that no new generation
    /// takes its place, so that it can take back what it let go of. On a thread that may block, and before
    /// any request is let in again. It returns when the app has done so, or after `timeout_ms` milliseconds.
    pub go_on: Option<unsafe extern "C" fn(app: *mut c_void, timeout_ms: u64)>,
    /// Since 1.4, where `size` covers it: tells an app that was started beside others
    /// ([`Init::is_second`]) that they have ended. It returns at once.
    pub alone: Option<unsafe extern "C" fn(app: *mut c_void)>,
}

#[cfg(any(feature = "host", test))]
impl Plugin {
    /// How long the table of 1.0 is: up to its last function. What comes behind is optional.
    pub(crate) const FIRST: usize = std::mem::offset_of!(Self, hand_over) + size_of::<usize>();

    /// A copy of a library's table. Functions that an older library does not have are none.
    ///
    /// # Errors
    ///
    /// The size of a table that is shorter than that of 1.0.
    ///
    /// # Safety
    ///
    /// `table` is valid for as many bytes as its size says.
    pub(crate) unsafe fn whole(table: *const Self) -> Result<Self, usize> {
        // SAFETY: every table begins with its size.
        let size = unsafe { (*table).size };
        if size < Self::FIRST {
            return Err(size);
        }
        let mut whole = std::mem::MaybeUninit::<Self>::zeroed();
        let bytes = size.min(size_of::<Self>());
        // SAFETY: both are at least that long.
        unsafe { ptr::copy_nonoverlapping(table.cast::<u8>(), whole.as_mut_ptr().cast(), bytes) };
        // SAFETY: the functions of 1.0 are there, and a zero is `None` for each that came later.
        Ok(unsafe { whole.assume_init() })
    }
}

/// The functions of the host. The host keeps table and context for ever: any thread of the
/// plugin may call these at any time, even after the app was stopped. None of them blocks for long,
/// and none unwinds.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// The size of this table in bytes.
    pub size: usize,
    /// The host's, for this generation of this plugin; the first argument of the functions below.
    pub context: *const c_void,
    /// Tells of a place that logs, and asks whether it is wanted.
    pub register:
        unsafe extern "C" fn(context: *const c_void, callsite: *const Callsite) -> Registered,
    /// Whether an entry of a callsite that is wanted sometimes is wanted now; not 0 for yes. `span`
    /// is as in [`Entry`].
    pub enabled:
        unsafe extern "C" fn(context: *const c_void, callsite: *const c_void, span: u64) -> u32,
    /// Logs an event.
    pub event: unsafe extern "C" fn(context: *const c_void, event: *const Entry),
    /// Begins a span, which lasts until it is closed as often as it was begun and cloned. 0 when
    /// there is none.
    pub new_span: unsafe extern "C" fn(context: *const c_void, span: *const Entry) -> u64,
    /// Gives a span values that came later.
    pub record: unsafe extern "C" fn(context: *const c_void, values: *const Entry),
    /// Says that a span was caused by another, which need not be its parent.
    pub follows_from: unsafe extern "C" fn(context: *const c_void, span: u64, cause: u64),
    /// One more handle to a span.
    pub clone_span: unsafe extern "C" fn(context: *const c_void, span: u64),
    /// One handle less. Not 0 when it was the last.
    pub close_span: unsafe extern "C" fn(context: *const c_void, span: u64) -> u32,
    /// The span of the request that this thread works on, which is the host's to close, or 0.
    pub request_span: unsafe extern "C" fn(context: *const c_void) -> u64,
    /// The callsite of a span of the plugin's, as `register` gave it; null for others.
    pub span_callsite: unsafe extern "C" fn(context: *const c_void, span: u64) -> *const c_void,
    /// Tells of a panic, wherever in the plugin it happened.
    pub panicked: unsafe extern "C" fn(context: *const c_void, panic: *const Panic),
}

/// What an app starts with. Borrowed by [`Plugin::init`] until that returns, but for `host`.
#[repr(C)]
#[derive(Debug)]
pub struct Init {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The host's functions; valid for ever.
    pub host: *const Host,
    /// The app's name, as text.
    pub name: Slice,
    /// Where it is mounted, as text.
    pub mount: Slice,
    /// The operator's configuration for this app: a JSON object, or none.
    pub config: Slice,
    /// The state that the generation before handed over, or none.
    pub previous_state: Slice,
    /// What the threads of the plugin's runtime are to be named, as text of at most 15 bytes: the
    /// host knows them by it.
    pub thread_name: Slice,
    /// Which load of this app this is, from 1.
    pub generation: u64,
    /// How long starting may take, in milliseconds; 0 for no limit.
    pub timeout_ms: u64,
    /// How many threads the plugin's runtime has.
    pub worker_threads: u32,
    /// Since 1.4, where `size` covers it: 1 when an earlier generation of the app has not ended yet, of whose
    /// end the app is told by [`Plugin::alone`]. A `u64`, as it must not lie in the padding of the older
    /// struct.
    pub is_second: u64,
}

impl Init {
    /// What the host says, with zeros in place of what an older host does not have. A reference to what the
    /// host lends would promise all of this type.
    ///
    /// # Safety
    ///
    /// `init` is valid for as many bytes as its size says.
    pub(crate) unsafe fn whole(init: *const Self) -> Self {
        // SAFETY: every struct begins with its size.
        let size = unsafe { (*init).size };
        let mut whole = std::mem::MaybeUninit::<Self>::zeroed();
        let bytes = size.min(size_of::<Self>());
        // SAFETY: both are at least that long.
        unsafe { ptr::copy_nonoverlapping(init.cast::<u8>(), whole.as_mut_ptr().cast(), bytes) };
        // SAFETY: all that 1.0 has is there, and zeros are numbers.
        unsafe { whole.assume_init() }
    }
}

/// The result of [`Plugin::init`]. The host makes it, empty; the plugin fills it in; the host owns
/// it then.
#[repr(C)]
#[derive(Debug)]
pub struct Initialized {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The app: the first argument of the other functions.
    pub app: *mut c_void,
    /// Why there is none, as text.
    pub message: OwnedBytes,
    /// 1 when the app has state that the next generation is to start with.
    pub hands_over: u32,
    /// Since 1.2, where `size` covers it: 1 when the app asks for the header fields of a request
    /// that it wants to see ([`Request::lay_out`]), so that they need not be there before. A `u64`,
    /// as it must not lie in the padding of the older struct.
    pub asks_for_headers: u64,
}

impl Initialized {
    /// An empty result.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: size_of::<Self>(),
            app: ptr::null_mut(),
            message: OwnedBytes::EMPTY,
            hands_over: 0,
            asks_for_headers: 0,
        }
    }

    /// Copies the result to the host's `out`: as many bytes as the host's version has.
    ///
    /// # Safety
    ///
    /// `out` is valid for as many bytes as its size says, and empty.
    pub(crate) unsafe fn give(self, out: *mut Self) {
        let mut given = ManuallyDrop::new(self);
        // SAFETY: every struct begins with its size.
        given.size = unsafe { (*out).size };
        let bytes = given.size.min(size_of::<Self>());
        let given = (&raw const given).cast::<u8>();
        // SAFETY: both are at least that long.
        unsafe { ptr::copy_nonoverlapping(given, out.cast(), bytes) };
    }
}

impl Default for Initialized {
    fn default() -> Self {
        Self::new()
    }
}

/// How to hand over. Borrowed by [`Plugin::hand_over`] until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct HandOver {
    /// The size of this struct in bytes.
    pub size: usize,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The result of [`Plugin::hand_over`]. The host makes it, empty; the plugin fills it in; the host
/// owns it then.
#[repr(C)]
#[derive(Debug)]
pub struct HandedOver {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The state. Only the app's own generations know its form.
    pub state: OwnedBytes,
    /// Why there is none, as text.
    pub message: OwnedBytes,
}

/// How to end. Borrowed by [`Plugin::stop`] until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Stop {
    /// The size of this struct in bytes.
    pub size: usize,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// 1 when no call of the app is left, so that it can be dropped; 0 when one is stuck, and its
    /// state must stay.
    pub idle: u32,
}

/// The result of [`Plugin::stop`]. The host makes it, empty; the plugin fills it in.
#[repr(C)]
#[derive(Debug)]
pub struct Stopped {
    /// The size of this struct in bytes.
    pub size: usize,
    /// How many background tasks were cancelled.
    pub tasks: u64,
    /// 1 when a shutdown hook did not end in time.
    pub timed_out: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_1_0_has_no_function_that_came_later() {
        unsafe extern "C" fn any() {}
        let function = any as *const () as usize;
        let mut table = [function; 12];
        table[0] = Plugin::FIRST;
        // SAFETY: it is as long as it says; nobody calls its functions.
        let whole = unsafe { Plugin::whole(table.as_ptr().cast()) };
        let whole = whole.unwrap();
        assert!(whole.drain.is_none() && whole.alone.is_none());
        table[0] = size_of::<Plugin>();
        // SAFETY: as above.
        let whole = unsafe { Plugin::whole(table.as_ptr().cast()) };
        let whole = whole.unwrap();
        assert!(whole.drain.is_some() && whole.alone.is_some());
        table[0] = 56;
        // SAFETY: as above.
        let whole = unsafe { Plugin::whole(table.as_ptr().cast()) };
        assert_eq!(whole.unwrap_err(), 56);
    }

    #[test]
    fn an_older_host_is_given_as_much_as_it_has_room_for() {
        // As long as that of 1.0, and something behind it.
        let mut room = [0_usize; 11];
        room[0] = 80;
        let answer = Initialized {
            hands_over: 1,
            asks_for_headers: 1,
            ..Initialized::new()
        };
        let out: *mut Initialized = room.as_mut_ptr().cast();
        // SAFETY: there is as much room as it says.
        unsafe { answer.give(out) };
        // SAFETY: it is within the room.
        assert_eq!(unsafe { (*out).hands_over }, 1);
        assert_eq!((room[0], room[10]), (80, 0));
    }
}
