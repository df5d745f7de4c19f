//! Tests of the blame for each kind of evidence.

use super::*;
use crate::scoreboard::{CodeAddress, LoadedApp, Work, WorkKind};

#[test]
fn blame_is_from_the_best_evidence_there_is() {
    let (a, b) = (load("a", 1), load("b", 2));
    let work_a = || thread(1, "host", Some(work(&a, WorkKind::Request)));
    let work_b = || thread(2, "host", Some(work(&b, WorkKind::Request)));
    let opens_b = || thread(3, "b.g2", Some(work(&b, WorkKind::Open)));
    let crash = |work, name: &str, file: &str| ThreadReport {
        work,
        frames: frames(file),
        ..crash(libc::SIGSEGV, 1, name)
    };
    let segv = signalled(libc::SIGSEGV);
    let none = Vec::new;
    // Each row: the apps at work, the crash record, the apps being loaded, the apps on probation; the blamed app and
    // the reason.
    for (threads, crashes, loading, probation, blame) in [
        // A crash record comes before all other evidence.
        (
            vec![work_a(), opens_b()],
            vec![crash(Some(work(&a, WorkKind::Body)), "b.g2", "/s/b.so")],
            vec![generation_of(&b)],
            vec![generation_of(&b)],
            Some(("a", 1, BlameReason::Thread(WorkKind::Body))),
        ),
        (
            vec![work_a()],
            vec![crash(None, "a.g1", "/s/b.so")],
            none(),
            none(),
            Some(("b", 2, BlameReason::Code)),
        ),
        (
            vec![work_a()],
            vec![crash(None, "b.g2", "/lib/libc.so")],
            none(),
            none(),
            Some(("b", 2, BlameReason::ThreadName)),
        ),
        // No app is blamed for a crash in the host's own code, unless other evidence names an app.
        (
            vec![work_a(), work_b()],
            vec![crash(None, "host", "/bin/host")],
            none(),
            none(),
            None,
        ),
        // Without a crash record.
        (
            vec![work_a(), opens_b()],
            vec![],
            none(),
            none(),
            Some(("b", 2, BlameReason::Loading)),
        ),
        (
            vec![work_a()],
            vec![],
            vec![generation_of(&b)],
            none(),
            Some(("b", 2, BlameReason::Loading)),
        ),
        (
            vec![work_a()],
            vec![],
            none(),
            none(),
            Some(("a", 1, BlameReason::OnlyAtWork)),
        ),
        (
            vec![work_a(), work_b()],
            vec![],
            none(),
            vec![generation_of(&b)],
            Some(("b", 2, BlameReason::Probation)),
        ),
        (vec![work_a(), work_b()], vec![], none(), none(), None),
        (vec![], vec![], none(), none(), None),
        // Evidence that names two apps does not count.
        (
            vec![],
            vec![],
            vec![generation_of(&a), generation_of(&b)],
            none(),
            None,
        ),
    ] {
        let board = BoardSnapshot {
            threads,
            crashes,
            exit: None,
            apps: vec![a.clone(), b.clone()],
        };
        let death = examine(&Evidence {
            loading: &loading,
            probation: &probation,
            ..evidence(segv, &board)
        });
        let found = death.blame.as_ref();
        let found = found.map(|blame| {
            (
                &*blame.generation.app,
                blame.generation.number,
                blame.reason,
            )
        });
        assert_eq!(found, blame, "{death:?}");
    }
}

#[test]
fn a_death_is_told_in_words() {
    let exited = |code| ChildExit::Exited { code };
    let of = |signal, code, address, stack| ThreadReport {
        address,
        stack,
        instruction: 0x4000,
        ..crash(signal, code, "host")
    };
    let (segv, abrt, kill) = (libc::SIGSEGV, libc::SIGABRT, libc::SIGKILL);
    for (status, crash, last_words, out_of_memory, what) in [
        (signalled(segv), None, "", false, "SIGSEGV"),
        (
            signalled(segv),
            Some(of(segv, 1, 0x18, 0x7f00_0000)),
            "",
            false,
            "SIGSEGV at address 0x18",
        ),
        (
            signalled(segv),
            Some(of(segv, 0x80, 0, 0x7f00_0000)),
            "",
            false,
            "SIGSEGV at no address that there is",
        ),
        (
            signalled(segv),
            Some(of(segv, 1, 0x7eff_f008, 0x7eff_f010)),
            "",
            false,
            "SIGSEGV: a thread's stack is full",
        ),
        (
            signalled(segv),
            Some(of(segv, libc::SI_USER, 0, 0)),
            "",
            false,
            "SIGSEGV, sent by another process",
        ),
        (
            signalled(abrt),
            Some(of(abrt, libc::SI_TKILL, 0, 0)),
            "",
            false,
            "SIGABRT",
        ),
        (
            signalled(abrt),
            Some(of(abrt, libc::SI_TKILL, 0, 0)),
            "some line\nmemory allocation of 4096 bytes failed\n",
            false,
            "SIGABRT (memory allocation of 4096 bytes failed)",
        ),
        (
            signalled(abrt),
            Some(of(segv, 1, 0x7eff_f008, 0x7eff_f010)),
            "\nthread 'host' has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
            false,
            "SIGABRT: a thread's stack is full",
        ),
        (
            signalled(abrt),
            None,
            "double free or corruption (out)",
            false,
            "SIGABRT (double free or corruption (out))",
        ),
        (
            signalled(libc::SIGFPE),
            Some(of(libc::SIGFPE, 1, 0x4000, 0)),
            "",
            false,
            "SIGFPE at instruction 0x4000",
        ),
        (signalled(kill), None, "", false, "SIGKILL"),
        (
            signalled(kill),
            None,
            "",
            true,
            "SIGKILL, out of memory: killed by the kernel",
        ),
        (signalled(40), None, "", false, "signal 40"),
        (exited(3), None, "", false, "exit code 3"),
    ] {
        let board = BoardSnapshot {
            crashes: crash.into_iter().collect(),
            ..BoardSnapshot::default()
        };
        let death = examine(&Evidence {
            last_words,
            out_of_memory,
            ..evidence(status, &board)
        });
        assert_eq!(death.cause, what);
    }
}

#[test]
fn nobody_is_blamed_for_a_kill() {
    let a = load("a", 1);
    let board = BoardSnapshot {
        threads: vec![thread(1, "host", Some(work(&a, WorkKind::Request)))],
        apps: vec![a.clone()],
        ..BoardSnapshot::default()
    };
    let loading = [generation_of(&a)];
    let death = examine(&Evidence {
        loading: &loading,
        probation: &loading,
        ..evidence(signalled(libc::SIGKILL), &board)
    });
    assert_eq!(death.blame, None);
    assert_eq!(death.suspects, loading);
}

#[test]
fn the_thread_that_hangs_longest_is_to_blame() {
    let (a, b) = (load("a", 1), load("b", 2));
    let lasts = |app, seconds| {
        Some(Work {
            duration: Duration::from_secs(seconds),
            ..work(app, WorkKind::Request)
        })
    };
    let board = BoardSnapshot {
        threads: vec![
            thread(1, "host", lasts(&a, 10)),
            thread(2, "host", lasts(&b, 31)),
            thread(3, "host", None),
        ],
        apps: vec![a, b.clone()],
        ..BoardSnapshot::default()
    };
    let death = examine_hung(&board, &[], Duration::from_secs(30));
    assert_eq!(death.cause, "no progress for 30s");
    let blame = Blame {
        generation: generation_of(&b),
        reason: BlameReason::Hung,
    };
    assert_eq!(death.blame, Some(blame));
    let death = examine_hung(&board, &[], Duration::from_secs(60));
    assert_eq!(death.blame, None);
}

fn signalled(signal: i32) -> ChildExit {
    ChildExit::Signaled {
        signal,
        core: false,
    }
}

fn evidence<'a>(status: ChildExit, board: &'a BoardSnapshot) -> Evidence<'a> {
    Evidence {
        status,
        board,
        loading: &[],
        probation: &[],
        last_words: "",
        out_of_memory: false,
    }
}

fn load(app: &str, generation: u64) -> LoadedApp {
    LoadedApp {
        app: app.to_owned(),
        generation,
        copy: format!("/s/{app}.so").into(),
    }
}

fn generation_of(app: &LoadedApp) -> GenerationId {
    GenerationId {
        app: app.app.clone(),
        number: app.generation,
    }
}

fn work(app: &LoadedApp, doing: WorkKind) -> Work {
    Work {
        app: Some(app.clone()),
        kind: doing,
        request: None,
        duration: Duration::ZERO,
    }
}

fn thread(thread: u32, name: &str, work: Option<Work>) -> ThreadState {
    ThreadState {
        thread,
        name: name.to_owned(),
        changes: 1,
        work,
    }
}

fn crash(signal: i32, code: i32, name: &str) -> ThreadReport {
    ThreadReport {
        signal,
        code,
        address: 0x18,
        instruction: 0x4000,
        stack: 0x7f00_0000_0000,
        thread: 1,
        name: name.to_owned(),
        work: None,
        frames: Vec::new(),
    }
}

fn frames(file: &str) -> Vec<CodeAddress> {
    let location = |file: &str| Some((file.into(), 0x10));
    ["/lib/libc.so", file]
        .map(|file| CodeAddress {
            address: 0x4000,
            location: location(file),
        })
        .to_vec()
}
