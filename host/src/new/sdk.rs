//! Unpacks the sources of `plugin-api`, which are packed into the program, into a folder.
//!
//! A crate that `host new` writes depends on that folder, so the crate's SDK always fits this host. The name of the
//! folder contains the version and a hash of the sources. Therefore builds of the host with different sources use
//! different folders, and the contents of a folder never change.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process,
};

use flate2::read::GzDecoder;

/// A folder with the sources of `plugin-api`.
#[derive(Clone, Debug)]
pub struct Sdk(PathBuf);

impl Sdk {
    /// Unpacks the sources into the user's cache folder, unless an earlier call has unpacked them.
    ///
    /// # Errors
    ///
    /// Fails when the environment names no cache folder, or when the folder cannot be written.
    pub fn unpack() -> Result<Self, SdkError> {
        let cache = cache_folder(|name| env::var_os(name).map(PathBuf::from));
        unpack(&cache.ok_or(SdkError::NoCache)?)
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn into_path(self) -> PathBuf {
        self.0
    }
}

/// Returns the user's cache folder, or `None` if the environment does not name one. `variable` reads an environment
/// variable. Relative paths are ignored, as the XDG Base Directory Specification requires.
fn cache_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| {
        Some(
            variable("HOME")
                .filter(|path| path.is_absolute())?
                .join(".cache"),
        )
    })
}

/// Unpacks the sources into a folder below `cache`, unless that folder exists.
fn unpack(cache: &Path) -> Result<Sdk, SdkError> {
    let hash = blake3::hash(ARCHIVE).to_hex();
    let name = format!("plugin-api-{}-{}", env!("CARGO_PKG_VERSION"), &hash[..12]);
    let folder = cache.join("host").join(&name);
    // A folder with this name is always complete, because only the rename below creates the name.
    if folder.is_dir() {
        return Ok(Sdk(folder));
    }
    // The process id keeps two processes from writing to the same folder.
    let temporary = cache
        .join("host")
        .join(format!(".{name}.{}", process::id()));
    let unpack_error = |source| SdkError::Unpack {
        folder: folder.clone(),
        source,
    };
    write_sources(&temporary).map_err(unpack_error)?;
    match fs::rename(&temporary, &folder) {
        Ok(()) => Ok(Sdk(folder)),
        // Another process has unpacked the same sources at the same time.
        Err(_) if folder.is_dir() => {
            fs::remove_dir_all(&temporary).map_err(unpack_error)?;
            Ok(Sdk(folder))
        }
        Err(source) => Err(unpack_error(source)),
    }
}

/// Writes the packed files below `folder`.
fn write_sources(folder: &Path) -> io::Result<()> {
    let files: BTreeMap<String, String> = serde_json::from_reader(GzDecoder::new(ARCHIVE))?;
    for (name, contents) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, contents)?;
    }
    Ok(())
}

/// The archive that `build.rs` packs: a gzip-compressed JSON object that maps the path of each file to its contents.
const ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin-api.json.gz"));

/// The reason why the sources cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SdkError {
    /// The environment names no cache folder.
    #[error(
        "there is no folder for the sources of plugin-api, expected HOME or XDG_CACHE_HOME; or say --plugin-api"
    )]
    NoCache,
    /// The folder cannot be written.
    #[error("cannot unpack the sources of plugin-api into {}", folder.display())]
    Unpack {
        /// The folder for the sources.
        folder: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_unpacked_once_and_stand_alone() {
        let cache = tempfile::tempdir().unwrap();
        let Sdk(folder) = unpack(cache.path()).unwrap();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(
            manifest["package"]["version"].as_str(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        assert!(
            !toml::to_string(&manifest["dependencies"])
                .unwrap()
                .contains("workspace")
        );
        // A dependency has the features of the workspace's table and of the package's, and its own keys.
        let tokio = &manifest["dependencies"]["tokio"];
        assert_eq!(tokio["version"].as_str(), Some("1.50"));
        assert!(tokio["features"].as_array().unwrap().len() >= 3);
        assert_eq!(
            manifest["dependencies"]["axum"]["optional"].as_bool(),
            Some(true)
        );
        assert!(folder.join("src/lib.rs").is_file());

        fs::write(folder.join("src/mark"), "").unwrap();
        let Sdk(again) = unpack(cache.path()).unwrap();
        assert!(again.join("src/mark").exists(), "it was unpacked twice");
        assert_eq!(fs::read_dir(cache.path().join("host")).unwrap().count(), 1);
    }

    #[test]
    fn the_cache_folder_is_absolute() {
        let home = ("HOME", "/home/ada");
        for (variables, folder) in [
            (&[home][..], Some("/home/ada/.cache")),
            (&[home, ("XDG_CACHE_HOME", "/cache")], Some("/cache")),
            (
                &[home, ("XDG_CACHE_HOME", "cache")],
                Some("/home/ada/.cache"),
            ),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            let found = cache_folder(|name| {
                let variable = variables.iter().find(|(variable, _)| *variable == name);
                variable.map(|(_, value)| PathBuf::from(value))
            });
            assert_eq!(found, folder.map(PathBuf::from), "{variables:?}");
        }
    }
}
