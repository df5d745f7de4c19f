//! The functions of the plugin's table, which the host calls: pointers become references here, and all else is safe
//! code elsewhere.

use std::{ffi::c_void, marker::PhantomData, time::Duration};

use abi_stable::{
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};

use super::{
    AppFuture, Context,
    call::{self, Start},
    context::Facts,
    life::{self, Guest},
    logger::{self, HostLog, Logger},
    native, panic_report,
};
use crate::{
    Level,
    abi::{
        self, CallContext, CallSlot, HandOver, HandedOver, Init, Initialized, Plugin, Request,
        RequestView, Stop, Stopped,
        v1::{Root, RootRef},
    },
    panics::{self, catch},
};

/// The author's function as a type, so that the functions of the table can be made for it.
/// [`export_app!`](crate::export_app) implements this.
pub trait Entry: 'static {
    /// The plugin's version.
    const VERSION: &'static str;

    /// Calls the author's function.
    fn build(context: Context) -> AppFuture;
}

/// The header by which abi_stable finds and checks the root module.
///
/// abi_stable has an attribute that writes out the same, but needs abi_stable among the author's dependencies.
#[must_use]
pub const fn lib_header<E: Entry>() -> LibHeader {
    extern "C" fn root<E: Entry>() -> RootModuleResult {
        __call_root_module_loader(|| {
            Root {
                plugin: plugin::<E>,
            }
            .leak_into_prefix()
        })
    }
    extern "C" fn plugin<E: Entry>() -> *const () {
        std::ptr::from_ref(Table::<E>::PLUGIN).cast()
    }
    // SAFETY: `root` gives a `RootRef`.
    unsafe { LibHeader::from_constructor::<RootRef>(root::<E>, CheckTypeLayout::Yes) }
}

struct Table<E>(PhantomData<E>);

impl<E: Entry> Table<E> {
    const PLUGIN: &'static Plugin = &Plugin {
        size: size_of::<Plugin>(),
        init: init::<E>,
        call,
        poll: poll_call,
        cancel,
        set_level,
        stop,
        hand_over,
        drain: Some(drain),
        look_after: Some(look_after),
        go_on: Some(go_on),
        alone: Some(alone),
    };
}

unsafe extern "C" fn init<E: Entry>(init: *const Init, out: *mut Initialized) -> u32 {
    // SAFETY: the host lends it for the call.
    let init = unsafe { Init::whole(init) };
    // SAFETY: the host's table stays for ever.
    let host = unsafe { HostLog::new(init.host) };
    // SAFETY: what `init` borrows is valid for the call.
    let (facts, settings) = unsafe { told::<E>(&init) };
    panic_report::install(host);
    let started = life::caught(|| {
        Logger::install(host);
        Guest::start(E::build, facts, &settings)
    });
    panics::keep_hook();
    // A rival's code is asked about callsites, and may panic.
    let _ = catch(logger::check_for_rivals);
    let failed = u32::from(started.is_err());
    let answer = match started {
        Ok(guest) => Initialized {
            hands_over: guest.hands_over().into(),
            app: Box::into_raw(Box::new(guest)).cast(),
            asks_for_headers: 1,
            ..Initialized::new()
        },
        Err(error) => Initialized {
            message: life::message(&*error).into(),
            ..Initialized::new()
        },
    };
    // SAFETY: the host gives room for the answer.
    unsafe { answer.give(out) };
    failed
}

/// The facts and settings of an app that starts.
///
/// # Safety
///
/// What `init` borrows is valid until this returns.
unsafe fn told<E: Entry>(init: &Init) -> (Facts, life::Settings) {
    // SAFETY: the caller says so.
    let text = |slice: abi::Slice| unsafe { slice.text() }.unwrap_or_default().to_owned();
    // SAFETY: the caller says so.
    let bytes = |slice: abi::Slice| unsafe { slice.some_bytes() }.map(<[u8]>::to_vec);
    let facts = Facts {
        name: text(init.name),
        mount: text(init.mount),
        version: E::VERSION,
        generation: init.generation,
        config: bytes(init.config),
        previous_state: bytes(init.previous_state),
        is_second: init.is_second != 0,
    };
    let settings = life::Settings {
        thread_name: text(init.thread_name),
        threads: init.worker_threads.max(1) as usize,
        timeout: Duration::from_millis(init.timeout_ms),
    };
    (facts, settings)
}

/// The app behind the pointer that [`init`] gave the host.
///
/// # Safety
///
/// `app` is such a pointer, and the app is not dropped before `'a` ends.
unsafe fn guest<'a>(app: *mut c_void) -> &'a Guest {
    // SAFETY: the caller says so.
    unsafe { &*app.cast::<Guest>() }
}

unsafe extern "C" fn call(
    app: *mut c_void,
    request: *const Request,
    slot: *mut CallSlot,
    context: *const CallContext,
) -> u32 {
    // SAFETY: the host does not drop an app with a request in it.
    let guest = unsafe { guest(app) };
    let mut older = None;
    // SAFETY: the host lends it for the call.
    let request = unsafe { Request::lent(request, &mut older) };
    // SAFETY: as above.
    let context = unsafe { &*context };
    let runtime = guest.runtime().entered();
    let start = || {
        // SAFETY: the host lends what the request borrows, and gives the body.
        let request = native::Request::new(unsafe { RequestView::new(request) });
        let start = Start {
            slot,
            context,
            runtime,
        };
        guest.app().call(request, start)
    };
    // SAFETY: the host lends the slot; `Start` fills it when the call is pending.
    unsafe { call::step(runtime, slot, start) }
}

unsafe extern "C" fn poll_call(slot: *mut CallSlot, context: *const CallContext) -> u32 {
    // SAFETY: the host lends it for the call.
    let context = unsafe { &*context };
    // SAFETY: the host lends the slot, which holds a pending call.
    unsafe { call::poll_pending(slot, context) }
}

unsafe extern "C" fn cancel(slot: *mut CallSlot) {
    // SAFETY: the host lends the slot, which holds a pending call.
    unsafe { call::cancel(slot) };
}

unsafe extern "C" fn set_level(level: u32) {
    // A level of a later version is at least as verbose as all that this one knows.
    let level = Level::from_number(level).unwrap_or(Level::Trace);
    let _ = catch(|| logger::set_level(level));
}

unsafe extern "C" fn hand_over(
    app: *mut c_void,
    ask: *const HandOver,
    out: *mut HandedOver,
) -> u32 {
    // SAFETY: the host lends it for the call.
    let ask = unsafe { &*ask };
    // SAFETY: the host gives room for the answer.
    let out = unsafe { &mut *out };
    // SAFETY: the app is not yet dropped.
    let guest = unsafe { guest(app) };
    match guest.hand_over(Duration::from_millis(ask.timeout_ms)) {
        Ok(state) => {
            out.state = bytes::Bytes::from(state).into();
            0
        }
        Err(message) => {
            out.message = message.into();
            1
        }
    }
}

unsafe extern "C" fn drain(app: *mut c_void, draining: u32) {
    // SAFETY: the app is not yet dropped.
    unsafe { guest(app) }.drain(draining != 0);
}

unsafe extern "C" fn look_after(app: *mut c_void) {
    // SAFETY: the app is not yet dropped.
    unsafe { guest(app) }.look_after();
}

unsafe extern "C" fn go_on(app: *mut c_void, timeout_ms: u64) {
    // SAFETY: the app is not yet dropped.
    unsafe { guest(app) }.go_on(Duration::from_millis(timeout_ms));
}

unsafe extern "C" fn alone(app: *mut c_void) {
    // SAFETY: the app is not yet dropped.
    unsafe { guest(app) }.previous_ended();
}

unsafe extern "C" fn stop(app: *mut c_void, stop: *const Stop, out: *mut Stopped) {
    // SAFETY: the host lends it for the call.
    let stop = unsafe { &*stop };
    // SAFETY: the host gives room for the answer.
    let out = unsafe { &mut *out };
    // SAFETY: the app is stopped once, and dropped below.
    let ending = unsafe { guest(app) }.end(Duration::from_millis(stop.timeout_ms));
    if stop.idle != 0 {
        // SAFETY: no call is left, so nobody else looks at the app, and nobody will.
        let guest = unsafe { Box::from_raw(app.cast::<Guest>()) };
        ending.drop_app(guest);
    }
    out.timed_out = ending.timed_out().into();
    out.tasks = ending.finish();
}
