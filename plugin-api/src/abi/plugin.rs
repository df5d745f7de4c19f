//! The two tables of functions: the host calls those of [`Plugin`], and the plugin calls those of [`Host`].

use std::{ffi::c_void, mem::ManuallyDrop, ptr};

use super::{
    CallContext, CallSlot, Callsite, Entry, OwnedBytes, Panic, Registered, Request, Slice,
};

/// The functions of a plugin. The table is a static of the library, which is never unloaded.
///
/// The host calls `set_level` first, then `init` once. After that, any thread of the host may call the other functions.
/// The last one is `stop`, once. The host may call `set_level` at any time until the process ends, because threads that
/// outlive their app may still log.
#[repr(C)]
#[derive(Debug)]
pub struct Plugin {
    /// The size of this table in bytes.
    pub size: usize,
    /// Starts the app. The host calls this on a thread that may block. Returns 0 and sets `out.app`, or returns another
    /// number and sets `out.message` to the error.
    pub init: unsafe extern "C" fn(init: *const Init, out: *mut Initialized) -> u32,
    /// Starts a call and polls the call once.
    ///
    /// [`READY`](super::poll::READY): the plugin has passed the response to [`CallContext::respond`].
    /// [`PENDING`](super::poll::PENDING): `slot` now holds the call. The host continues with `poll`, or ends the call
    /// with `cancel`. Any other result: the call has failed, and `slot` is empty.
    pub call: unsafe extern "C" fn(
        app: *mut c_void,
        request: *const Request,
        slot: *mut CallSlot,
        context: *const CallContext,
    ) -> u32,
    /// Polls a pending call. Any result except `PENDING` ends the call and empties the slot.
    pub poll: unsafe extern "C" fn(slot: *mut CallSlot, context: *const CallContext) -> u32,
    /// Aborts a pending call and empties the slot, for example when the client has disconnected.
    pub cancel: unsafe extern "C" fn(slot: *mut CallSlot),
    /// Sets the most verbose level in force. `level` has the numbers of [`Callsite::level`]. The plugin registers each
    /// of its callsites again before this function returns, because the interest of the host may have changed.
    pub set_level: unsafe extern "C" fn(level: u32),
    /// Stops the app: runs the shutdown hooks, cancels the background tasks, and shuts down the runtime. The host calls
    /// this on a thread that may block.
    pub stop: unsafe extern "C" fn(app: *mut c_void, stop: *const Stop, out: *mut Stopped),
    /// Returns the state with which the next generation starts. Only for an app that
    /// [hands over](Initialized::hands_over). Returns 0 and sets `out.state`, or returns another number and sets
    /// `out.message` to the error.
    ///
    /// The host calls this on a thread that may block, and while no call is in the app. The app keeps its own state,
    /// because the app continues to serve if the next generation does not start.
    pub hand_over: unsafe extern "C" fn(
        app: *mut c_void,
        request: *const HandOver,
        out: *mut HandedOver,
    ) -> u32,
    /// Starts or ends the draining of an app. `draining` is 1: no more requests will come, and the app should finish
    /// its current work. `draining` is 0: the app continues to serve. Returns without blocking. The host may call this
    /// several times, but not after `stop`.
    ///
    /// Since 1.3. Present only if `size` covers this field.
    pub drain: Option<unsafe extern "C" fn(app: *mut c_void, draining: u32)>,
    /// Makes the app's runtime wake an idle thread if another thread of the runtime is blocked. Only one thread of the
    /// runtime waits for timers and sockets, and this may be the blocked thread.
    ///
    /// The host calls this about every 50 ms, never from two threads at the same time, and not after `stop`. Returns
    /// without blocking, and runs no code of the author.
    ///
    /// Since 1.4. Present only if `size` covers this field.
    pub look_after: Option<unsafe extern "C" fn(app: *mut c_void)>,
    /// Notifies an app whose `hand_over` was called that no new generation replaces it. The app can then acquire again
    /// the resources that it has released for the handover. Returns when the app has done so, or after `timeout_ms`
    /// milliseconds.
    ///
    /// The host calls this on a thread that may block, and before it lets requests into the app again.
    ///
    /// Since 1.4. Present only if `size` covers this field.
    pub go_on: Option<unsafe extern "C" fn(app: *mut c_void, timeout_ms: u64)>,
    /// Notifies an app that was started while earlier generations were running ([`Init::is_second`]) that all of them
    /// have ended. Returns without blocking.
    ///
    /// Since 1.4. Present only if `size` covers this field.
    pub alone: Option<unsafe extern "C" fn(app: *mut c_void)>,
}

#[cfg(any(feature = "host", test))]
impl Plugin {
    /// The size in bytes of the table of ABI 1.0, whose last field is `hand_over`. The fields after it are optional.
    pub(crate) const SIZE_1_0: usize = std::mem::offset_of!(Self, hand_over) + size_of::<usize>();

    /// Returns a copy of a library's table. Functions that an older library does not have are `None`.
    ///
    /// # Errors
    ///
    /// Returns the size of `table` if it is smaller than [`Self::SIZE_1_0`].
    ///
    /// # Safety
    ///
    /// `table` points to as many readable bytes as its `size` field claims.
    pub(crate) unsafe fn copy_padded(table: *const Self) -> Result<Self, usize> {
        // The table is read through the raw pointer, because a reference would claim that all fields of `Self` are
        // readable, and the table of an older library is shorter.
        // SAFETY: every table begins with its size.
        let size = unsafe { (*table).size };
        if size < Self::SIZE_1_0 {
            return Err(size);
        }
        let mut padded = std::mem::MaybeUninit::<Self>::zeroed();
        let bytes = size.min(size_of::<Self>());
        // SAFETY: source and destination both have at least `bytes` bytes.
        unsafe { ptr::copy_nonoverlapping(table.cast::<u8>(), padded.as_mut_ptr().cast(), bytes) };
        // SAFETY: all functions of ABI 1.0 are copied, and zero means `None` for each later function.
        Ok(unsafe { padded.assume_init() })
    }
}

/// The functions of the host.
///
/// The host never frees the table and its context. Any thread of the plugin may call these functions at any time, even
/// after the app was stopped. The functions do not block for long and do not unwind.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// The size of this table in bytes.
    pub size: usize,
    /// The first argument of the functions below. Belongs to one generation of the plugin. Only the host may
    /// dereference this pointer.
    pub context: *const c_void,
    /// Registers a callsite. Returns the host's handle of the callsite, and whether the host wants its entries.
    pub register:
        unsafe extern "C" fn(context: *const c_void, callsite: *const Callsite) -> Registered,
    /// Returns a non-zero number if the host wants an entry now, otherwise 0. The plugin calls this for each entry of a
    /// callsite whose interest is [`Registered::SOMETIMES`]. `span` has the values of [`Entry::span`].
    pub enabled:
        unsafe extern "C" fn(context: *const c_void, callsite: *const c_void, span: u64) -> u32,
    /// Logs an event.
    pub event: unsafe extern "C" fn(context: *const c_void, event: *const Entry),
    /// Creates a span and returns its number, or 0 if the host creates no span. The plugin owns one handle of the new
    /// span.
    pub new_span: unsafe extern "C" fn(context: *const c_void, span: *const Entry) -> u64,
    /// Adds values to the existing span [`Entry::span`].
    pub record: unsafe extern "C" fn(context: *const c_void, values: *const Entry),
    /// Records that the span `cause` has caused `span`. `cause` need not be the parent of `span`.
    pub follows_from: unsafe extern "C" fn(context: *const c_void, span: u64, cause: u64),
    /// Adds a handle to a span.
    pub clone_span: unsafe extern "C" fn(context: *const c_void, span: u64),
    /// Releases a handle of a span. Returns a non-zero number if this was the last handle and the span has ended;
    /// otherwise 0.
    pub close_span: unsafe extern "C" fn(context: *const c_void, span: u64) -> u32,
    /// Returns the span of the request on which the current thread works, or 0 if there is no such request. The host
    /// owns the handle of this span.
    pub request_span: unsafe extern "C" fn(context: *const c_void) -> u64,
    /// Returns the handle that `register` has returned for the callsite of a span. Returns null if the plugin did not
    /// create the span.
    pub span_callsite: unsafe extern "C" fn(context: *const c_void, span: u64) -> *const c_void,
    /// Reports a panic of any thread and any code of the plugin.
    pub panicked: unsafe extern "C" fn(context: *const c_void, panic: *const Panic),
}

/// The parameters of [`Plugin::init`]. Borrowed until that function returns, except `host`, which is never freed.
#[repr(C)]
#[derive(Debug)]
pub struct Init {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The functions of the host. Never freed.
    pub host: *const Host,
    /// The app's name, as text.
    pub name: Slice,
    /// The app's mount, as text.
    pub mount: Slice,
    /// The operator's configuration for this app: a JSON object, or absent.
    pub config: Slice,
    /// The state that the previous generation has handed over, or absent.
    pub previous_state: Slice,
    /// The name for the threads of the plugin's runtime, as text of at most 15 bytes. The host identifies the threads
    /// of an app by this name.
    pub thread_name: Slice,
    /// The number of the generation: 1 for the first load of the app.
    pub generation: u64,
    /// The time limit for the start, in milliseconds; 0 for no limit.
    pub timeout_ms: u64,
    /// The number of threads of the plugin's runtime.
    pub worker_threads: u32,
    /// 1 if an earlier generation of the app has not ended yet; otherwise 0. [`Plugin::alone`] later notifies the app
    /// that the earlier generations have ended.
    ///
    /// Since 1.4. Present only if `size` covers this field. A `u64`, because a `u32` would lie in the padding at the
    /// end of the older struct, which `size` of the older struct covers too.
    pub is_second: u64,
}

impl Init {
    /// Returns a copy of the host's parameters. Fields that an older host does not have are zero.
    ///
    /// # Safety
    ///
    /// `init` points to as many readable bytes as its `size` field claims.
    pub(crate) unsafe fn copy_padded(init: *const Self) -> Self {
        // The struct is read through the raw pointer, because a reference would claim that all fields of `Self` are
        // readable, and the struct of an older host is shorter.
        // SAFETY: every `Init` begins with its size.
        let size = unsafe { (*init).size };
        let mut padded = std::mem::MaybeUninit::<Self>::zeroed();
        let bytes = size.min(size_of::<Self>());
        // SAFETY: source and destination both have at least `bytes` bytes.
        unsafe { ptr::copy_nonoverlapping(init.cast::<u8>(), padded.as_mut_ptr().cast(), bytes) };
        // SAFETY: all fields of ABI 1.0 are copied, and zero is a valid value of each later field.
        unsafe { padded.assume_init() }
    }
}

/// The result of [`Plugin::init`]. The host creates an empty result, and the plugin sets its fields. The host owns the
/// result after the call.
#[repr(C)]
#[derive(Debug)]
pub struct Initialized {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The app, as the first argument of the other functions of [`Plugin`]; null if the start has failed.
    pub app: *mut c_void,
    /// The error text if the start has failed; otherwise empty.
    pub message: OwnedBytes,
    /// 1 if the app has state for its next generation ([`Plugin::hand_over`]); otherwise 0.
    pub hands_over: u32,
    /// 1 if the plugin calls [`Request::lay_out`] when the app needs the header fields of a request. The host then does
    /// not convert the header fields before each call.
    ///
    /// Since 1.2. Present only if `size` covers this field. A `u64`, because a `u32` would lie in the padding at the
    /// end of the older struct, which `size` of the older struct covers too.
    pub asks_for_headers: u64,
}

impl Initialized {
    /// Returns an empty result.
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

    /// Moves the result to the host's `out`. Leaves out the fields that an older host does not have.
    ///
    /// # Safety
    ///
    /// `out` points to as many writable bytes as its `size` field claims, and holds an empty result.
    pub(crate) unsafe fn copy_to(self, out: *mut Self) {
        // The copy in `out` owns `message`, so this value must not be dropped.
        let mut result = ManuallyDrop::new(self);
        // The host's `size` stays as it is.
        // SAFETY: every `Initialized` begins with its size.
        result.size = unsafe { (*out).size };
        let bytes = result.size.min(size_of::<Self>());
        let result = (&raw const result).cast::<u8>();
        // SAFETY: source and destination both have at least `bytes` bytes.
        unsafe { ptr::copy_nonoverlapping(result, out.cast(), bytes) };
    }
}

impl Default for Initialized {
    fn default() -> Self {
        Self::new()
    }
}

/// The parameters of [`Plugin::hand_over`]. Borrowed until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct HandOver {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The time limit for the app's handover hook, in milliseconds.
    pub timeout_ms: u64,
}

/// The result of [`Plugin::hand_over`]. The host creates an empty result, and the plugin sets its fields. The host owns
/// the result after the call.
#[repr(C)]
#[derive(Debug)]
pub struct HandedOver {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The state, in a format that the author has chosen. The host does not interpret these bytes.
    pub state: OwnedBytes,
    /// The error text if the app returned no state; otherwise empty.
    pub message: OwnedBytes,
}

/// The parameters of [`Plugin::stop`]. Borrowed until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Stop {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The time limit for the whole stop, in milliseconds.
    pub timeout_ms: u64,
    /// 1 if no call is in the app: the plugin drops the app. 0 if a call is still in the app: the plugin must not drop
    /// the app, because the call uses it.
    pub idle: u32,
}

/// The result of [`Plugin::stop`]. The host creates an empty result, and the plugin sets its fields.
#[repr(C)]
#[derive(Debug)]
pub struct Stopped {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The number of background tasks that the plugin has cancelled.
    pub tasks: u64,
    /// 1 if a shutdown hook did not end in time; otherwise 0.
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
        table[0] = Plugin::SIZE_1_0;
        // SAFETY: `table` has at least as many bytes as its size claims. The test calls none of its functions.
        let copy = unsafe { Plugin::copy_padded(table.as_ptr().cast()) };
        let copy = copy.unwrap();
        assert!(copy.drain.is_none() && copy.alone.is_none());
        table[0] = size_of::<Plugin>();
        // SAFETY: `table` has as many bytes as its size claims.
        let copy = unsafe { Plugin::copy_padded(table.as_ptr().cast()) };
        let copy = copy.unwrap();
        assert!(copy.drain.is_some() && copy.alone.is_some());
        table[0] = 56;
        // SAFETY: `table` has more bytes than its size claims.
        let copy = unsafe { Plugin::copy_padded(table.as_ptr().cast()) };
        assert_eq!(copy.unwrap_err(), 56);
    }

    #[test]
    fn an_older_host_is_given_as_much_as_it_has_room_for() {
        // 80 bytes, the length of the result of ABI 1.0, and one word after them.
        let mut room = [0_usize; 11];
        room[0] = 80;
        let answer = Initialized {
            hands_over: 1,
            asks_for_headers: 1,
            ..Initialized::new()
        };
        let out: *mut Initialized = room.as_mut_ptr().cast();
        // SAFETY: `room` has more than the 80 bytes that its size claims.
        unsafe { answer.copy_to(out) };
        // SAFETY: `hands_over` is within the 80 bytes.
        assert_eq!(unsafe { (*out).hands_over }, 1);
        assert_eq!((room[0], room[10]), (80, 0));
    }
}
