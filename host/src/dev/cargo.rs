//! One run of `cargo build`: how it is called, and what its output means.

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

use super::{project::Project, speed::Speed, state::Progress};

/// How to build.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    /// Options of Cargo that the author gave.
    pub(super) options: Vec<String>,
    /// What makes builds fast.
    pub(super) speed: Speed,
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Built {
    /// Whether all plugins were built.
    pub(super) success: bool,
    /// The libraries, by what Cargo calls their packages.
    pub(super) libraries: BTreeMap<String, PathBuf>,
    /// Errors and warnings as the compiler shows them, with colours.
    pub(super) report: String,
}

/// What is heard while Cargo runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// How far it is.
    Progress(Progress),
    /// Whether it is at what the author's crates depend on, and has not come to these.
    Early(bool),
    /// A line for people.
    Line(String),
}

/// Where a project is built: apart from the author's own builds and an editor's, which would wait
/// for each other and undo each other's work.
pub(super) fn target(project: &Project) -> PathBuf {
    project.target.join("host-dev")
}

/// Builds the plugins of a project, and tells `hear` how it goes. When the future is dropped, Cargo and
/// all that it runs are killed.
///
/// # Errors
///
/// When Cargo cannot be run.
pub(super) async fn build(
    project: &Project,
    how: &How,
    mut hear: impl FnMut(Heard),
) -> io::Result<Built> {
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
        .args(how.speed.options())
        .args(&how.options)
        .current_dir(&project.root)
        .env("CARGO_TERM_COLOR", "always")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "80")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is for the session, which ends Cargo.
        .process_group(0);
    for plugin in &project.plugins {
        command.arg("--package").arg(&plugin.id);
    }
    let mut cargo = Group::spawn(command)?;
    let (stdout, stderr) = (cargo.child.stdout.take(), cargo.child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut built = Built {
        success: false,
        libraries: BTreeMap::new(),
        report: String::new(),
    };
    let mut complaints = String::new();
    let mut is_own = false;
    let messages = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            built.take(&line);
        }
        Ok::<_, io::Error>(())
    };
    let said = each_line(stderr, |line| {
        if let Some(progress) = progress(line) {
            return hear(Heard::Progress(progress));
        }
        let plain = plain(line);
        let mut packages = project.packages.iter();
        if packages.any(|package| package.is_compiled(&plain)) {
            is_own = true;
            hear(Heard::Early(false));
        } else if !is_own
            && EARLY
                .iter()
                .any(|word| plain.trim_start().starts_with(word))
        {
            hear(Heard::Early(true));
        }
        if plain.starts_with("error") || plain.starts_with("Caused by") || !complaints.is_empty() {
            complaints.push_str(line);
            complaints.push('\n');
        }
        hear(Heard::Line(line.to_owned()));
    });
    tokio::try_join!(messages, said)?;
    let status = cargo.child.wait().await?;
    built.success = status.success();
    let is_wanted = |id: &String| project.plugins.iter().any(|plugin| plugin.id == *id);
    built.libraries.retain(|id, _| is_wanted(id));
    if !built.success && built.report.is_empty() {
        // As for a manifest that Cargo does not understand.
        built.report = complaints;
    }
    Ok(built)
}

impl Built {
    /// Reads a line of Cargo's output (The Cargo Book, External tools). What else is printed there, by a
    /// build script, is left out.
    fn take(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        match message["reason"].as_str() {
            Some("compiler-message") => {
                let rendered = message["message"]["rendered"].as_str();
                self.report.push_str(rendered.unwrap_or_default());
            }
            // A procedural macro is a library of this kind of file too.
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

/// The dep-info file that Cargo writes beside a library.
pub(super) fn dep_info(library: &Path) -> PathBuf {
    library.with_extension("d")
}

/// A process and all that it starts, which are killed when it is dropped.
struct Group {
    child: Child,
}

impl Group {
    fn spawn(mut command: Command) -> io::Result<Self> {
        Ok(Self {
            child: command.kill_on_drop(true).spawn()?,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // None once it was waited for: its number may be another process's then.
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // It may just have ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Gives each line of a stream to `see`. Cargo overwrites its progress by carriage returns.
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

/// What Cargo's progress says, as in `Building [===> ] 34/112: axum`.
fn progress(line: &str) -> Option<Progress> {
    let line = plain(line);
    let (_, rest) = line
        .trim_start()
        .strip_prefix("Building [")?
        .split_once("] ")?;
    let (done, rest) = rest.split_once('/')?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit());
    Some(Progress {
        done: done.trim().parse().ok()?,
        total: rest[..digits.unwrap_or(rest.len())].parse().ok()?,
    })
}

/// A text without its colours: escape sequences as in ECMA-48, section 5.4.
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

/// What Cargo says while it is at what crates depend on.
const EARLY: [&str; 3] = ["Compiling ", "Downloaded ", "Downloading "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_cargo_draws() {
        let line = "\x1b[1m\x1b[96m    Building\x1b[0m [=====>    ] 34/112: axum, http\x1b[K";
        let read = progress(line);
        assert_eq!(
            read,
            Some(Progress {
                done: 34,
                total: 112
            })
        );
        assert_eq!(progress("   Compiling axum v0.8.9"), None);
    }

    #[test]
    fn messages_tell_libraries_and_errors() {
        let mut built = Built {
            success: false,
            libraries: BTreeMap::new(),
            report: String::new(),
        };
        built.take(r#"{"reason":"compiler-message","message":{"rendered":"error: no\n"}}"#);
        built.take(
            r#"{"reason":"compiler-artifact","package_id":"macros","target":{"kind":["proc-macro"]},"filenames":["/t/libmacros.so"]}"#,
        );
        built.take(
            r#"{"reason":"compiler-artifact","package_id":"shop","target":{"kind":["cdylib","rlib"]},"filenames":["/t/libshop.rlib","/t/libshop.so"]}"#,
        );
        built.take("printed by a build script");
        assert_eq!(built.report, "error: no\n");
        assert_eq!(
            built.libraries,
            BTreeMap::from([("shop".to_owned(), PathBuf::from("/t/libshop.so"))])
        );
        assert_eq!(
            dep_info(Path::new("/t/libshop.so")),
            Path::new("/t/libshop.d")
        );
    }
}
