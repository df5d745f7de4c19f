//! The functions of the table [`Plugin`], which the host calls. Each function converts the host's pointers to
//! references, calls another module for the work, and converts the result to an ABI type.

use std::{ffi::c_void, marker::PhantomData, time::Duration};

use abi_stable::{
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};

use super::{
    AppFuture, Context,
    call::{self, CallStarter},
    context::ContextData,
    life::{self, StartedApp},
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

/// A type that stands for the author's function. The table contains `extern "C"` functions, which cannot capture a
/// value. A type parameter is therefore the only way by which these functions find the author's function.
/// [`export_app!`](crate::export_app) implements this trait.
pub trait ExportedApp: 'static {
    /// The plugin's version.
    const VERSION: &'static str;

    /// Returns the future that runs the author's function and returns its app.
    fn build(context: Context) -> AppFuture;
}

/// Returns the header through which abi_stable finds and checks the root module.
///
/// An attribute of abi_stable generates the same header. This crate does not use the attribute, because the generated
/// code works only in a crate that itself depends on abi_stable, and authors' crates do not.
#[must_use]
pub const fn lib_header<E: ExportedApp>() -> LibHeader {
    extern "C" fn root<E: ExportedApp>() -> RootModuleResult {
        __call_root_module_loader(|| {
            Root {
                plugin: plugin::<E>,
            }
            .leak_into_prefix()
        })
    }
    extern "C" fn plugin<E: ExportedApp>() -> *const () {
        std::ptr::from_ref(PluginTable::<E>::PLUGIN).cast()
    }
    // SAFETY: `root` returns a root module of the type `RootRef`.
    unsafe { LibHeader::from_constructor::<RootRef>(root::<E>, CheckTypeLayout::Yes) }
}

/// Holds the table of the app `E`. A constant of a generic type, because Rust has no generic statics.
struct PluginTable<E>(PhantomData<E>);

impl<E: ExportedApp> PluginTable<E> {
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

/// Implements [`Plugin::init`]. Returns 0 if the app has started, otherwise 1.
unsafe extern "C" fn init<E: ExportedApp>(init: *const Init, out: *mut Initialized) -> u32 {
    // SAFETY: the host passes an `Init` that is valid until this function returns.
    let init = unsafe { Init::copy_padded(init) };
    // SAFETY: the host never frees its table of functions.
    let host = unsafe { HostLog::new(init.host) };
    // SAFETY: the slices in the host's `Init` are valid until this function returns.
    let (data, settings) = unsafe { read_init::<E>(&init) };
    // Before the logger and the app, so that a panic of their start is reported to the host.
    panic_report::install(host);
    let started = life::catch_as_error(|| {
        // Before the app, because `tracing` and `log` keep the first subscriber and logger that are installed.
        Logger::install(host);
        StartedApp::start(E::build, data, &settings)
    });
    // The author's function may have replaced the panic hook.
    panics::restore_hook();
    // If the author's function has created a subscriber, this check calls the subscriber, which may panic.
    let _ = catch(logger::check_for_other_loggers);
    let failed = u32::from(started.is_err());
    let result = match started {
        Ok(app) => Initialized {
            hands_over: app.hands_over().into(),
            app: Box::into_raw(Box::new(app)).cast(),
            asks_for_headers: 1,
            ..Initialized::new()
        },
        Err(error) => Initialized {
            message: life::start_error_text(&*error).into(),
            ..Initialized::new()
        },
    };
    // SAFETY: the host passes an `out` that is writable and holds an empty result.
    unsafe { result.copy_to(out) };
    failed
}

/// Copies the parameters of the start out of `init`.
///
/// # Safety
///
/// The slices in `init` are valid until this function returns.
unsafe fn read_init<E: ExportedApp>(init: &Init) -> (ContextData, life::StartSettings) {
    // SAFETY: the caller guarantees that the slices are valid, and the text is copied before this function returns.
    let text = |slice: abi::Slice| unsafe { slice.text() }.unwrap_or_default().to_owned();
    // SAFETY: the caller guarantees that the slices are valid, and the bytes are copied before this function returns.
    let bytes = |slice: abi::Slice| unsafe { slice.optional_bytes() }.map(<[u8]>::to_vec);
    let data = ContextData {
        name: text(init.name),
        mount: text(init.mount),
        version: E::VERSION,
        generation: init.generation,
        config: bytes(init.config),
        previous_state: bytes(init.previous_state),
        has_predecessor: init.is_second != 0,
    };
    let settings = life::StartSettings {
        thread_name: text(init.thread_name),
        // tokio panics on 0 threads.
        worker_threads: init.worker_threads.max(1) as usize,
        timeout: Duration::from_millis(init.timeout_ms),
    };
    (data, settings)
}

/// Returns the app to which `app` points.
///
/// # Safety
///
/// `app` is the pointer that [`init`] has returned to the host, and the app is not dropped before `'a` ends.
unsafe fn started_app<'a>(app: *mut c_void) -> &'a StartedApp {
    // SAFETY: `init` has created the pointer from a `Box<StartedApp>`, and the caller guarantees that the app is alive.
    unsafe { &*app.cast::<StartedApp>() }
}

/// Implements [`Plugin::call`]. Returns a code of [`poll`](crate::abi::poll).
unsafe extern "C" fn call(
    app: *mut c_void,
    request: *const Request,
    slot: *mut CallSlot,
    context: *const CallContext,
) -> u32 {
    // SAFETY: the host does not drop an app while a request is in it.
    let app = unsafe { started_app(app) };
    let mut padded_copy = None;
    // SAFETY: the host passes a request that is valid until the plugin responds or this function returns.
    let request = unsafe { Request::padded(request, &mut padded_copy) };
    // SAFETY: the host passes a context that is valid until this function returns.
    let context = unsafe { &*context };
    let runtime = app.runtime().scope();
    let start = || {
        // SAFETY: the memory that the request borrows is valid until the plugin responds or this function returns, and
        // the plugin may move the body out.
        let request = native::Request::new(unsafe { RequestView::new(request) });
        let starter = CallStarter {
            slot,
            call: context,
            runtime,
        };
        app.app().call(request, starter)
    };
    // SAFETY: the host passes an empty slot. `CallStarter` stores the call in the slot if the call is pending.
    unsafe { call::run_step(runtime, slot, start) }
}

/// Implements [`Plugin::poll`]. Returns a code of [`poll`](crate::abi::poll).
unsafe extern "C" fn poll_call(slot: *mut CallSlot, context: *const CallContext) -> u32 {
    // SAFETY: the host passes a context that is valid until this function returns.
    let context = unsafe { &*context };
    // SAFETY: the host passes a slot that holds a pending call, and does not move the slot of a pending call.
    unsafe { call::poll_pending(slot, context) }
}

/// Implements [`Plugin::cancel`].
unsafe extern "C" fn cancel(slot: *mut CallSlot) {
    // SAFETY: the host passes a slot that holds a pending call, and does not move the slot of a pending call.
    unsafe { call::cancel(slot) };
}

/// Implements [`Plugin::set_level`].
unsafe extern "C" fn set_level(level: u32) {
    // A newer host may have levels that this plugin does not know. Such levels are at least as verbose as `Trace`, the
    // most verbose level that this plugin knows.
    let level = Level::from_number(level).unwrap_or(Level::Trace);
    let _ = catch(|| logger::set_level(level));
}

/// Implements [`Plugin::hand_over`]. Returns 0 if `out` has received the state, and 1 if `out` has received an error
/// text.
unsafe extern "C" fn hand_over(
    app: *mut c_void,
    parameters: *const HandOver,
    out: *mut HandedOver,
) -> u32 {
    // SAFETY: the host passes parameters that are valid until this function returns.
    let parameters = unsafe { &*parameters };
    // SAFETY: the host passes an `out` that only this function uses until it returns.
    let out = unsafe { &mut *out };
    // SAFETY: the host calls `stop`, which drops the app, as the last function.
    let app = unsafe { started_app(app) };
    match app.hand_over(Duration::from_millis(parameters.timeout_ms)) {
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

/// Implements [`Plugin::drain`].
unsafe extern "C" fn drain(app: *mut c_void, draining: u32) {
    // SAFETY: the host calls `stop`, which drops the app, as the last function.
    unsafe { started_app(app) }.set_draining(draining != 0);
}

/// Implements [`Plugin::look_after`].
unsafe extern "C" fn look_after(app: *mut c_void) {
    // SAFETY: the host calls `stop`, which drops the app, as the last function.
    unsafe { started_app(app) }.wake_if_stalled();
}

/// Implements [`Plugin::go_on`].
unsafe extern "C" fn go_on(app: *mut c_void, timeout_ms: u64) {
    // SAFETY: the host calls `stop`, which drops the app, as the last function.
    unsafe { started_app(app) }.run_handover_failed_hook(Duration::from_millis(timeout_ms));
}

/// Implements [`Plugin::alone`].
unsafe extern "C" fn alone(app: *mut c_void) {
    // SAFETY: the host calls `stop`, which drops the app, as the last function.
    unsafe { started_app(app) }.set_previous_ended();
}

/// Implements [`Plugin::stop`].
unsafe extern "C" fn stop(app: *mut c_void, parameters: *const Stop, out: *mut Stopped) {
    // SAFETY: the host passes parameters that are valid until this function returns.
    let parameters = unsafe { &*parameters };
    // SAFETY: the host passes an `out` that only this function uses until it returns.
    let out = unsafe { &mut *out };
    // SAFETY: the host calls `stop` once, and the app is dropped only below.
    let started = unsafe { started_app(app) };
    let shutdown = started.shut_down(Duration::from_millis(parameters.timeout_ms));
    // With a call still in the app, the app is leaked, because the call uses the app.
    if parameters.idle != 0 {
        // SAFETY: `init` has created the pointer from a `Box`. `idle` means that no call is in the app, and the host
        // calls no function of the app after `stop`.
        let app = unsafe { Box::from_raw(app.cast::<StartedApp>()) };
        shutdown.drop_app(app);
    }
    out.timed_out = shutdown.timed_out().into();
    out.tasks = shutdown.finish();
}
