//! Tests of an upgrade in place: a process executes another program image and keeps its workers, sockets and state.

use std::{
    env,
    ffi::OsString,
    fs::{self, Permissions},
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use host::{
    channel::{Packing, SuspendedChannel, listeners},
    supervisor::{
        output_tail::{OutputTail, SuspendedOutput},
        process::{Children, Executable},
        upgrade::{self, Adopted},
    },
};
use rustix::process::getpid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix;

use crate::{
    block_on,
    worker::{Notice, Order, Orders, Worker},
};

/// The state that the first image passes to the next image.
#[derive(Deserialize, Serialize)]
struct State {
    pid: u32,
    /// The process number of the worker.
    worker: i32,
    channel: SuspendedChannel,
    output: SuspendedOutput,
    /// The index of the listener in the packed descriptors.
    listener: usize,
    greeting: String,
    /// The number of open files of the first image at its start.
    inherited: usize,
}

pub(crate) fn another_image_takes_over_in_place() {
    INHERITED.store(open_files(), Relaxed);
    // Sends signals all the time. No signal may end the process, also not while one image replaces another.
    let this_process = getpid();
    let mut flood = Command::new("sh");
    let script = format!("while kill -HUP {}; do :; done", this_process.as_raw_pid());
    flood.args(["-c", &script]).stdin(Stdio::null());
    block_on(async {
        let _hangups = unix::signal(unix::SignalKind::hangup()).unwrap();
        let children = Children::default();
        let executable = Executable::of_this_process().unwrap();
        let mut worker = Worker::start(&children, &executable).await;
        worker.notice().await;
        worker.say("to the first image").await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _flood = children.start(flood).unwrap();

        try_images_that_cannot_be_executed(&worker);
        worker.say("after a refusal").await;
        // Only the next image reads the answer.
        worker
            .orders
            .send(&Order::Say("between the images".to_owned()))
            .unwrap();
        take_over(&env::current_exe().unwrap(), &worker, &listener).expect("another image");
    });
}

/// Checks that an upgrade to a file that cannot be executed fails and changes nothing.
fn try_images_that_cannot_be_executed(worker: &Worker) {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    fs::write(&broken, "no program").unwrap();
    fs::set_permissions(&broken, Permissions::from_mode(0o700)).unwrap();
    let stdin = fs::read_link("/proc/self/fd/0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for path in [&broken, Path::new("/nonexistent"), folder.path()] {
        let status = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let signal_lines = status.lines().filter(|line| line.starts_with("Sig"));
            // Pending signals change all the time, so they are not compared.
            signal_lines
                .filter(|line| !line.contains("Pnd") && !line.contains("SigQ"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = status();
        let error = take_over(path, worker, &listener).unwrap_err();
        assert!(error.to_string().contains("cannot execute"), "{error}");
        assert_eq!(status(), before);
        assert_eq!(fs::read_link("/proc/self/fd/0").unwrap(), stdin);
    }
}

/// Replaces the image of this process by the program at `path`. Returns only if this fails.
fn take_over(
    path: &Path,
    worker: &Worker,
    listener: &TcpListener,
) -> Result<(), upgrade::UpgradeError> {
    let (channel, output) = (worker.orders.freeze(), worker.output.freeze());
    let mut packing = Packing::default();
    let state = State {
        pid: process::id(),
        worker: worker.child.pid(),
        channel: channel.suspend(&mut packing),
        output: output.suspend(&mut packing),
        listener: packing.put(listener),
        greeting: "from the first image".to_owned(),
        inherited: INHERITED.load(Relaxed),
    };
    let args = ["host", "next image"].map(OsString::from);
    upgrade::exec(path, &args, &state, &packing).map(|_| ())
}

/// Runs as the next image: adopts the state, and checks that everything still works.
pub(crate) fn next_image() {
    let adopted: Adopted<State> = upgrade::adopt().expect("a state").expect("an upgrade");
    let expected = adopted.state.inherited + PASSED_DESCRIPTORS;
    assert_eq!(
        open_files(),
        expected,
        "something else than what was handed over is open"
    );
    block_on(async {
        let mut hangups = unix::signal(unix::SignalKind::hangup()).unwrap();
        adopted.unblock_signals().unwrap();
        let Adopted {
            state,
            mut descriptors,
        } = adopted;
        assert_eq!(state.pid, process::id());
        assert_eq!(state.greeting, "from the first image");
        assert_eq!(
            fs::read_link("/proc/self/fd/0").unwrap(),
            Path::new("/dev/null")
        );
        let child = Children::default()
            .adopt(state.worker)
            .expect("the same child");
        let (orders, notices) = Orders::resume(state.channel, &mut descriptors)
            .unwrap()
            .split();
        let output = OutputTail::resume(state.output, &mut descriptors, |_, _| {}).unwrap();
        let listener = descriptors.take(state.listener).unwrap();
        let listener = listeners::receive(listener).expect("the same listener");
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let flags = rustix::io::fcntl_getfd(listener.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop((client, descriptors));

        let mut worker = Worker {
            child,
            output,
            orders,
            notices,
        };
        assert_eq!(
            worker.notice().await,
            Notice::Said("between the images".to_owned())
        );
        worker.say("to the second image").await;
        let tail = worker.output.tail();
        assert_eq!(
            tail.first().map(String::as_str),
            Some("said to the first image")
        );
        worker.stop().await;
        hangups.recv().await;
    });
}

/// Returns the number of open files of this process.
fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The number of open files of this process at its start.
static INHERITED: AtomicUsize = AtomicUsize::new(0);

/// The number of descriptors that are passed to the next image: a channel, two pipes and a listener.
const PASSED_DESCRIPTORS: usize = 4;
