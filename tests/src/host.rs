//! A running host: its address, its output, connections to it, and its end.

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

/// A running host. Dropping the value kills the host. If the test panics, the drop also prints the host's output.
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

    /// Waits until the host has printed `count` addresses: on stdout, or in the log if stdout is the access log.
    pub async fn wait_listening(&mut self, count: usize) {
        for index in self.addresses.len()..count {
            let address = eventually("an address", async || self.find_address(index)).await;
            self.addresses.push(address);
        }
    }

    /// Sets the host's address. For a test that reads stdout and stderr of the host itself.
    pub fn set_address(&mut self, address: SocketAddr) {
        self.addresses.push(address);
    }

    /// Returns address `index`, counted from 0, if the host has printed it.
    fn find_address(&self, index: usize) -> Option<SocketAddr> {
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

    /// Returns the first address on which the host listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns the addresses of a host that listens on `count` addresses.
    pub async fn addresses(&mut self, count: usize) -> &[SocketAddr] {
        self.wait_listening(count).await;
        &self.addresses
    }

    /// Returns the process id of the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the plugins folder of the host.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the stderr of the host.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.stderr
    }

    /// Returns the stdout of the host.
    #[must_use]
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Opens a connection with this version of HTTP.
    pub async fn connect(&self, version: Version) -> Connection {
        match version {
            Version::HTTP_2 => self.http2().await,
            _ => self.http1().await,
        }
    }

    /// Opens an HTTP/1.1 connection.
    pub async fn http1(&self) -> Connection {
        Connection::http1(self.address()).await
    }

    /// Opens an HTTP/2 connection.
    pub async fn http2(&self) -> Connection {
        Connection::http2(self.address()).await
    }

    /// Opens an HTTP/2 connection for single frames. `window` is the initial window of each stream in bytes.
    pub async fn frames(&self, window: u32) -> Frames {
        Frames::connect(self.address(), window).await
    }

    /// Opens a connection for raw bytes.
    pub async fn wire(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// Sends `GET path` on a new connection, and returns the response.
    pub async fn get(&self, path: &str) -> Reply {
        self.http1().await.get(path).await
    }

    /// Sends a request on a new connection, and returns the response.
    ///
    /// # Panics
    ///
    /// Panics if the connection ends before the response does.
    pub async fn exchange(&self, request: Request<RequestBody>) -> Reply {
        self.http1()
            .await
            .exchange(request)
            .await
            .expect("the host answers")
    }

    /// Waits until `GET path` is answered with 200 and this text.
    pub async fn serves(&self, path: &str, text: &str) {
        let what = format!("{path} answers {text:?}");
        eventually(&what, async || {
            let reply = self.get(path).await;
            (reply.status == 200 && reply.text() == text).then_some(())
        })
        .await;
    }

    /// Waits until `GET path` is answered with this status, and returns the response.
    pub async fn answers(&self, path: &str, status: u16) -> Reply {
        let what = format!("{path} answers {status}");
        eventually(&what, async || {
            Some(self.get(path).await).filter(|reply| reply.status == status)
        })
        .await
    }

    /// Sends a signal to the host.
    ///
    /// # Panics
    ///
    /// Panics if the host has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the host runs");
    }

    /// Changes the soft limit on open files of the host and its workers. `None` is the hard limit.
    ///
    /// # Panics
    ///
    /// Panics if the host has ended, or the system does not allow the change.
    pub fn limit_open_files(&self, limit: Option<u64>) {
        // The host has inherited its hard limit from this process.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: limit.or(maximum),
            maximum,
        };
        for process in [vec![Pid::from_child(&self.child)], self.workers()].concat() {
            prlimit(Some(process), Resource::Nofile, limit).expect("the soft limit may change");
        }
    }

    /// Returns the child processes of the host.
    fn workers(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let children = tasks.expect("the host runs").filter_map(|task| {
            // The read fails if the thread has ended since the folder was listed.
            fs::read_to_string(task.ok()?.path().join("children")).ok()
        });
        let text: String = children.collect();
        let ids = text.split_whitespace().filter_map(|id| id.parse().ok());
        ids.filter_map(Pid::from_raw).collect()
    }

    /// Stops all threads of the host until it gets [`Signal::CONT`].
    ///
    /// # Panics
    ///
    /// Panics if the host has ended.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let child = WaitId::Pid(Pid::from_child(&self.child));
        let stopped = waitid(child, WaitIdOptions::STOPPED);
        stopped.expect("the host is a child of this process");
    }

    /// Stops the host gracefully. Returns how the host ended, with its complete output.
    pub async fn stop(self) -> Exit {
        self.signal(Signal::TERM);
        self.exit().await
    }

    /// Waits until the host ends by itself or after an earlier signal. Returns how the host ended, with its complete
    /// output.
    pub async fn exit(mut self) -> Exit {
        let status = eventually("the end of the host", async || self.exit_status()).await;
        self.stdout.closed().await;
        self.stderr.closed().await;
        Exit {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }

    /// Returns the exit status of the host, or `None` if the host is still running.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot query the process.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait();
        status.expect("the host is a child of this process")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The kill fails if the process has already ended.
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
