//! The servers: processes, each pinned to a core, and what they cost.

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

/// The command that starts `host` with these plugins.
#[must_use]
pub fn host(programs: &Path, plugins: &Path) -> Vec<String> {
    // One process: a worker is the same program, which would have to be measured apart from its supervisor.
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

/// The command that starts `host` with these plugins in a worker process, as it is by default.
#[must_use]
pub fn host_with_worker(programs: &Path, plugins: &Path) -> Vec<String> {
    let mut command = host(programs, plugins);
    command.retain(|arg| arg != "--workers=0");
    command
}

/// The command that starts a twin: `bare` or `axum`.
#[must_use]
pub fn twin(programs: &Path, kind: &str) -> Vec<String> {
    let program = programs.join("twin").display().to_string();
    vec![program, kind.to_owned(), "1".to_owned()]
}

/// A running server. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    clock: ClockId,
}

impl Server {
    /// Starts a server that prints where it listens, on a core or on all.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not say where it listens.
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
        // What follows is not waited for, and must not fill the pipe.
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        Self::new(child, address)
    }

    /// Starts nginx, with its files in `folder`, to answer every request with a greeting.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not listen.
    pub fn nginx(folder: &Path, http2: bool, core: u32) -> Result<Self, Box<dyn Error>> {
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
            if began.elapsed() > PATIENCE {
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a path is served, and gives the answer.
    ///
    /// # Errors
    ///
    /// When it is not served within a minute.
    pub fn serves(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let answer = self.get(path);
            match answer {
                Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(answer),
                answer if began.elapsed() > PATIENCE => {
                    return Err(format!("{path} is not served: {answer:?}").into());
                }
                _ => thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// The answer to a request, on a connection of its own.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn get(&self, path: &str) -> io::Result<String> {
        self.exchange(&cases::get(path, &[("Connection", "close")]))
    }

    fn exchange(&self, request: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The time that it spent on a core in all, as `/proc/PID/stat` has it in hundredths of a
    /// second: user and system.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(clock_gettime(self.clock)?.into())
    }

    /// The memory that it has.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn memory(&self) -> Result<Memory, Box<dyn Error>> {
        Memory::of(self.child.id())
    }

    /// The memory of the processes that it has started.
    ///
    /// # Errors
    ///
    /// When it or one of them has ended.
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
        // The host takes its copies of libraries along.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                drop(self.child.kill());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All that is resident: its own, and pages of files.
    pub resident: f64,
    /// The same, but pages that several processes have count in parts.
    pub proportional: f64,
    /// What no file has.
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

/// A command that runs on one core only.
pub(crate) fn pinned(core: Option<u32>, program: &str) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string(), program]);
    command
}

/// How long to wait for what takes no time.
const PATIENCE: Duration = Duration::from_secs(60);
