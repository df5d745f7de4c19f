//! One run of `cargo build`: its command line, and what its output means.

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
    /// Options of Cargo that the author gave, such as `--features=…`.
    pub(super) given: Vec<String>,
    /// Options that make the build fast.
    pub(super) profile: BuildProfile,
}

/// The result of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CargoOutput {
    /// Whether all plugins were built.
    pub(super) success: bool,
    /// The paths of the built libraries, by the package ids that Cargo gives.
    pub(super) libraries: BTreeMap<String, PathBuf>,
    /// Errors and warnings as the compiler renders them, with ANSI colours.
    pub(super) report: String,
}

/// A line that Cargo printed during a build, by its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CargoEvent {
    /// The progress bar: how many crates are done.
    Progress(BuildProgress),
    /// Cargo compiles dependencies (true), or has reached the author's crates (false).
    CompilesDependencies(bool),
    /// Any other line, for people to read.
    Line(String),
}

/// The target folder of a session. Cargo locks a target folder, and each set of options replaces what
/// another set has built there: the author's own builds and an editor's `cargo check` must not share
/// the folder.
pub(super) fn target(project: &Project) -> PathBuf {
    project.target.join("host-dev")
}

/// Builds the plugins of a project, and passes each line that Cargo prints to `on_event`. Dropping the
/// future kills Cargo and every process that it has started.
///
/// # Errors
///
/// Fails when Cargo cannot be run or its output cannot be read. A build that fails is no error: see
/// [`CargoOutput::success`].
pub(super) async fn build(
    project: &Project,
    options: &CargoOptions,
    mut on_event: impl FnMut(CargoEvent),
) -> io::Result<CargoOutput> {
    let mut cargo = ProcessGroup::spawn(command(project, options))?;
    let (stdout, stderr) = (cargo.child.stdout.take(), cargo.child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut output = CargoOutput {
        success: false,
        libraries: BTreeMap::new(),
        report: String::new(),
    };
    let mut errors = String::new();
    let mut compiles_own = false;
    let read_messages = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            output.take_message(&line);
        }
        Ok::<_, io::Error>(())
    };
    let read_lines = each_line(stderr, |line| {
        if let Some(progress) = progress(line) {
            return on_event(CargoEvent::Progress(progress));
        }
        let plain = plain(line);
        let mut packages = project.packages.iter();
        if packages.any(|package| package.is_compiled(&plain)) {
            compiles_own = true;
            on_event(CargoEvent::CompilesDependencies(false));
        } else if !compiles_own
            && DEPENDENCY_STEPS
                .iter()
                .any(|word| plain.trim_start().starts_with(word))
        {
            on_event(CargoEvent::CompilesDependencies(true));
        }
        // Keep every line from the first error on, because the causes follow it.
        if plain.starts_with("error") || plain.starts_with("Caused by") || !errors.is_empty() {
            errors.push_str(line);
            errors.push('\n');
        }
        on_event(CargoEvent::Line(line.to_owned()));
    });
    // Read both streams at once: Cargo would block on a full pipe that nobody reads.
    tokio::try_join!(read_messages, read_lines)?;
    let status = cargo.child.wait().await?;
    output.success = status.success();
    let is_wanted = |id: &String| project.plugins.iter().any(|plugin| plugin.id == *id);
    // Cargo also reports libraries of dependencies that are cdylibs.
    output.libraries.retain(|id, _| is_wanted(id));
    if !output.success && output.report.is_empty() {
        // Cargo itself failed before the compiler ran, for instance at a manifest with a syntax error.
        output.report = errors;
    }
    Ok(output)
}

fn command(project: &Project, options: &CargoOptions) -> Command {
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
        .arg(target(project))
        .args(options.profile.options())
        .args(&options.given)
        .current_dir(&project.root)
        .env("CARGO_TERM_COLOR", "always")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "80")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal sends Ctrl-C to the session's process group only. The session then ends Cargo.
        .process_group(0);
    for plugin in &project.plugins {
        command.arg("--package").arg(&plugin.id);
    }
    command
}

impl CargoOutput {
    /// Takes in a line of Cargo's stdout: a JSON message (The Cargo Book, External tools). Other lines
    /// are ignored, because a build script may print anything.
    fn take_message(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        match message["reason"].as_str() {
            Some("compiler-message") => {
                let rendered = message["message"]["rendered"].as_str();
                self.report.push_str(rendered.unwrap_or_default());
            }
            // The kind tells a plugin from a procedural macro, whose file is an `.so` as well.
            Some("compiler-artifact") if is_plugin(&message["target"]) => {
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

fn is_plugin(target: &Value) -> bool {
    let kinds = target["kind"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
}

/// The path of the dep-info file, which Cargo writes beside a library and which lists the files that
/// the build has read.
pub(super) fn dep_info(library: &Path) -> PathBuf {
    library.with_extension("d")
}

/// A process and every process that it has started. Dropping the value kills all of them.
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
        // `id` returns None after the child was waited for. The kernel may have given its number to another
        // process by then.
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // Ignore a failure: the process may have ended a moment ago.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Passes each line of a stream to `see`, without blank lines. A carriage return ends a line too,
/// because Cargo redraws its progress bar with it.
async fn each_line(
    mut stream: impl AsyncRead + Unpin,
    mut see: impl FnMut(&str),
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
            if !plain(&text).trim().is_empty() {
                see(&text);
            }
            line.clear();
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// Reads Cargo's progress bar, as in `Building [===> ] 34/112: axum`. Returns `None` for other lines.
fn progress(line: &str) -> Option<BuildProgress> {
    let line = plain(line);
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

/// Returns a text without its colours: the escape sequences of ECMA-48, section 5.4.
pub(crate) fn plain(text: &str) -> String {
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

/// The first words of Cargo's lines while it fetches and compiles dependencies.
const DEPENDENCY_STEPS: [&str; 3] = ["Compiling ", "Downloaded ", "Downloading "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_cargo_draws() {
        let line = "\x1b[1m\x1b[96m    Building\x1b[0m [=====>    ] 34/112: axum, http\x1b[K";
        let read = progress(line);
        assert_eq!(
            read,
            Some(BuildProgress {
                done: 34,
                total: 112
            })
        );
        assert_eq!(progress("   Compiling axum v0.8.9"), None);
    }

    #[test]
    fn messages_tell_libraries_and_errors() {
        let mut output = CargoOutput {
            success: false,
            libraries: BTreeMap::new(),
            report: String::new(),
        };
        output
            .take_message(r#"{"reason":"compiler-message","message":{"rendered":"error: no\n"}}"#);
        output.take_message(
            r#"{"reason":"compiler-artifact","package_id":"macros","target":{"kind":["proc-macro"]},"filenames":["/t/libmacros.so"]}"#,
        );
        output.take_message(
            r#"{"reason":"compiler-artifact","package_id":"shop","target":{"kind":["cdylib","rlib"]},"filenames":["/t/libshop.rlib","/t/libshop.so"]}"#,
        );
        output.take_message("printed by a build script");
        assert_eq!(output.report, "error: no\n");
        assert_eq!(
            output.libraries,
            BTreeMap::from([("shop".to_owned(), PathBuf::from("/t/libshop.so"))])
        );
        assert_eq!(
            dep_info(Path::new("/t/libshop.so")),
            Path::new("/t/libshop.d")
        );
    }
}
