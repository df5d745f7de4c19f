//! Parsers of paths in settings. A path becomes absolute when the setting is read, because a plugin may
//! change the working directory later.

use std::{
    env, io,
    path::{self, Path, PathBuf},
    sync::LazyLock,
};

use clap::builder::{PathBufValueParser, TypedValueParser};

use super::ValueError;

/// Returns a clap parser that makes paths absolute.
pub(crate) fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| absolute(&path))
}

/// Makes a path absolute without access to the file system. Symbolic links stay in the path: the system
/// follows them at each use of the path.
///
/// # Errors
///
/// Fails when the path is relative and the working directory at the start could not be read, for instance
/// because the directory was removed.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, ValueError> {
    let absolute = match &*INITIAL_DIRECTORY {
        Ok(folder) => folder.join(path),
        Err(_) if path.is_absolute() => path.to_owned(),
        Err(error) => {
            return Err(ValueError::WorkingDirectory {
                path: path.display().to_string(),
                reason: error.to_string(),
            });
        }
    };
    // `path::absolute` also removes `.` and repeated slashes.
    path::absolute(absolute).map_err(|error| ValueError::WorkingDirectory {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// The working directory when the first path in a setting was read, at the start of the process. A later read
/// of the settings (SIGHUP) must use the same directory, although a plugin may have changed the working
/// directory of the process by then.
static INITIAL_DIRECTORY: LazyLock<io::Result<PathBuf>> = LazyLock::new(env::current_dir);
