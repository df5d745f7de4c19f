//! What the host calls: the functions of the plugin's table.

use std::{ffi::c_void, marker::PhantomData, time::Duration};

use abi_stable::{
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};
use tokio::{task, time};

use super::{
    Building, Context,
    app::App,
    call::{self, Start},
    context::Facts,
    logger::{self, HostLog, Logger},
    mistakes::Mistake,
    native, panics,
    runtime::Runtime,
};
use crate::{
    BoxError, Level,
    abi::{
        self, CallContext, CallSlot, HandOver, HandedOver, Init, Initialized, Plugin, Request,
        Stop, Stopped,
        v1::{Root, RootRef},
    },
    crossing::{Guard, catch, chain},
};

/// What [`export_app!`](crate::export_app) makes: the author's function, by a type.
pub trait Entry: 'static {
    /// The plugin's version.
    const VERSION: &'static str;

    /// Calls the author's function.
    fn build(context: Context) -> Building;
}

/// The header by which abi_stable finds and checks the root module.
///
/// This is what abi_stable's own attribute for it writes out, which would need the crate among the
/// author's dependencies.
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

/// The app as the host holds it. It stays where it is for as long as a call may look at it.
struct Guest {
    app: Box<dyn App>,
    context: Context,
    runtime: Runtime,
}

unsafe extern "C" fn init<E: Entry>(init: *const Init, out: *mut Initialized) -> u32 {
    // SAFETY: the host lends it for the call.
    let init = unsafe { Init::whole(init) };
    // SAFETY: the host's table stays for ever.
    let host = unsafe { HostLog::new(init.host) };
    panics::install(host);
    let started = panics::catch(|| {
        Logger::install(host);
        // SAFETY: `init` is lent for the call.
        unsafe { start::<E>(&init) }
    });
    panics::keep_hook();
    // A rival's code is asked about callsites, and may panic.
    let _ = catch(logger::check_for_rivals);
    let started = started.unwrap_or_else(|panic| Err(format!("panicked: {panic}").into()));
    let failed = u32::from(started.is_err());
    let answer = match started {
        Ok(guest) => Initialized {
            hands_over: u32::from(guest.context.handover_hook().is_some()),
            app: Box::into_raw(Box::new(guest)).cast(),
            asks_for_headers: 1,
            ..Initialized::new()
        },
        Err(error) => {
            let error = error.to_string();
            let place = panics::take_authors_place();
            let message = match Mistake::of(&error) {
                Some(mistake) => mistake.advice(place.as_deref()),
                None => error,
            };
            Initialized {
                message: message.into(),
                ..Initialized::new()
            }
        }
    };
    // SAFETY: the host gives room for the answer.
    unsafe { answer.give(out) };
    failed
}

/// # Safety
///
/// What `init` borrows is valid until this returns.
unsafe fn start<E: Entry>(init: &Init) -> Result<Guest, BoxError> {
    // SAFETY: the caller says so.
    let text = |slice: abi::Slice| unsafe { slice.text() }.unwrap_or_default().to_owned();
    // SAFETY: the caller says so.
    let bytes = |slice: abi::Slice| unsafe { slice.some_bytes() }.map(<[u8]>::to_vec);
    let runtime = Runtime::new(&text(init.thread_name), init.worker_threads.max(1) as usize)?;
    let context = Context::new(Facts {
        name: text(init.name),
        mount: text(init.mount),
        version: E::VERSION,
        generation: init.generation,
        config: bytes(init.config),
        previous_state: bytes(init.previous_state),
        is_second: init.is_second != 0,
    });

    let built = panics::catch(|| {
        let build = E::build(context.clone());
        runtime.handle().block_on(async {
            match init.timeout_ms {
                0 => build.await,
                limit => time::timeout(Duration::from_millis(limit), build)
                    .await
                    .unwrap_or_else(|_| {
                        let limit = limit as f64 / 1e3;
                        Err(format!("it did not start within {limit} s, see --init-timeout").into())
                    }),
            }
        })
    });
    let built = built.unwrap_or_else(|panic| Err(format!("panicked: {panic}").into()));
    match built {
        Ok(app) => Ok(Guest {
            app,
            context,
            runtime,
        }),
        Err(error) => {
            // What they hold may want the runtime, or the context that they are in.
            let _ = runtime.entered().run(|| context.clear_hooks());
            if let Some(tokio) = runtime.take() {
                tokio.shutdown_timeout(Duration::from_secs(1));
            }
            Err(error)
        }
    }
}

unsafe extern "C" fn call(
    app: *mut c_void,
    request: *const Request,
    slot: *mut CallSlot,
    context: *const CallContext,
) -> u32 {
    // SAFETY: the app is what `init` gave, and not yet stopped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let mut older = None;
    // SAFETY: the host lends it for the call.
    let request = unsafe { Request::lent(request, &mut older) };
    // SAFETY: as above.
    let context = unsafe { &*context };
    let runtime = guest.runtime.entered();
    let start = || {
        // SAFETY: the host lends what the request borrows, and gives the body.
        let request = unsafe { native::Request::new(request) };
        let start = Start {
            slot,
            context,
            runtime,
        };
        guest.app.call(request, start)
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
    // SAFETY: the app is what `init` gave, and not yet dropped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let limit = Duration::from_millis(ask.timeout_ms);
    let given = panics::catch(|| {
        let hook = guest
            .context
            .handover_hook()
            .ok_or("it has nothing to hand over")?;
        guest.context.set_handed_over(true);
        guest
            .runtime
            .handle()
            .block_on(async { time::timeout(limit, hook()).await })
            .map_err(|_| format!("its hook took longer than {limit:?}"))?
            // What the error says is the author's code as well.
            .map_err(|error| chain(&*error))
    });
    match given.unwrap_or_else(|panic| Err(format!("panicked: {panic}"))) {
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
    // SAFETY: the app is what `init` gave, and not yet dropped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let _ = guest
        .runtime
        .entered()
        .run(|| guest.context.set_draining(draining != 0));
}

unsafe extern "C" fn look_after(app: *mut c_void) {
    // SAFETY: the app is what `init` gave, and not yet stopped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let _ = catch(|| guest.runtime.look_after());
}

unsafe extern "C" fn go_on(app: *mut c_void, timeout_ms: u64) {
    // SAFETY: the app is what `init` gave, and not yet dropped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let limit = Duration::from_millis(timeout_ms);
    let _ = catch(|| {
        let Some(hook) = guest.context.take_back_hook() else {
            return;
        };
        let taken_back = guest
            .runtime
            .handle()
            .block_on(async { time::timeout(limit, hook()).await });
        match taken_back {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(
                error = &*error as &dyn std::error::Error,
                "The app goes on, but its hook for a handover that failed has failed as well"
            ),
            Err(_) => tracing::error!(
                ?limit,
                "The app goes on, but its hook for a handover that failed did not end in time"
            ),
        }
    });
}

unsafe extern "C" fn alone(app: *mut c_void) {
    // SAFETY: the app is what `init` gave, and not yet dropped.
    let guest = unsafe { &*app.cast::<Guest>() };
    let _ = guest
        .runtime
        .entered()
        .run(|| guest.context.set_second(false));
}

unsafe extern "C" fn stop(app: *mut c_void, stop: *const Stop, out: *mut Stopped) {
    // SAFETY: the host lends it for the call.
    let stop = unsafe { &*stop };
    // SAFETY: the host gives room for the answer.
    let out = unsafe { &mut *out };
    // SAFETY: the app is what `init` gave, and is stopped once.
    let guest = unsafe { &*app.cast::<Guest>() };
    let deadline = time::Instant::now() + Duration::from_millis(stop.timeout_ms);
    let left = || deadline.saturating_duration_since(time::Instant::now());

    while let Some(hook) = guest.context.next_shutdown_hook() {
        // One that panics has been reported, and is no reason to leave out the others.
        let run = || {
            guest
                .runtime
                .handle()
                .block_on(async { time::timeout(left(), hook).await })
        };
        if matches!(catch(run), Some(Err(_))) {
            out.timed_out = 1;
        }
    }
    let _ = guest.runtime.entered().run(|| guest.context.clear_hooks());
    let tokio = guest.runtime.take();
    let tasks = |tokio: &tokio::runtime::Runtime| tokio.metrics().num_alive_tasks();
    if stop.idle != 0 {
        let before = tokio.as_ref().map_or(0, tasks);
        // SAFETY: no call is left, so nobody else looks at the app, and nobody will.
        let guest = unsafe { Box::from_raw(app.cast::<Guest>()) };
        let runtime = guest.runtime.entered().clone();
        // While the runtime still runs: what the app drops may want it.
        let _ = runtime.run(move || drop(guest));
        if let Some(tokio) = &tokio {
            // What the drops spawned, to say goodbye or to write something down, has a moment.
            let ended = async {
                while tasks(tokio) > before {
                    time::sleep(Duration::from_millis(1)).await;
                }
                // What is on a blocking thread is waited for below, but what has not begun would be
                // dropped. They begin in order: when this one runs, all before it have begun.
                let _ = task::spawn_blocking(|| ()).await;
            };
            let moment = left().min(MOMENT);
            let _ = catch(|| tokio.block_on(async { time::timeout(moment, ended).await }));
        }
    }
    #[cfg(not(feature = "host"))]
    crate::crossing::forget();
    if let Some(tokio) = tokio {
        out.tasks = tasks(&tokio) as u64;
        let _ = catch(|| tokio.shutdown_timeout(left()));
    }
}

/// How long tasks that an app spawns while it is dropped have to end.
const MOMENT: Duration = Duration::from_millis(100);
