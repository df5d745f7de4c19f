//! The start and the end of workers and of other children.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use host::{
    channel::{listeners, socket_pair},
    supervisor::{
        output_tail::OutputTail,
        process::{ChildExit, Children, Executable},
    },
    worker::lifeline::CHANNEL_FD,
};
use rustix::process::{Pid, getpgid, getpid, set_child_subreaper, test_kill_process};

use crate::{
    TIME_LIMIT, block_on, eventually,
    worker::{Notice, Order, Worker},
};

pub(crate) fn a_worker_talks_and_prints_and_ends() {
    block_on(async {
        let executable = Executable::of_this_process().unwrap();
        let mut worker = Worker::start(&Children::default(), &executable).await;
        let Notice::Started {
            channel_fd,
            stdin,
            group_is_own,
            name,
        } = worker.notice().await
        else {
            panic!("a notice of the start");
        };
        assert!(channel_fd >= CHANNEL_FD);
        assert_eq!(stdin, Path::new("/dev/null"));
        assert!(group_is_own, "a Ctrl-C would reach the worker");
        assert_eq!(name, "host\n");
        worker.say("one").await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listeners::share(&listener).unwrap();
        worker
            .orders
            .send_with(&Order::Serve("served".to_owned()), vec![socket])
            .unwrap();
        assert_eq!(worker.notice().await, Notice::Served);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
        assert_eq!(worker.output.tail(), ["said one"]);
        worker.stop().await;
    });
}

/// The case runs a copy of this program, so that the program can be removed while it runs.
pub(crate) fn a_worker_is_started_though_its_program_was_replaced() {
    if let Some(program) = env::args_os().nth(3) {
        // This process runs the copy, and the argument is the path of the copy.
        let executable = Executable::of_this_process().unwrap();
        fs::remove_file(program).unwrap();
        return block_on(async {
            let mut worker = Worker::start(&Children::default(), &executable).await;
            assert!(matches!(worker.notice().await, Notice::Started { .. }));
            worker.stop().await;
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("host");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let case = "a_worker_is_started_though_its_program_was_replaced";
    let status = Command::new(&copy)
        .args(["case", case])
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!copy.exists());
}

pub(crate) fn a_worker_ends_after_its_supervisor() {
    block_on(async {
        let executable = Executable::of_this_process().unwrap();
        let (ours, theirs) = socket_pair().unwrap();
        let children = Children::default();
        let args = [OsString::from("hangs")];
        let started = children.start_worker(&executable, theirs, args).unwrap();
        let mut child = started.child;
        let output = OutputTail::follow(started.stdout, started.stderr, |_, _| {});
        eventually(|| output.tail() == ["hangs"]).await;
        assert_eq!(child.try_wait().unwrap(), None);
        let group = getpgid(Pid::from_raw(child.pid())).unwrap();
        assert_eq!(group.as_raw_pid(), child.pid());
        drop(ours);
        let ended = tokio::time::timeout(TIME_LIMIT, child.wait())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.to_string(), "SIGKILL");
    });
}

pub(crate) fn orphans_are_reaped_and_children_are_not() {
    set_child_subreaper(Some(getpid())).unwrap();
    block_on(async {
        let children = Children::default();
        children.reap_orphans().unwrap();
        // Each child ends at once and leaves an orphan. When the orphan ends, the reaper checks all ended children of
        // this process, and must not reap the children that `Children` has started.
        let start = |code: u8| {
            let mut command = Command::new("sh");
            let script = format!("sh -c 'echo $$; exec sleep 0.05' & exit {code}");
            command.args(["-c", &script]);
            children.start(command).unwrap()
        };
        let mut ended_children = Vec::new();
        for started in (0..8).map(start).collect::<Vec<_>>() {
            let output = OutputTail::follow(started.stdout, started.stderr, |_, _| {});
            let orphan = output.finish(TIME_LIMIT).await;
            let orphan = Pid::from_raw(orphan[0].parse().unwrap()).unwrap();
            eventually(|| test_kill_process(orphan).is_err()).await;
            ended_children.push(started.child);
        }
        // The children have not been reaped, so their exit codes are still available.
        for (child, code) in ended_children.iter_mut().zip(0..) {
            assert_eq!(child.wait().await.unwrap(), ChildExit::Exited { code });
        }
    });
}
