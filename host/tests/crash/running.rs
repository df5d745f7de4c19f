//! A child process, and the evidence that its parent has after the child has ended.

use std::{
    env,
    ffi::c_int,
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use host::{
    scoreboard::{BoardSnapshot, Scoreboard},
    supervisor::{
        autopsy::{self, Death, Evidence},
        process::ChildExit,
    },
};

/// A running child. Dropping the value does not end the child.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// The memory that the child shares.
    pub(crate) scoreboard: Scoreboard,
    /// The writing end of the pipe from which the child reads.
    pipe: fs::File,
}

/// A child that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) board: BoardSnapshot,
    pub(crate) stderr: String,
}

/// Starts a child, and waits until it has ended. `way` is a value of `CRASH_WAY`.
pub(crate) fn run_child(way: &str) -> Ended {
    Running::start(way).wait()
}

impl Running {
    /// Starts a child: this program, with the scoreboard's memory as stdin and a pipe as stdout.
    pub(crate) fn start(way: &str) -> Self {
        let (scoreboard, file) = Scoreboard::create().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child::child", "--nocapture"])
            .env("CRASH_WAY", way)
            .stdin(Stdio::from(file))
            .stdout(Stdio::from(read))
            .stderr(Stdio::piped())
            .spawn();
        Self {
            child: child.unwrap(),
            scoreboard,
            pipe: write.into(),
        }
    }

    pub(crate) fn board(&self) -> BoardSnapshot {
        self.scoreboard.snapshot()
    }

    /// Waits until the scoreboard satisfies `condition`. Panics if the child ends.
    pub(crate) fn wait_until(&mut self, condition: impl Fn(&BoardSnapshot) -> bool) {
        eventually(|| {
            let status = self.child.try_wait().unwrap();
            assert!(status.is_none(), "{status:?}");
            condition(&self.board())
        });
    }

    /// Lets a child that waits for its parent proceed.
    pub(crate) fn proceed(&mut self) {
        rustix::io::write(&self.pipe, b".").unwrap();
    }

    /// Sends a signal to the child.
    pub(crate) fn kill(&self, signal: c_int) {
        // SAFETY: `kill` accesses no memory of this process.
        unsafe { libc::kill(self.child.id() as c_int, signal) };
    }

    /// Waits until the child has ended.
    pub(crate) fn wait(mut self) -> Ended {
        // A child that waits for its parent now proceeds.
        drop(self.pipe);
        let mut stderr = String::new();
        let mut stderr_pipe = self.child.stderr.take().unwrap();
        stderr_pipe.read_to_string(&mut stderr).unwrap();
        Ended {
            status: self.child.wait().unwrap(),
            board: self.scoreboard.snapshot(),
            stderr,
        }
    }
}

impl Ended {
    /// Returns the result of the autopsy.
    pub(crate) fn examine(&self) -> Death {
        autopsy::examine(&Evidence {
            status: match self.status.signal() {
                Some(signal) => ChildExit::Signaled {
                    signal,
                    core: self.status.core_dumped(),
                },
                None => ChildExit::Exited {
                    code: self.status.code().unwrap(),
                },
            },
            board: &self.board,
            loading: &[],
            probation: &[],
            last_words: &self.stderr,
            out_of_memory: false,
        })
        .locate()
    }
}

/// Waits until `condition` returns true. Panics after 20 s.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it took too long");
        thread::sleep(Duration::from_millis(2));
    }
}
