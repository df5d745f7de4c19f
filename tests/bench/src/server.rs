//! Starts the servers that are measured, each as a process pinned to a core, and reads their processor time and memory.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use rustix::process::{Pid, Signal, kill_process};

use crate::cases;

/// Returns the command that starts `host` with these plugins, in one process and with one serving thread.
#[must_use]
pub fn host(programs: &Path, plugins: &Path) -> Vec<String> {
    // Without a worker process, because processor time and memory are measured for one process only.
    let flags = [
        "--bind=127.0.0.1:0",
        "--workers=0",
        "--threads=1",
        "--app-threads=1",
    ];
    let mut command = vec![programs.join("host").display().to_string()];
    command.extend(flags.map(Into::into));
    command.push(format!("--plugins={}", plugins.display()));
    command
}

/// Returns the command that starts `host` with these plugins in a worker process, which is the default.
#[must_use]
pub fn host_with_worker(programs: &Path, plugins: &Path) -> Vec<String> {
    let mut command = host(programs, plugins);
    command.retain(|arg| arg != "--workers=0");
    command
}

/// Returns the command that starts a twin with one thread. `kind` is `bare` or `axum`.
#[must_use]
pub fn twin(programs: &Path, kind: &str) -> Vec<String> {
    let program = programs.join("twin").display().to_string();
    vec![program, kind.to_owned(), "1".to_owned()]
}

/// A running server. The drop stops the server and waits for its end.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    /// The clock of the processor time of the process.
    clock: ClockId,
}

impl Server {
    /// Starts a server that prints its address. The server runs on one core, or on all cores if `core` is `None`.
    ///
    /// # Errors
    ///
    /// Returns an error when the server cannot be started or does not print its address.
    pub fn start(command: &[String], core: Option<u32>) -> Result<Self, Box<dyn Error>> {
        let mut log = tempfile::tempfile()?;
        let mut child = spawn(command, core, Stdio::piped(), &log)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("Listening on http://") else {
            child.wait()?;
            log.rewind()?;
            let log = io::read_to_string(log)?;
            return Err(format!("{} does not listen: {line}{log}", command[0]).into());
        };
        let address = address.parse()?;
        // Reads the rest of the output, because a full pipe would block the server.
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        Self::new(child, address)
    }

    /// Starts nginx, with its files in `folder`. It answers every request with "hello world".
    ///
    /// # Errors
    ///
    /// Returns an error when nginx cannot be started or does not listen.
    pub fn nginx(folder: &Path, http2: bool, core: u32) -> Result<Self, Box<dyn Error>> {
        // nginx does not print its address, so find a free port first. The listener is closed at once.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let listen = format!("{address}{}", if http2 { " http2" } else { "" });
        let config = include_str!("nginx.conf")
            .replace("FOLDER", &folder.display().to_string())
            .replace("LISTEN", &listen);
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let (folder, file) = (folder.display().to_string(), file.display().to_string());
        let command = ["nginx", "-p", &folder, "-c", &file, "-e", "stderr"].map(Into::into);
        let log = tempfile::tempfile()?;
        let server = Self::new(spawn(&command, Some(core), Stdio::null(), &log)?, address)?;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > TIMEOUT {
                return Err("nginx does not listen".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn new(child: Child, address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        Ok(Self {
            clock: clock_getcpuclockid(pid)?,
            child,
            address,
        })
    }

    /// Returns the address on which the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests the path until the status is 200, and returns that response.
    ///
    /// # Errors
    ///
    /// Returns an error when the path is not served within a minute.
    pub fn serves(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let answer = self.get(path);
            match answer {
                Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(answer),
                answer if began.elapsed() > TIMEOUT => {
                    return Err(format!("{path} is not served: {answer:?}").into());
                }
                _ => thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// Requests a path on a new connection, and returns the whole response.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the connection fails.
    pub fn get(&self, path: &str) -> io::Result<String> {
        self.exchange(&cases::get(path, &[("Connection", "close")]))
    }

    fn exchange(&self, request: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the processor time of the process since its start, user and system. The clock is more precise than
    /// `/proc/PID/stat`, which counts hundredths of a second.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the process has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(clock_gettime(self.clock)?.into())
    }

    /// Returns the memory of the process.
    ///
    /// # Errors
    ///
    /// Returns an error when the process has ended.
    pub fn memory(&self) -> Result<Memory, Box<dyn Error>> {
        Memory::of(self.child.id())
    }

    /// Returns the memory of each child process.
    ///
    /// # Errors
    ///
    /// Returns an error when the process or a child has ended.
    pub fn memory_of_children(&self) -> Result<Vec<Memory>, Box<dyn Error>> {
        let mut children = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let list = fs::read_to_string(task?.path().join("children"))?;
            for pid in list.split_whitespace() {
                children.push(Memory::of(pid.parse()?)?);
            }
        }
        Ok(children)
    }
}

impl Memory {
    fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |key: &str| -> Result<f64, Box<dyn Error>> {
            let value = text.lines().find_map(|line| line.strip_prefix(key));
            let value = value.and_then(|value| value.trim().strip_suffix(" kB"));
            Ok(value.ok_or_else(|| format!("no {key}"))?.trim().parse()?)
        };
        Ok(Self {
            resident: kib("Rss:")?,
            proportional: kib("Pss:")?,
            anonymous: kib("Anonymous:")?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first, because a host that is killed would leave its copies of libraries on the disk.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > TIMEOUT {
                drop(self.child.kill());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The resident set size: anonymous memory, and the pages of files that are in memory.
    pub resident: f64,
    /// The proportional set size: as the resident set size, but a page that N processes share counts as 1/N.
    pub proportional: f64,
    /// Memory that belongs to no file.
    pub anonymous: f64,
}

fn spawn(command: &[String], core: Option<u32>, stdout: Stdio, log: &File) -> io::Result<Child> {
    pinned(core, &command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log.try_clone()?)
        .spawn()
}

/// Returns a command that runs the program on this core only, or on all cores if `core` is `None`.
pub(crate) fn pinned(core: Option<u32>, program: &str) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string(), program]);
    command
}

/// The limit for steps that normally take no time.
const TIMEOUT: Duration = Duration::from_secs(60);
