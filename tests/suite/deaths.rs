//! Workers that crash or hang: one log line names the cause, the app and the place in the app's code, and a new worker
//! serves.

use host_tests::{Host, Library, Setup};
use rustix::process::{Signal, kill_process};

#[tokio::test]
async fn a_null_write_names_app_generation_request_and_place() {
    let host = dies().start().await;
    let line = crash_by(&host, "null").await;
    for part in [
        "SIGSEGV at address 0x0",
        "plugin=dies",
        "generation=1",
        "method=GET",
        "path=/dies/null",
        "write_to_null",
        "ways.rs:",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn threads_of_an_app_are_known_by_their_code() {
    assert_cause_and_place(
        &["task", "thread"],
        "SIGSEGV at address 0x0",
        "write_to_null",
    )
    .await;
}

#[tokio::test]
async fn a_full_stack_is_called_so() {
    let ways = ["overflow", "task-overflow"];
    assert_cause_and_place(&ways, "a thread's stack is full", "recurse").await;
}

#[tokio::test]
async fn each_way_to_die_has_its_name() {
    let host = dies().start().await;
    for (way, cause, place) in [
        ("abort", "SIGABRT", "lib.rs:"),
        ("exit", "a call of exit(0)", "lib.rs:"),
        ("_exit", "exit code 3", ""),
        ("bus", "SIGBUS at address 0x", "touch_bus"),
        ("illegal", "SIGILL at instruction 0x", "run_illegal"),
        ("double-free", "SIGABRT (free(): double free", "free_twice"),
        ("memory", "SIGABRT (memory allocation of", "take_memory"),
    ] {
        let line = crash_by(&host, way).await;
        for part in [cause, place, "plugin=dies", "generation=1"] {
            assert!(line.contains(part), "{way}: {part} in {line}");
        }
    }
}

#[tokio::test]
async fn a_start_that_dies_costs_nothing_that_serves() {
    for (mark, cause, place) in [
        ("init", "SIGSEGV at address 0x0", "write_to_null"),
        ("parse", "a call of exit(2)", "lib.rs:"),
    ] {
        let host = dies().start().await;
        host.serves("/dies", "unmarked").await;
        let library = Library::plugin("dies").marked(mark);
        host.folder().put("libdies.so", &library);
        let line = host.log().eventually(&["Worker died", cause]).await;
        for part in [place, "plugin=dies", "generation=2"] {
            assert!(line.contains(part), "{mark}: {part} in {line}");
        }
        host.log().eventually(&["Put aside", "plugin=dies"]).await;
        host.serves("/dies", "unmarked").await;
    }
}

#[tokio::test]
async fn a_static_constructor_that_crashes_costs_no_worker() {
    let host = dies().start().await;
    host.serves("/dies", "unmarked").await;
    let library = Library::plugin("dies").marked("constructor");
    host.folder().put("libdies.so", &library);
    let parts = ["Not loaded", "opening it ended the process with SIGSEGV"];
    host.log().eventually(&parts).await;
    host.serves("/dies", "unmarked").await;
    assert!(host.log().with(&["Worker died"]).is_empty());
}

#[tokio::test]
async fn a_constructor_or_a_start_that_hangs_holds_up_nothing() {
    for mark in ["constructor hangs", "init hangs"] {
        let host = dies().arg("--init-timeout=1s").start().await;
        host.serves("/dies", "unmarked").await;
        let library = Library::plugin("dies").marked(mark);
        host.folder().put("libdies.so", &library);
        let parts = ["Not loaded", "plugin=dies", "--init-timeout"];
        host.log().eventually(&parts).await;
        host.serves("/dies", "unmarked").await;
        assert!(host.log().with(&["Worker died"]).is_empty(), "{mark}");
        assert_eq!(host.stop().await.code, Some(0), "{mark}");
    }
}

#[tokio::test]
async fn a_shutdown_hook_that_dies_is_the_old_generations_fault() {
    let shutdown = Library::plugin("dies").marked("shutdown");
    let setup = Setup::new().library("libdies.so", &shutdown);
    let host = setup.arg("--crash-limit=0").start().await;
    host.serves("/dies", "shutdown").await;
    host.folder().put("libdies.so", &Library::plugin("dies"));
    let line = host.log().eventually(&["Worker died", "SIGSEGV"]).await;
    for part in ["plugin=dies", "generation=1", "write_to_null"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    host.serves("/dies", "unmarked").await;
}

#[tokio::test]
async fn a_worker_whose_descriptors_were_closed_is_replaced() {
    let host = dies().arg("--worker-timeout=1s").start().await;
    let line = crash_by(&host, "process").await;
    assert!(line.contains("ERROR"), "{line}");
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_kill_from_outside_is_nobodys_fault() {
    let host = dies().start().await;
    let pid = worker_pid(&host).await;
    kill_process(pid, Signal::KILL).unwrap();
    let line = host.log().eventually(&["Worker died"]).await;
    assert!(
        line.contains("SIGKILL") && !line.contains("plugin="),
        "{line}"
    );
    host.serves("/dies", "unmarked").await;
}

#[tokio::test]
async fn a_thread_that_hangs_is_named_with_its_place_and_replaced() {
    let host = dies().arg("--worker-timeout=500ms").start().await;
    for (way, place) in [("sleep", "lib.rs:"), ("loop", "loop_for_ever")] {
        let line = crash_by(&host, way).await;
        for part in ["no progress for 500ms", "plugin=dies", place] {
            assert!(line.contains(part), "{way}: {part} in {line}");
        }
    }
}

#[tokio::test]
async fn sigquit_says_where_the_threads_of_a_worker_are() {
    let host = dies().start().await;
    host.serves("/dies", "unmarked").await;
    let mut wire = host.wire().await;
    wire.send("GET /dies/sleep HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["dies of sleep"]).await;
    host.signal(Signal::QUIT);
    let exit = host.exit().await;
    assert_eq!(exit.code, Some(1), "{exit}");
    let is_thread_line =
        |line: &&String| line.contains("A thread is here") && line.contains("plugin=dies");
    let line = exit.stderr.iter().find(is_thread_line);
    let line = line.unwrap_or_else(|| panic!("no line of the thread: {exit}"));
    for part in ["generation=1", "path=/dies/sleep", "lib.rs:"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn handlers_that_an_app_replaces_are_taken_back() {
    let host = dies().start().await;
    host.serves("/dies", "unmarked").await;
    let library = Library::plugin("dies").marked("handlers");
    host.folder().put("libdies.so", &library);
    host.serves("/dies", "handlers").await;
    for signal in ["SIGHUP", "SIGTERM"] {
        host.log().eventually(&["put back", signal]).await;
    }
    let line = crash_by(&host, "null").await;
    assert!(line.contains("SIGSEGV at address 0x0"), "{line}");
    assert!(line.contains("generation=2"), "{line}");
}

/// Returns the setup of a host with the fixture `dies`.
fn dies() -> Setup {
    // Without a crash limit, because the host would put the library aside after several crashes.
    Setup::new().plugin("dies").arg("--crash-limit=0")
}

/// Crashes the app in each of these ways, and asserts that each line names the cause and the place.
async fn assert_cause_and_place(ways: &[&str], cause: &str, place: &str) {
    let host = dies().start().await;
    for way in ways {
        let line = crash_by(&host, way).await;
        for part in [cause, "plugin=dies", place] {
            assert!(line.contains(part), "{way}: {part} in {line}");
        }
    }
}

/// Crashes the app in one way, waits until the app serves again, and returns the line about the crash.
async fn crash_by(host: &Host, way: &str) -> String {
    let before = host.log().with(&["Worker died"]).len();
    let mark = host.answers("/dies", 200).await;
    let mut wire = host.wire().await;
    let request = format!("GET /dies/{way} HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.send(&request).await;
    // The connection ends because the worker ends. A new worker serves.
    assert!(!wire.rest().await.contains("alive"));
    host.serves("/dies", &mark.text()).await;
    host.log().nth_with(before, &["Worker died"]).await
}

/// Returns the process id of the first worker, from the log.
async fn worker_pid(host: &Host) -> rustix::process::Pid {
    let line = host.log().eventually(&["Worker started", "pid="]).await;
    let (_, pid) = line.split_once("pid=").unwrap();
    let digits: String = pid.chars().take_while(char::is_ascii_digit).collect();
    rustix::process::Pid::from_raw(digits.parse().unwrap()).unwrap()
}
