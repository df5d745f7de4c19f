//! Paths in settings. They become absolute when they are read, because a plugin may change the working
//! directory.

use std::{
    env, io,
    path::{self, Path, PathBuf},
    sync::LazyLock,
};

use clap::builder::{PathBufValueParser, TypedValueParser};

use super::ValueError;

/// Returns a parser of paths for clap, which makes them absolute.
pub(crate) fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| absolute(&path))
}

/// Makes a path absolute without a look at the file system: symbolic links are followed at each use of
/// the path, not now.
///
/// # Errors
///
/// Fails when the path is relative and the working directory was removed before the process started.
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

/// The working directory at the start, when the first setting was read. SIGHUP reads the settings again,
/// and a plugin may have changed the working directory by then.
static STARTED_IN: LazyLock<io::Result<PathBuf>> = LazyLock::new(env::current_dir);
