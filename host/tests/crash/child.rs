//! The child of each test: it works as an app does, and then does what its name says.

use std::{env, hint::black_box, os::fd::AsFd, thread};

use host::{
    scoreboard::{self, Label, Scoreboard, WorkKind},
    worker::crash,
};
use http::Method;

use crate::{
    faults::{
        call_abort, call_double_free, call_exit, call_null, foreign, loop_for_ever, recurse,
        run_illegal, touch_bus, write_to_null,
    },
    handlers::{mended, replace_handler},
};

/// The entry point of a child. Does nothing in the tests' own process.
#[test]
fn child() {
    let Ok(way) = env::var("CRASH_WAY") else {
        return;
    };
    // SAFETY: it has no memory to be wrong about. A child that hangs is not to hang its test.
    unsafe { libc::alarm(20) };
    let memory = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let board = Scoreboard::attach(&memory).unwrap().activate();
    crash::install(board).unwrap();
    let program = env::current_exe().unwrap();
    let label = scoreboard::add_label("shop", 7, &program);
    match &*way {
        "nothing" => {}
        "own_thread" => on("other", write_to_null),
        "overflow" => in_app(label, || {
            black_box(recurse(1));
        }),
        "foreign_overflow" => foreign(label, true),
        "no_stack" => foreign(label, false),
        "null" => in_app(label, write_to_null),
        "null_call" => in_app(label, call_null),
        "abort" => in_app(label, call_abort),
        "bus" => in_app(label, touch_bus),
        "illegal" => in_app(label, run_illegal),
        "double_free" => in_app(label, call_double_free),
        "exit" => on("loading", move || {
            let _entered = scoreboard::enter(label, WorkKind::Init);
            call_exit();
        }),
        "_exit" => in_app(label, || {
            // SAFETY: it does not return.
            unsafe { libc::_exit(3) }
        }),
        "wait" => in_app(label, wait),
        "hang" => in_app(label, loop_for_ever),
        "nested" => nested(label),
        "replaced" | "replaced_and_chained" | "ignored" => {
            replace_handler(&way);
            let replaced = crash::reinstall();
            assert_eq!(replaced, ["SIGSEGV"]);
            in_app(label, write_to_null);
        }
        "mended" => mended(label),
        other => panic!("there is no {other}"),
    }
}

fn on(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).unwrap().join().unwrap();
}

pub(crate) fn in_app(label: Label, work: impl FnOnce() + Send + 'static) {
    on("serving", move || {
        crash::stack::install();
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        work();
    });
}

fn wait() {
    let mut byte = 0_u8;
    // SAFETY: there is room for one byte.
    unsafe { libc::read(1, (&raw mut byte).cast(), 1) };
}

fn nested(label: Label) {
    on("serving", move || {
        let entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        let saved_work = {
            let entered = scoreboard::enter_request(label, b"1", &Method::POST, "/inner");
            entered.save()
        };
        let inner = scoreboard::enter_again(saved_work.as_ref(), WorkKind::Body);
        wait();
        drop(inner);
        wait();
        drop(entered);
        wait();
    });
    wait();
}
