//! The frames of a backtrace, and excerpts of source files.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::dev::state::SessionOptions;

/// A frame of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StackFrame {
    /// The name of the function.
    pub(super) function: String,
    /// `FILE:LINE:COLUMN`, if the backtrace has them.
    pub(super) place: Option<String>,
}

impl StackFrame {
    /// Returns whether the frame is in the author's sources.
    pub(super) fn is_own(&self, options: &SessionOptions) -> bool {
        // Split from the end, because a path may contain a colon.
        let file = self
            .place
            .as_deref()
            .and_then(|place| place.rsplitn(3, ':').nth(2));
        file.is_some_and(|file| find_own_file(file, options).is_some())
    }
}

impl fmt::Display for StackFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.function)?;
        match &self.place {
            Some(place) => write!(formatter, " at {place}"),
            None => Ok(()),
        }
    }
}

/// Parses a backtrace in the format of std: `3: FUNCTION`, and on the next line `at FILE:LINE:COLUMN`. Lines in other
/// formats are skipped.
pub(super) fn parse(backtrace: &str) -> Vec<StackFrame> {
    let mut frames: Vec<StackFrame> = Vec::new();
    for line in backtrace.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                frame.place = Some(place.to_owned());
            }
        } else if let Some((number, function)) = line.split_once(": ")
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            frames.push(StackFrame {
                function: function.to_owned(),
                place: None,
            });
        }
    }
    frames
}

/// The lines of a source file around a main line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The number of the main line.
    pub(super) line: u32,
    /// The lines, as numbers and texts.
    pub(super) lines: Vec<(u32, String)>,
}

impl Excerpt {
    /// Reads the lines around `line`. Returns `None` if the file is not in the author's sources, or cannot be read.
    pub(super) fn read(file: &str, line: u32, options: &SessionOptions) -> Option<Self> {
        let text = fs::read_to_string(find_own_file(file, options)?).ok()?;
        let lines = (1_u32..).zip(text.lines().map(str::to_owned));
        let near = lines.filter(|(number, _)| number.abs_diff(line) <= CONTEXT_LINES);
        Some(Self {
            line,
            lines: near.collect(),
        })
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(number, text)| {
            let mark = if *number == self.line { '>' } else { ' ' };
            writeln!(formatter, "{mark} {number:>4} {text}")
        })
    }
}

/// Returns the path of a file in the author's sources, or `None` for any other file. The path in a panic is relative to
/// the workspace, and the path in a backtrace is relative to the working directory of the server.
fn find_own_file(file: &str, options: &SessionOptions) -> Option<PathBuf> {
    let roots = options.roots.iter().map(PathBuf::as_path);
    roots.chain([Path::new(".")]).find_map(|root| {
        // Canonical, because `..` or a symbolic link could lead out of the author's folders.
        let path = root.join(file).canonicalize().ok()?;
        let is_own = options
            .sources
            .iter()
            .any(|folder| path.starts_with(folder));
        is_own.then_some(path)
    })
}

/// The number of lines that an excerpt has before the main line, and after it.
const CONTEXT_LINES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_functions_with_places() {
        let frames = parse(
            "   0: std::panicking::begin\n             at /rustc/1/std.rs:1:2\n  11: shop::buy\n             at ./src/lib.rs:7:9\n  12: start\n",
        );
        let texts: Vec<_> = frames.iter().map(StackFrame::to_string).collect();
        assert_eq!(
            texts,
            [
                "std::panicking::begin at /rustc/1/std.rs:1:2",
                "shop::buy at ./src/lib.rs:7:9",
                "start"
            ]
        );
    }

    #[test]
    fn only_sources_of_the_author_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("src/lib.rs"), "one\ntwo\nthree\n").unwrap();
        fs::write(root.join("secret"), "secret\n").unwrap();
        let options = SessionOptions {
            sources: vec![root.join("src")],
            roots: vec![root],
            ..SessionOptions::default()
        };
        let excerpt = Excerpt::read("src/lib.rs", 2, &options).unwrap();
        assert_eq!(
            excerpt.to_string(),
            "     1 one\n>    2 two\n     3 three\n"
        );
        assert_eq!(Excerpt::read("secret", 1, &options), None);
        assert_eq!(Excerpt::read("src/../secret", 1, &options), None);
    }
}
