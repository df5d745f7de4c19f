//! A child process that runs until it dies, and what its parent finds then.

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

/// A child, and what it writes.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) scoreboard: Scoreboard,
    go_on: fs::File,
}

pub(crate) struct Dead {
    pub(crate) status: ExitStatus,
    pub(crate) board: BoardSnapshot,
    pub(crate) stderr: String,
}

pub(crate) fn died(way: &str) -> Dead {
    Running::start(way).dead()
}

impl Running {
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
            go_on: write.into(),
        }
    }

    pub(crate) fn board(&self) -> BoardSnapshot {
        self.scoreboard.snapshot()
    }

    pub(crate) fn until(&mut self, is_so: impl Fn(&BoardSnapshot) -> bool) {
        eventually(|| {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}");
            is_so(&self.board())
        });
    }

    pub(crate) fn go_on(&mut self) {
        rustix::io::write(&self.go_on, b".").unwrap();
    }

    pub(crate) fn kill(&self, signal: c_int) {
        // SAFETY: it has no memory to be wrong about.
        unsafe { libc::kill(self.child.id() as c_int, signal) };
    }

    pub(crate) fn dead(mut self) -> Dead {
        drop(self.go_on);
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        Dead {
            status: self.child.wait().unwrap(),
            board: self.scoreboard.snapshot(),
            stderr,
        }
    }
}

impl Dead {
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

pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < patience, "it took too long");
        thread::sleep(Duration::from_millis(2));
    }
}
