//! Processes that are this program again: workers, images that replace one another, orphans.
//!
//! The program executes itself, so it has a `main` of its own and no test harness. Each case is a
//! process, so that none disturbs another.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

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

/// Runs the cases whose names hold `filter`, each in a process.
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

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    Runtime::new().expect("a runtime").block_on(test)
}

pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "did not become so in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
