//! An app that runs as a program, without a host: the macro `plugin_api::main!`, in the example `standalone`.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{self, Child, Command, Stdio},
};

/// The running example. The drop kills the process.
struct Program(Child);

impl Program {
    /// Builds the example, and starts it with these arguments.
    fn start(args: &[&str]) -> Self {
        // Cargo builds the example together with this test only for some commands, so build it here.
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package=host-plugin-api",
                "--features=standalone",
            ])
            .arg("--example=standalone")
            .status();
        assert!(built.unwrap().success());
        // This test is target/debug/deps/standalone-HASH, and the example is target/debug/examples/standalone.
        let test = env::current_exe().unwrap();
        let program = test
            .ancestors()
            .nth(3)
            .unwrap()
            .join("debug/examples/standalone");
        let child = Command::new(program)
            .args(args)
            .env_remove("HOST_BIND")
            .env_remove("HOST_LOG_LEVEL")
            .env_remove("HOST_CONFIG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits until the program listens, and returns its address.
    fn address(&mut self) -> String {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.0.stdout.as_mut().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("Listening on http://");
        address.unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    /// Sends SIGTERM.
    fn terminate(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }

    /// Waits for the end of the program. Returns the text that it printed to stderr, and its exit code.
    fn wait(mut self) -> (String, Option<i32>) {
        let mut text = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (text, self.0.wait().unwrap().code())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ignore errors, because the program may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_logs_at_the_level_and_stops_gracefully() {
    let mut program = Program::start(&["--bind=127.0.0.1:0", "--log-level", "warning"]);
    let mut stream = TcpStream::connect(program.address()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nhello world"), "{response}");

    program.terminate();
    let (log, code) = program.wait();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<_> = log.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("a WARNING message"),
        "{log}"
    );
    assert!(lines[1].contains("goodbye soon"), "{log}");
}

#[test]
fn it_waits_for_connections_that_were_taken_over() {
    let mut program = Program::start(&["--bind=127.0.0.1:0", "--log-level", "warning"]);
    let mut stream = TcpStream::connect(program.address()).unwrap();
    stream
        .write_all(b"GET /talk HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n")
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");

    program.terminate();
    let mut goodbye = [0; 7];
    stream.read_exact(&mut goodbye).unwrap();
    assert_eq!(&goodbye, b"goodbye");
    // The program ends only after the upgraded connection: it still waits for the client's answer.
    stream.get_mut().write_all(b"bye").unwrap();
    let (log, code) = program.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the client has heard"), "{log}");
}

#[test]
fn it_is_told_by_the_servers_file_and_obeys_a_second_signal() {
    let file = env::temp_dir().join(format!("shop-{}.toml", process::id()));
    let text = "bind = '127.0.0.1:0'\nthreads = 2\n[app.shop]\nconfig = { closes = 'never' }";
    fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let mut program = Program::start(&[&*config]);
    program.address();
    fs::remove_file(file).unwrap();
    program.terminate();
    let mut lines = BufReader::new(program.0.stderr.take().unwrap()).lines();
    // The shutdown hook of the app now blocks its thread, so only the second signal ends the program.
    assert!(lines.any(|line| line.unwrap().contains("goodbye never")));
    program.terminate();
    assert!(lines.any(|line| line.unwrap().contains("Stopping at once")));
    assert_eq!(program.0.wait().unwrap().code(), Some(1));
}

#[test]
fn it_says_what_it_takes() {
    let mut program = Program::start(&["--help"]);
    let mut text = String::new();
    let stdout = program.0.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert!(
        text.contains("Usage: shop") && text.contains("[app.shop]"),
        "{text}"
    );
    assert_eq!(program.wait().1, Some(0));
}

#[test]
fn it_does_not_start_with_a_level_that_is_none() {
    let (log, code) = Program::start(&["--log-level=loud"]).wait();
    assert_eq!(code, Some(2), "{log}");
    assert!(
        log.contains("\"loud\" is not a log level, expected trace"),
        "{log}"
    );
}
