//! Tests of crash records and autopsies. Each test starts this program again, as a child process that crashes in one
//! way ([`child`]).

#![allow(unsafe_code, reason = "the child process crashes on purpose")]
#![allow(clippy::unwrap_used, reason = "a panic makes the test fail")]

mod child;
mod faults;
mod handlers;
mod running;

use std::{os::unix::process::ExitStatusExt, time::Duration};

use host::{
    scoreboard::{BoardSnapshot, ThreadReport, WorkKind},
    supervisor::autopsy::{self, BlameReason, Death, GenerationId},
    worker::crash,
};
use rustix::process::Pid;

use self::running::{Running, eventually, run_child};

#[test]
fn a_null_write_names_app_request_and_line() {
    let death = run_child("null").examine();
    assert_eq!(death.cause, "SIGSEGV at address 0x0");
    assert_blamed(&death, BlameReason::Thread(WorkKind::Request));
    let request = death.request.as_ref().unwrap();
    assert_eq!(
        (&*request.id, &*request.method, &*request.path),
        ("7f3a", "GET", "/orders/17")
    );
    let frame = death.frame().unwrap();
    assert!(frame.function.contains("write_to_null"), "{death}");
    let (file, line) = frame.source.as_ref().unwrap();
    let mut lines = include_str!("faults.rs").lines();
    let here = lines.position(|line| line.ends_with("// a fault is here"));
    assert!(file.ends_with("tests/crash/faults.rs"), "{death}");
    assert_eq!(*line as usize, here.unwrap() + 1);
    assert_eq!(death.thread.as_deref(), Some("serving"));
}

#[test]
fn a_thread_of_the_apps_own_is_known_by_its_code() {
    let death = run_child("own_thread").examine();
    assert_blamed(&death, BlameReason::Code);
    assert!(death.request.is_none());
}

#[test]
fn a_full_stack_is_told_by_std_and_recorded() {
    let ended = run_child("overflow");
    let death = ended.examine();
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT));
    assert!(
        ended.stderr.contains("has overflowed its stack"),
        "{}",
        ended.stderr
    );
    assert_eq!(death.cause, "SIGABRT: a thread's stack is full");
    assert_blamed(&death, BlameReason::Thread(WorkKind::Request));
    assert!(
        death.frame().unwrap().function.contains("recurse"),
        "{death}"
    );
}

#[test]
fn a_full_stack_of_a_thread_that_std_does_not_know_is_recorded() {
    let death = run_child("foreign_overflow").examine();
    assert_eq!(death.cause, "SIGSEGV: a thread's stack is full");
    assert_blamed(&death, BlameReason::Thread(WorkKind::Request));
}

#[test]
fn without_a_stack_for_the_handler_the_scoreboard_is_left() {
    let ended = run_child("no_stack");
    assert!(ended.board.crashes.is_empty());
    let death = ended.examine();
    assert_eq!(death.cause, "SIGSEGV");
    assert_blamed(&death, BlameReason::OnlyAtWork);
    assert_eq!(death.request.unwrap().path, "/orders/17");
}

#[test]
fn a_call_of_null_is_placed_at_its_caller() {
    let death = run_child("null_call").examine();
    assert_eq!(death.cause, "SIGSEGV at address 0x0");
    assert!(
        death.frame().unwrap().function.contains("call_null"),
        "{death:#?}"
    );
}

#[test]
fn other_faults_have_their_own_names() {
    for (way, signal, what) in [
        ("abort", libc::SIGABRT, "SIGABRT"),
        ("bus", libc::SIGBUS, "SIGBUS at address 0x"),
        ("illegal", libc::SIGILL, "SIGILL at instruction 0x"),
        (
            "double_free",
            libc::SIGABRT,
            "SIGABRT (free(): double free detected",
        ),
    ] {
        let ended = run_child(way);
        assert_eq!(ended.status.signal(), Some(signal), "{way}");
        let death = ended.examine();
        assert!(death.cause.starts_with(what), "{death}");
        assert_blamed(&death, BlameReason::Thread(WorkKind::Request));
        let frame = death.frame().unwrap();
        assert!(frame.function.contains(way), "{way}: {death:#?}");
    }
}

#[test]
fn an_exit_names_who_called_it() {
    let ended = run_child("exit");
    assert_eq!(ended.status.code(), Some(3));
    let death = ended.examine();
    assert_eq!(death.cause, "a call of exit(3)");
    assert_blamed(&death, BlameReason::Thread(WorkKind::Init));
    assert!(
        death.frame().unwrap().function.contains("call_exit"),
        "{death:#?}"
    );
}

#[test]
fn an_exit_that_no_handler_sees_leaves_the_scoreboard() {
    let death = run_child("_exit").examine();
    assert_eq!(death.cause, "exit code 3");
    assert_blamed(&death, BlameReason::OnlyAtWork);
}

#[test]
fn the_end_of_main_is_no_exit_of_an_app() {
    let ended = run_child("nothing");
    assert!(ended.status.success());
    assert!(ended.board.exit.is_none() && ended.board.crashes.is_empty());
}

#[test]
fn nobody_is_blamed_for_what_comes_from_outside() {
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM] {
        let mut running = Running::start("wait");
        running.wait_until(|board| board.threads.iter().any(|thread| thread.work.is_some()));
        running.kill(signal);
        let ended = running.wait();
        assert_eq!(ended.status.signal(), Some(signal));
        let death = ended.examine();
        assert_eq!(death.blame, None, "{death}");
        assert_eq!(death.suspects, [shop()]);
    }
}

#[test]
fn another_handler_does_not_hide_a_crash() {
    for way in ["replaced", "replaced_and_chained", "ignored"] {
        let ended = run_child(way);
        assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{way}");
        let death = ended.examine();
        assert_eq!(death.cause, "SIGSEGV at address 0x0", "{way}");
        assert_blamed(&death, BlameReason::Thread(WorkKind::Request));
        assert_eq!(
            ended.stderr.contains("the other handler ran"),
            way != "ignored",
            "{way}"
        );
    }
}

#[test]
fn a_fault_that_another_handler_mends_is_no_crash() {
    let ended = run_child("mended");
    assert!(ended.status.success(), "{} {}", ended.status, ended.stderr);
    assert!(ended.board.crashes.is_empty());
}

#[test]
fn a_thread_that_hangs_says_where() {
    let mut running = Running::start("hang");
    running.wait_until(|board| board.threads.iter().any(|thread| thread.work.is_some()));
    let pid = Pid::from_child(&running.child);
    let thread_count = crash::dump::request(pid, &running.scoreboard).unwrap();
    assert!(thread_count >= 2);
    let hung_thread = running.board().threads[0].thread;
    let mut dumps = Vec::new();
    eventually(|| {
        dumps = running.scoreboard.dumps();
        dumps
            .iter()
            .any(|dump| dump.thread == hung_thread && dump.frames.len() > 1)
    });
    crash::dump::find_files(pid, &mut dumps).unwrap();
    let death = autopsy::examine_hung(&running.board(), &dumps, Duration::ZERO).locate();
    assert_blamed(&death, BlameReason::Hung);
    assert!(
        death.frame().unwrap().function.contains("loop_for_ever"),
        "{death:#?}"
    );
    running.kill(libc::SIGKILL);
}

#[test]
fn what_a_thread_does_is_seen_while_it_does_it() {
    let mut running = Running::start("nested");
    running.wait_until(|board| current_work(board) == Some((WorkKind::Body, "/inner".into())));
    running.proceed();
    running
        .wait_until(|board| current_work(board) == Some((WorkKind::Request, "/orders/17".into())));
    running.proceed();
    running.wait_until(|board| board.threads.iter().all(|thread| thread.work.is_none()));
    running.proceed();
    running.wait_until(|board| board.threads.is_empty());
    running.proceed();
    assert!(running.wait().status.success());
}

/// Returns the work of the first thread: its kind, and the path of its request.
fn current_work(board: &BoardSnapshot) -> Option<(WorkKind, String)> {
    let work = board.threads.first()?.work.as_ref()?;
    Some((work.kind, work.request.as_ref()?.path.clone()))
}

/// The generation to which the work of a child belongs.
fn shop() -> GenerationId {
    GenerationId {
        app: "shop".to_owned(),
        number: 7,
    }
}

fn assert_blamed(death: &Death, reason: BlameReason) {
    let blame = death.blame.as_ref();
    let blamed = blame.map(|blame| (&blame.generation, blame.reason));
    assert_eq!(blamed, Some((&shop(), reason)), "{death:#?}");
}

/// The record is useful also without an autopsy.
#[test]
fn a_record_has_all_that_the_kernel_told() {
    let ended = run_child("null");
    let [
        ThreadReport {
            signal,
            address,
            instruction,
            stack,
            thread,
            name,
            frames,
            ..
        },
    ] = &*ended.board.crashes
    else {
        panic!("one crash, found {:?}", ended.board.crashes);
    };
    assert_eq!((*signal, *address, &**name), (libc::SIGSEGV, 0, "serving"));
    assert!(*instruction != 0 && *stack != 0 && *thread != 0);
    assert_eq!(frames[0].address, *instruction);
    assert!(frames.len() > 5);
    assert!(frames[0].location.is_some());
}
