//! Tests with a shell as the child process.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use tokio::time::timeout;

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

async fn end(child: &mut Child) -> ChildExit {
    timeout(Duration::from_secs(20), child.wait())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn the_end_of_a_child_is_told_as_it_was() {
    let children = Children::default();
    let table = [
        ("exit 0", "exit code 0", None),
        ("exit 3", "exit code 3", None),
        ("ulimit -c 0; kill -SEGV $$", "SIGSEGV", Some("SIGSEGV")),
        ("kill -KILL $$", "SIGKILL", Some("SIGKILL")),
        ("kill -TERM $$", "SIGTERM", Some("SIGTERM")),
        ("kill -40 $$", "signal 40", Some("signal 40")),
    ];
    for (script, text, signal) in table {
        let mut child = children.start(shell(script)).unwrap().child;
        let ended = end(&mut child).await;
        assert_eq!(ended.to_string(), text, "{script}");
        assert_eq!(ended.signal_name().as_deref(), signal, "{script}");
        assert_eq!(ended.is_success(), script == "exit 0");
        assert_eq!(
            child.try_wait().unwrap(),
            Some(ended),
            "the end is told once only"
        );
    }
    assert_eq!(*children.watched(), BTreeSet::new());
}

#[tokio::test]
async fn a_child_runs_until_a_signal_ends_it() {
    let children = Children::default();
    let mut child = children
        .start(shell("while :; do sleep 60; done"))
        .unwrap()
        .child;
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(
        timeout(Duration::from_millis(5), child.wait())
            .await
            .is_err()
    );
    child.kill(Signal::KILL).unwrap();
    let ended = end(&mut child).await;
    assert_eq!(
        ended,
        ChildExit::Signaled {
            signal: libc::SIGKILL,
            core: false
        }
    );
    child.kill(Signal::KILL).unwrap_err();
}

#[tokio::test]
async fn many_children_keep_their_own_ends() {
    let children = Children::default();
    let start = |code: i32| {
        children
            .start(shell(&format!("exit {code}")))
            .unwrap()
            .child
    };
    let mut started: Vec<_> = (0..20).map(start).collect();
    for (code, child) in started.iter_mut().enumerate().rev() {
        assert_eq!(
            end(child).await,
            ChildExit::Exited {
                code: i32::try_from(code).unwrap()
            }
        );
    }
}

#[tokio::test]
async fn a_child_of_an_earlier_image_is_watched_by_its_number() {
    let before = Children::default();
    let child = before.start(shell("exit 4")).unwrap().child;
    let after = Children::default();
    let mut adopted = after.adopt(child.pid()).unwrap();
    assert_eq!(end(&mut adopted).await, ChildExit::Exited { code: 4 });
    for stranger in [1, 0, -1, i32::MAX, child.pid()] {
        after.adopt(stranger).unwrap_err();
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let children = Children::default();
    children
        .start(Command::new("/nonexistent/host"))
        .unwrap_err();
    assert_eq!(*children.watched(), BTreeSet::new());
}

#[test]
fn the_program_is_the_same_each_time_it_is_asked() {
    let first = Executable::of_this_process().unwrap();
    assert_eq!(
        first.build(),
        Executable::of_this_process().unwrap().build()
    );
    assert!(first.build().starts_with(env!("CARGO_PKG_VERSION")));
}
