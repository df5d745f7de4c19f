//! Runs `cargo build` and parses the output.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::{profile::BuildProfile, project::Project, state::BuildProgress};

/// The options of a build that do not come from the project.
#[derive(Clone, Debug, Default)]
pub(super) struct CargoOptions {
    /// Options of Cargo from the command line of `host dev`, such as `--features=…`.
    pub(super) author_options: Vec<String>,
    /// Options that make the build fast.
    pub(super) profile: BuildProfile,
}

/// The result of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CargoOutput {
    /// Whether all plugins were built.
    pub(super) success: bool,
    /// The paths of the built libraries by Cargo's package ids.
    pub(super) libraries: BTreeMap<String, PathBuf>,
    /// Errors and warnings as the compiler renders them, with ANSI colours.
    pub(super) report: String,
}

/// The meaning of a line that Cargo printed during a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CargoEvent {
    /// Cargo has redrawn its progress bar.
    Progress(BuildProgress),
    /// True: Cargo fetches or compiles dependencies. False: Cargo has reached the author's crates.
    CompilesDependencies(bool),
    /// Any other line, for people to read.
    Line(String),
}

/// Returns the target folder of a session. The author's own builds and an editor's `cargo check` must not use the same
/// folder: Cargo locks a target folder during a build, and a build with other options replaces the results.
pub(super) fn target_folder(project: &Project) -> PathBuf {
    project.target.join("host-dev")
}

/// Builds the plugins of a project, and passes each line of Cargo's stderr to `on_event`. Dropping the future kills
/// Cargo and every process that Cargo has started.
///
/// # Errors
///
/// Fails when Cargo cannot be run or its output cannot be read. A failed build is no error, but sets
/// [`CargoOutput::success`] to false.
pub(super) async fn build(
    project: &Project,
    options: &CargoOptions,
    mut on_event: impl FnMut(CargoEvent),
) -> io::Result<CargoOutput> {
    let mut cargo = ProcessGroup::spawn(build_command(project, options))?;
    let (stdout, stderr) = (cargo.child.stdout.take(), cargo.child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut output = CargoOutput {
        success: false,
        libraries: BTreeMap::new(),
        report: String::new(),
    };
    let mut cargo_errors = String::new();
    let mut compiles_own_crates = false;
    let read_messages = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            output.add_message(&line);
        }
        Ok::<_, io::Error>(())
    };
    let read_lines = for_each_line(stderr, |line| {
        if let Some(progress) = parse_progress(line) {
            return on_event(CargoEvent::Progress(progress));
        }
        let plain = strip_colours(line);
        let mut packages = project.packages.iter();
        if packages.any(|package| package.is_compiled(&plain)) {
            compiles_own_crates = true;
            on_event(CargoEvent::CompilesDependencies(false));
        } else if !compiles_own_crates
            && DEPENDENCY_STEPS
                .iter()
                .any(|word| plain.trim_start().starts_with(word))
        {
            on_event(CargoEvent::CompilesDependencies(true));
        }
        // Collect all lines from the first error on, because Cargo prints the causes after the error.
        if plain.starts_with("error") || plain.starts_with("Caused by") || !cargo_errors.is_empty()
        {
            cargo_errors.push_str(line);
            cargo_errors.push('\n');
        }
        on_event(CargoEvent::Line(line.to_owned()));
    });
    // Read both streams concurrently: Cargo would block on the pipe that nobody reads once that pipe is full.
    tokio::try_join!(read_messages, read_lines)?;
    let status = cargo.child.wait().await?;
    output.success = status.success();
    let is_plugin = |id: &String| project.plugins.iter().any(|plugin| plugin.id == *id);
    // Remove dependencies that are cdylibs: Cargo reports their libraries too.
    output.libraries.retain(|id, _| is_plugin(id));
    if !output.success && output.report.is_empty() {
        // Cargo failed before the compiler ran, for instance because of a syntax error in a manifest.
        output.report = cargo_errors;
    }
    Ok(output)
}

fn build_command(project: &Project, options: &CargoOptions) -> Command {
    let mut command = Command::new("cargo");
    command
        .args([
            "build",
            "--lib",
            "--message-format=json-diagnostic-rendered-ansi",
        ])
        .arg("--manifest-path")
        .arg(&project.manifest)
        .arg("--target-dir")
        .arg(target_folder(project))
        .args(options.profile.options())
        .args(&options.author_options)
        .current_dir(&project.root)
        // Cargo writes to a pipe, and would otherwise print neither colours nor a progress bar.
        .env("CARGO_TERM_COLOR", "always")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "80")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // With a process group of its own, Cargo does not get the terminal's Ctrl-C: the session ends Cargo. The
        // group also makes it possible to kill the compilers that Cargo has started.
        .process_group(0);
    for plugin in &project.plugins {
        command.arg("--package").arg(&plugin.id);
    }
    command
}

impl CargoOutput {
    /// Adds a line of Cargo's stdout to the output: a JSON message (The Cargo Book, External tools). Ignores a line
    /// that is no JSON, because other programs of a build, such as procedural macros, may print to the same stream.
    fn add_message(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        match message["reason"].as_str() {
            Some("compiler-message") => {
                let rendered = message["message"]["rendered"].as_str();
                self.report.push_str(rendered.unwrap_or_default());
            }
            // Check the kind: the file of a procedural macro is an `.so` as well.
            Some("compiler-artifact") if is_cdylib(&message["target"]) => {
                let files = message["filenames"].as_array();
                let mut files = files.into_iter().flatten().filter_map(Value::as_str);
                let library = files.find(|file| file.ends_with(".so"));
                if let (Some(library), Some(id)) = (library, message["package_id"].as_str()) {
                    self.libraries.insert(id.to_owned(), library.into());
                }
            }
            _ => {}
        }
    }
}

fn is_cdylib(target: &Value) -> bool {
    let kinds = target["kind"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
}

/// Returns the path of the dep-info file of a library. Cargo writes this file beside the library. The file lists all
/// files that the build has read.
pub(super) fn dep_info_path(library: &Path) -> PathBuf {
    library.with_extension("d")
}

/// A process that leads a process group. Dropping the value kills every process of the group.
struct ProcessGroup {
    child: Child,
}

impl ProcessGroup {
    fn spawn(mut command: Command) -> io::Result<Self> {
        Ok(Self {
            child: command.kill_on_drop(true).spawn()?,
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // `id` returns `None` after the child was waited for. That is needed, because the kernel may then use the same
        // number for another process, which must not be killed.
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // Ignore a failure: the processes may just have ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Passes each line of a stream to `on_line`, except blank lines. A carriage return ends a line too, because Cargo
/// ends each state of its progress bar with a carriage return.
async fn for_each_line(
    mut stream: impl AsyncRead + Unpin,
    mut on_line: impl FnMut(&str),
) -> io::Result<()> {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        for &byte in &buffer[..count] {
            if byte != b'\n' && byte != b'\r' {
                line.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            if !strip_colours(&text).trim().is_empty() {
                on_line(&text);
            }
            line.clear();
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// Parses a line of Cargo's progress bar, such as `Building [===> ] 34/112: axum`. Returns `None` for any other line.
fn parse_progress(line: &str) -> Option<BuildProgress> {
    let line = strip_colours(line);
    let (_, rest) = line
        .trim_start()
        .strip_prefix("Building [")?
        .split_once("] ")?;
    let (done, rest) = rest.split_once('/')?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit());
    Some(BuildProgress {
        done: done.trim().parse().ok()?,
        total: rest[..digits.unwrap_or(rest.len())].parse().ok()?,
    })
}

/// Returns a text without escape sequences for colours (ECMA-48, section 5.4).
pub(crate) fn strip_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\x1b' {
            plain.push(letter);
        } else if letters.next() == Some('[') {
            letters.find(|letter| ('@'..='~').contains(letter));
        }
    }
    plain
}

/// The first words of the lines that Cargo prints while it downloads and compiles dependencies.
const DEPENDENCY_STEPS: [&str; 3] = ["Compiling ", "Downloaded ", "Downloading "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_cargo_draws() {
        let line = "\x1b[1m\x1b[96m    Building\x1b[0m [=====>    ] 34/112: axum, http\x1b[K";
        let read = parse_progress(line);
        assert_eq!(
            read,
            Some(BuildProgress {
                done: 34,
                total: 112
            })
        );
        assert_eq!(parse_progress("   Compiling axum v0.8.9"), None);
    }

    #[test]
    fn messages_tell_libraries_and_errors() {
        let mut output = CargoOutput {
            success: false,
            libraries: BTreeMap::new(),
            report: String::new(),
        };
        output.add_message(r#"{"reason":"compiler-message","message":{"rendered":"error: no\n"}}"#);
        output.add_message(
            r#"{"reason":"compiler-artifact","package_id":"macros","target":{"kind":["proc-macro"]},"filenames":["/t/libmacros.so"]}"#,
        );
        output.add_message(
            r#"{"reason":"compiler-artifact","package_id":"shop","target":{"kind":["cdylib","rlib"]},"filenames":["/t/libshop.rlib","/t/libshop.so"]}"#,
        );
        output.add_message("printed by a build script");
        assert_eq!(output.report, "error: no\n");
        assert_eq!(
            output.libraries,
            BTreeMap::from([("shop".to_owned(), PathBuf::from("/t/libshop.so"))])
        );
        assert_eq!(
            dep_info_path(Path::new("/t/libshop.so")),
            Path::new("/t/libshop.d")
        );
    }
}
