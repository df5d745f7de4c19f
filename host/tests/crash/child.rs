//! The child process of each test: works on a request like an app, and then crashes or ends in the way that the
//! environment variable `CRASH_WAY` names.

use std::{env, hint::black_box, os::fd::AsFd, thread};

use host::{
    scoreboard::{self, Label, Scoreboard, WorkKind},
    worker::crash,
};
use http::Method;

use crate::{
    faults::{
        call_abort, call_double_free, call_exit, call_null, loop_for_ever, overflow_foreign_thread,
        recurse, run_illegal, touch_bus, write_to_null,
    },
    handlers::{replace_handler, write_with_mending_handler},
};

/// The entry point of a child: the parent runs this test in a new process. Does nothing in the process of the tests.
#[test]
fn child() {
    let Ok(way) = env::var("CRASH_WAY") else {
        return;
    };
    // Ends a child that hangs, so that its test does not hang.
    // SAFETY: `alarm` accesses no memory of this process.
    unsafe { libc::alarm(20) };
    // The parent passes the scoreboard's memory as stdin.
    let memory = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let board = Scoreboard::attach(&memory).unwrap().activate();
    crash::install(board).unwrap();
    let program = env::current_exe().unwrap();
    let label = scoreboard::add_label("shop", 7, &program);
    match &*way {
        "nothing" => {}
        "own_thread" => run_in_thread("other", write_to_null),
        "overflow" => in_app(label, || {
            black_box(recurse(1));
        }),
        "foreign_overflow" => overflow_foreign_thread(label, true),
        "no_stack" => overflow_foreign_thread(label, false),
        "null" => in_app(label, write_to_null),
        "null_call" => in_app(label, call_null),
        "abort" => in_app(label, call_abort),
        "bus" => in_app(label, touch_bus),
        "illegal" => in_app(label, run_illegal),
        "double_free" => in_app(label, call_double_free),
        "exit" => run_in_thread("loading", move || {
            let _entered = scoreboard::enter(label, WorkKind::Init);
            call_exit();
        }),
        "_exit" => in_app(label, || {
            // SAFETY: `_exit` runs no code of this process.
            unsafe { libc::_exit(3) }
        }),
        "wait" => in_app(label, wait_for_parent),
        "hang" => in_app(label, loop_for_ever),
        "nested" => nest_work(label),
        "replaced" | "replaced_and_chained" | "ignored" => {
            replace_handler(&way);
            let replaced = crash::reinstall();
            assert_eq!(replaced, ["SIGSEGV"]);
            in_app(label, write_to_null);
        }
        "mended" => write_with_mending_handler(label),
        other => panic!("there is no {other}"),
    }
}

/// Runs `work` in a new thread, and waits for its end.
fn run_in_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).unwrap().join().unwrap();
}

/// Runs `work` in a thread that handles a request of the app.
pub(crate) fn in_app(label: Label, work: impl FnOnce() + Send + 'static) {
    run_in_thread("serving", move || {
        crash::stack::install();
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        work();
    });
}

/// Waits until the parent calls `Running::proceed` or ends. The parent passes the reading end of a pipe as stdout.
fn wait_for_parent() {
    let mut byte = 0_u8;
    // SAFETY: `byte` has room for one byte.
    unsafe { libc::read(1, (&raw mut byte).cast(), 1) };
}

/// Polls the body of a request within another request, and waits for the parent at each step.
fn nest_work(label: Label) {
    run_in_thread("serving", move || {
        let entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        let saved_work = {
            let entered = scoreboard::enter_request(label, b"1", &Method::POST, "/inner");
            entered.save()
        };
        let inner = scoreboard::enter_again(saved_work.as_ref(), WorkKind::Body);
        wait_for_parent();
        drop(inner);
        wait_for_parent();
        drop(entered);
        wait_for_parent();
    });
    wait_for_parent();
}
