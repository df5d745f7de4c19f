//! Which stream of the process a path names: `-`, `/dev/stdout`, `/proc/self/fd/1`.
//!
//! Such a path cannot be opened like a file. Where the stream is a socket, as under systemd, that
//! fails; where it is a file, the new description has an offset of its own, so that lines overwrite
//! what others print.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    path::{self, Path, PathBuf},
    process,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::sink::Sink;

/// A stream of the process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream(i32);

impl Stream {
    pub(super) const STDOUT: Self = Self(1);
    pub(super) const STDERR: Self = Self(2);

    /// The stream that `path` names, itself or by symbolic links; `minus` is the one that `-` is.
    pub(super) fn named(path: &Path, minus: Self) -> Option<Self> {
        // Settings are made absolute when they are read, `-` among them.
        if path.file_name() == Some(OsStr::new("-")) {
            return Some(minus);
        }
        let mut path = path::absolute(path).ok()?;
        for _ in 0..MAX_LINKS {
            if let Some(stream) = Self::at(&path) {
                return Some(stream);
            }
            let link = fs::read_link(&path).ok()?;
            path = path
                .parent()
                .map_or_else(PathBuf::new, |folder| folder.join(link));
        }
        None
    }

    fn at(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        match text {
            "/dev/stdin" => return Some(Self(0)),
            "/dev/stdout" => return Some(Self::STDOUT),
            "/dev/stderr" => return Some(Self::STDERR),
            _ => {}
        }
        let of_process = format!("/proc/{}/fd/", process::id());
        let folders = [
            "/dev/fd/",
            "/proc/self/fd/",
            "/proc/thread-self/fd/",
            &of_process,
        ];
        let number = folders
            .iter()
            .find_map(|folder| text.strip_prefix(folder))?;
        number.parse().ok().filter(|&number| number >= 0).map(Self)
    }

    /// What messages call it.
    pub(super) fn name(self) -> String {
        match self.0 {
            0 => "stdin".to_owned(),
            1 => "stdout".to_owned(),
            2 => "stderr".to_owned(),
            number => format!("/dev/fd/{number}"),
        }
    }

    /// The stream as it is now: what is put in its place later does not count.
    pub(super) fn sink(self) -> io::Result<Sink> {
        match self.0 {
            0 => Sink::of_stream(io::stdin()),
            1 => Sink::of_stream(io::stdout()),
            2 => Sink::of_stream(io::stderr()),
            number => Sink::of_stream(inherited(number)?),
        }
    }
}

/// A duplicate of a descriptor of which only the number is known.
fn inherited(number: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

/// How many symbolic links are followed, as path_resolution(7) has it.
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
            let stream = Stream::named(path, Stream::STDERR);
            assert_eq!(stream, number.map(Stream), "{}", path.display());
        }
    }
}
