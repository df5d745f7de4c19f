//! Paths that name a stream of the process, such as `-`, `/dev/stdout` or `/proc/self/fd/1`.
//!
//! Such a path must not be opened like a file. If the stream is a socket, as under systemd, opening fails. If the
//! stream is a file, the new open file description has a separate offset, so that lines would overwrite bytes that
//! other code prints.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    path::{self, Path, PathBuf},
    process,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::sink::Sink;

/// The number of a descriptor that the process has inherited, such as 1 for stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamNumber(i32);

impl StreamNumber {
    pub(super) const STDOUT: Self = Self(1);
    pub(super) const STDERR: Self = Self(2);

    /// Returns the stream that `path` names, directly or through symbolic links. `-` names the stream `default`.
    /// Returns `None` if `path` names a file.
    pub(super) fn named(path: &Path, default: Self) -> Option<Self> {
        // Compares the file name only, because the parser of the settings makes paths absolute, also `-`.
        if path.file_name() == Some(OsStr::new("-")) {
            return Some(default);
        }
        let mut path = path::absolute(path).ok()?;
        for _ in 0..MAX_LINKS {
            if let Some(stream) = Self::at(&path) {
                return Some(stream);
            }
            // Fails if `path` is not a link. Then `path` is a file.
            let link = fs::read_link(&path).ok()?;
            path = path
                .parent()
                .map_or_else(PathBuf::new, |folder| folder.join(link));
        }
        None
    }

    /// Returns the stream that `path` names, without following symbolic links.
    fn at(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        match text {
            "/dev/stdin" => return Some(Self(0)),
            "/dev/stdout" => return Some(Self::STDOUT),
            "/dev/stderr" => return Some(Self::STDERR),
            _ => {}
        }
        let own_folder = format!("/proc/{}/fd/", process::id());
        let folders = [
            "/dev/fd/",
            "/proc/self/fd/",
            "/proc/thread-self/fd/",
            &own_folder,
        ];
        let number = folders
            .iter()
            .find_map(|folder| text.strip_prefix(folder))?;
        number.parse().ok().filter(|&number| number >= 0).map(Self)
    }

    /// Returns the name of the stream in messages.
    pub(super) fn name(self) -> String {
        match self.0 {
            0 => "stdin".to_owned(),
            1 => "stdout".to_owned(),
            2 => "stderr".to_owned(),
            number => format!("/dev/fd/{number}"),
        }
    }

    /// Returns a sink for a duplicate of the stream. The sink writes to the same file or pipe even if the stream is
    /// replaced later.
    ///
    /// # Errors
    ///
    /// When the stream is closed.
    pub(super) fn sink(self) -> io::Result<Sink> {
        match self.0 {
            0 => Sink::from_stream(io::stdin()),
            1 => Sink::from_stream(io::stdout()),
            2 => Sink::from_stream(io::stderr()),
            number => Sink::from_stream(duplicate(number)?),
        }
    }
}

/// Duplicates the descriptor with this number.
///
/// # Errors
///
/// When the descriptor is not open.
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // `dup` of a plain number needs unsafe code. `pidfd_getfd` on this process does the same without unsafe code.
    let own_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own_process, number, PidfdGetfdFlags::empty())?)
}

/// The largest number of symbolic links that are followed. The system has the same limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_can_name_a_stream_also_by_links() {
        let folder = tempfile::tempdir().unwrap();
        let (link, far) = (folder.path().join("access.log"), folder.path().join("far"));
        symlink("/dev/stdout", &link).unwrap();
        symlink("access.log", &far).unwrap();
        let own = format!("/proc/{}/fd/2", process::id());
        let table = [
            (Path::new("-"), Some(2)),
            (Path::new("/where/it/started/-"), Some(2)),
            (Path::new("/dev/stdout"), Some(1)),
            (Path::new("/dev/stderr"), Some(2)),
            (Path::new("/dev/fd/7"), Some(7)),
            (Path::new("/proc/self/fd/1"), Some(1)),
            (Path::new(&own), Some(2)),
            (&link, Some(1)),
            (&far, Some(1)),
            (Path::new("/proc/1/fd/1"), None),
            (Path::new("/dev/fd/x"), None),
            (Path::new("/dev/null"), None),
            (folder.path(), None),
        ];
        for (path, number) in table {
            let stream = StreamNumber::named(path, StreamNumber::STDERR);
            assert_eq!(stream, number.map(StreamNumber), "{}", path.display());
        }
    }
}
