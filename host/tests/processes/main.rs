//! Tests of processes: workers, orphans, and upgrades that replace the image of a process.
//!
//! The processes execute this program again, so it has its own `main` function and no test harness. Each case runs in
//! its own process, so that the cases do not disturb each other.
#![expect(clippy::unwrap_used, reason = "a panic makes the test fail")]

mod images;
mod lives;
mod proof;
mod worker;

use std::{
    env,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use host::supervisor::{process::WORKER_ARGUMENT, upgrade::PROOF_ARGUMENT};
use tokio::runtime::Runtime;

use self::{
    images::{another_image_takes_over_in_place, next_image},
    lives::{
        a_worker_ends_after_its_supervisor, a_worker_is_started_though_its_program_was_replaced,
        a_worker_talks_and_prints_and_ends, orphans_are_reaped_and_children_are_not,
    },
    proof::a_program_proves_that_it_can_take_over,
};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some(WORKER_ARGUMENT) => worker::run(),
        Some(PROOF_ARGUMENT) => proof::run(&args.next().unwrap_or_default()),
        Some("case") => {
            let name = args.next().unwrap_or_default();
            let case = CASES.iter().find(|(known, _)| *known == name);
            case.expect("a case of this name").1();
        }
        Some("next image") => next_image(),
        // `cargo test NAME` passes a part of a test's name.
        filter => return run(filter.filter(|text| !text.starts_with('-'))),
    }
    ExitCode::SUCCESS
}

/// The name and the function of a test.
type Case = (&'static str, fn());

const CASES: [Case; 6] = [
    (
        "a_worker_talks_and_prints_and_ends",
        a_worker_talks_and_prints_and_ends,
    ),
    (
        "a_worker_is_started_though_its_program_was_replaced",
        a_worker_is_started_though_its_program_was_replaced,
    ),
    (
        "a_worker_ends_after_its_supervisor",
        a_worker_ends_after_its_supervisor,
    ),
    (
        "orphans_are_reaped_and_children_are_not",
        orphans_are_reaped_and_children_are_not,
    ),
    (
        "another_image_takes_over_in_place",
        another_image_takes_over_in_place,
    ),
    (
        "a_program_proves_that_it_can_take_over",
        a_program_proves_that_it_can_take_over,
    ),
];

/// Runs the cases whose names contain `filter`, each in its own process. The exit code is the number of failed cases.
fn run(filter: Option<&str>) -> ExitCode {
    let mut failed = 0;
    for (name, _) in CASES {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let program = env::current_exe().expect("a path of this program");
        let output = Command::new(program)
            .args(["case", name])
            .stdin(Stdio::null())
            .output();
        let output = output.expect("a process");
        let is_ok = output.status.success();
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        if !is_ok {
            failed += 1;
            println!("{}", output.status);
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    ExitCode::from(failed)
}

/// The time limit for an event that must happen.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    Runtime::new().expect("a runtime").block_on(test)
}

/// Waits until `condition` returns true. Panics after the time limit.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition is still false");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
