//! A running host.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    thread,
};

use hyper::{Request, Version};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, prlimit, waitid,
};

use crate::{Connection, Exit, Folder, Frames, Lines, Reply, RequestBody, Wire, eventually};

/// A host. When it is dropped it is killed; when a panic is the reason, its log is shown.
#[derive(Debug)]
pub struct Host {
    child: Child,
    folder: Folder,
    stdout: Lines,
    stderr: Lines,
    addresses: Vec<SocketAddr>,
}

impl Host {
    pub(crate) fn new(child: Child, folder: Folder, stdout: Lines, stderr: Lines) -> Self {
        Self {
            child,
            folder,
            stdout,
            stderr,
            addresses: Vec::new(),
        }
    }

    /// Reads where it listens from stdout or, where the access log is there, from the log.
    pub async fn listening(&mut self, count: usize) {
        for index in self.addresses.len()..count {
            let address = eventually("an address", async || self.listens(index)).await;
            self.addresses.push(address);
        }
    }

    /// Takes note of where it listens, for a host whose streams are the test's.
    pub fn is_at(&mut self, address: SocketAddr) {
        self.addresses.push(address);
    }

    fn listens(&self, index: usize) -> Option<SocketAddr> {
        let printed = self.stdout.with(&["Listening on http://"]);
        let logged = self.stderr.with(&["Listening", "http://"]);
        let line = [printed, logged]
            .into_iter()
            .find(|lines| lines.len() > index)?;
        let (_, address) = line[index].split_once("http://")?;
        let end =
            address.find(|letter: char| !letter.is_ascii_hexdigit() && !".:[]".contains(letter));
        address[..end.unwrap_or(address.len())].parse().ok()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of a host that was told to listen on `count` of them.
    pub async fn addresses(&mut self, count: usize) -> &[SocketAddr] {
        self.listening(count).await;
        &self.addresses
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its plugins folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Its stderr.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.stderr
    }

    /// Its stdout.
    #[must_use]
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// A connection of this version of HTTP.
    pub async fn connect(&self, version: Version) -> Connection {
        match version {
            Version::HTTP_2 => self.http2().await,
            _ => self.http1().await,
        }
    }

    /// A connection of HTTP/1.1.
    pub async fn http1(&self) -> Connection {
        Connection::http1(self.address()).await
    }

    /// A connection of HTTP/2.
    pub async fn http2(&self) -> Connection {
        Connection::http2(self.address()).await
    }

    /// A connection of HTTP/2 without a client, whose streams have this window at first.
    pub async fn frames(&self, window: u32) -> Frames {
        Frames::connect(self.address(), window).await
    }

    /// A connection without a client.
    pub async fn wire(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// The response to `GET path`, on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.http1().await.get(path).await
    }

    /// The response to a request, on a connection of its own.
    ///
    /// # Panics
    ///
    /// When the connection ends before.
    pub async fn exchange(&self, request: Request<RequestBody>) -> Reply {
        self.http1()
            .await
            .exchange(request)
            .await
            .expect("the host answers")
    }

    /// Returns when `GET path` is answered with 200 and this text.
    pub async fn serves(&self, path: &str, text: &str) {
        let what = format!("{path} answers {text:?}");
        eventually(&what, async || {
            let reply = self.get(path).await;
            (reply.status == 200 && reply.text() == text).then_some(())
        })
        .await;
    }

    /// Returns when `GET path` is answered with this status.
    pub async fn answers(&self, path: &str, status: u16) -> Reply {
        let what = format!("{path} answers {status}");
        eventually(&what, async || {
            Some(self.get(path).await).filter(|reply| reply.status == status)
        })
        .await
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the host runs");
    }

    /// Changes how many files it and its workers may have open: none for as many as the system allows.
    ///
    /// # Panics
    ///
    /// When the host is gone, or the system does not allow it.
    pub fn limit_open_files(&self, limit: Option<u64>) {
        // Children have it from this process.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: limit.or(maximum),
            maximum,
        };
        for process in [vec![Pid::from_child(&self.child)], self.workers()].concat() {
            prlimit(Some(process), Resource::Nofile, limit).expect("the soft limit may change");
        }
    }

    /// The processes that it has started.
    fn workers(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let children = tasks.expect("the host runs").filter_map(|task| {
            // A thread may have ended meanwhile.
            fs::read_to_string(task.ok()?.path().join("children")).ok()
        });
        let text: String = children.collect();
        let ids = text.split_whitespace().filter_map(|id| id.parse().ok());
        ids.filter_map(Pid::from_raw).collect()
    }

    /// Stops all its threads, until [`Signal::CONT`] goes on.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let child = WaitId::Pid(Pid::from_child(&self.child));
        let stopped = waitid(child, WaitIdOptions::STOPPED);
        stopped.expect("it is a child of this process");
    }

    /// Stops it gracefully. What it printed is complete then.
    pub async fn stop(self) -> Exit {
        self.signal(Signal::TERM);
        self.exit().await
    }

    /// How it ends, by itself or by a signal before.
    pub async fn exit(mut self) -> Exit {
        let status = eventually("the end of the host", async || self.ended()).await;
        self.stdout.closed().await;
        self.stderr.closed().await;
        Exit {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    ///
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("it is a child of this process")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- the host printed ---\n{}{}---",
                self.stdout, self.stderr
            );
        }
    }
}
