//! Paths in settings, which mean the same for as long as the process lives.

use std::{
    env, io,
    path::{self, Path, PathBuf},
    sync::LazyLock,
};

use clap::builder::{PathBufValueParser, TypedValueParser};

use super::ValueError;

/// Takes a path, and makes it absolute.
pub(crate) fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| absolute(&path))
}

/// The path from the root on, without a look at the file system: a symlink in it is followed anew each
/// time that the path is used.
///
/// # Errors
///
/// When the path is relative, and the working directory of the process was removed before the
/// process started.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, ValueError> {
    let started_in = match &*STARTED_IN {
        Ok(folder) => folder.join(path),
        Err(_) if path.is_absolute() => path.to_owned(),
        Err(error) => {
            return Err(ValueError::WorkingDirectory {
                path: path.display().to_string(),
                reason: error.to_string(),
            });
        }
    };
    path::absolute(started_in).map_err(|error| ValueError::WorkingDirectory {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// The working directory when the first setting was read. A plugin may change that of the process, and
/// SIGHUP reads settings again.
static STARTED_IN: LazyLock<io::Result<PathBuf>> = LazyLock::new(env::current_dir);
