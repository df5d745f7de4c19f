//! Tests with pipes that the test itself writes to.

use std::{fs::File, io::Write, os::fd::OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

type Seen = Arc<Mutex<Vec<(StandardStream, String)>>>;

fn pipe() -> (pipe::Receiver, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (
        pipe::Receiver::from_owned_fd(reader).unwrap(),
        File::from(writer),
    )
}

fn note(seen: &Seen) -> impl Fn(StandardStream, &str) + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |stream, line| lock(&seen).push((stream, line.to_owned()))
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn lines_of_both_streams_are_handed_on_and_kept() {
    let ((out, mut to_out), (err, mut to_err)) = (pipe(), pipe());
    let seen = Seen::default();
    let words = OutputTail::follow(out, err, note(&seen));
    to_out.write_all(b"one\n\ntw").unwrap();
    to_err.write_all(b"fatal runtime error: \xff\n").unwrap();
    to_out.write_all(b"o").unwrap();
    drop((to_out, to_err));
    let kept = words.finish(PATIENCE).await;
    let of = |wanted| {
        let seen = lock(&seen);
        let lines = seen.iter().filter(|(stream, _)| *stream == wanted);
        lines.map(|(_, line)| line.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(StandardStream::Stdout), ["one", "", "two"]);
    assert_eq!(
        of(StandardStream::Stderr),
        ["fatal runtime error: \u{fffd}"]
    );
    let all: Vec<_> = lock(&seen).iter().map(|(_, line)| line.clone()).collect();
    assert_eq!(kept, all);
}

#[tokio::test]
async fn only_the_last_lines_are_kept() {
    let ((out, mut to_out), (err, _)) = (pipe(), pipe());
    let words = OutputTail::follow(out, err, |_, _| {});
    for number in 0..3000 {
        writeln!(to_out, "{number:>9}").unwrap();
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(to_out);
    let kept = words.finish(PATIENCE).await;
    assert_eq!(kept.len(), MAX_TAIL_BYTES / 9);
    assert_eq!(kept.last().unwrap(), &format!("{:>9}", 2999));
}

#[tokio::test]
async fn a_pipe_that_a_grandchild_holds_open_does_not_hold_up_the_end() {
    let ((out, mut to_out), (err, _)) = (pipe(), pipe());
    let words = OutputTail::follow(out, err, |_, _| {});
    to_out.write_all(b"last\n").unwrap();
    while words.tail().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(words.finish(Duration::from_millis(5)).await, ["last"]);
}

#[test]
fn a_line_that_is_half_read_goes_on_after_an_exec() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    // The tasks of the first reader end with their runtime, as they do at an exec.
    let (suspended, fds, mut to_out, to_err) = runtime().block_on(async {
        let ((out, mut to_out), (err, to_err)) = (pipe(), pipe());
        let words = OutputTail::follow(out, err, |_, _| {});
        to_out.write_all(b"whole\nha").unwrap();
        while words.tail().is_empty() {
            tokio::task::yield_now().await;
        }
        let frozen = words.freeze();
        let mut packing = Packing::default();
        let suspended = frozen.suspend(&mut packing);
        let fds = packing.all().iter().map(|fd| fd.try_clone_to_owned());
        let fds = fds.collect::<Result<Vec<OwnedFd>, _>>().unwrap();
        (suspended, fds, to_out, to_err)
    });
    runtime().block_on(async {
        let (seen, mut fds) = (Seen::default(), Unpacking::from(fds));
        let words = OutputTail::resume(suspended, &mut fds, note(&seen)).unwrap();
        assert_eq!(words.tail(), ["whole"]);
        to_out.write_all(b"lf\n").unwrap();
        drop((to_out, to_err));
        assert_eq!(words.finish(PATIENCE).await, ["whole", "half"]);
        assert_eq!(*lock(&seen), [(StandardStream::Stdout, "half".to_owned())]);
    });
}
