//! The sources of `plugin-api` that the program carries, and the folder they are unpacked into.
//!
//! A crate that `host new` writes depends on that folder, so its SDK always fits this host. The
//! folder is named by version and content: another host has another, and none is ever changed.

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
    /// Unpacks the sources into the user's cache folder, unless they are there.
    ///
    /// # Errors
    ///
    /// When there is no such folder, or it cannot be written to.
    pub fn unpack() -> Result<Self, SdkError> {
        let cache = cache(|name| env::var_os(name).map(PathBuf::from));
        unpack(&cache.ok_or(SdkError::NoCache)?)
    }

    /// The folder.
    #[must_use]
    pub fn into_path(self) -> PathBuf {
        self.0
    }
}

/// The user's cache folder (XDG Base Directory Specification: a relative path there is ignored).
fn cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| {
        Some(
            variable("HOME")
                .filter(|path| path.is_absolute())?
                .join(".cache"),
        )
    })
}

fn unpack(cache: &Path) -> Result<Sdk, SdkError> {
    let hash = blake3::hash(ARCHIVE).to_hex();
    let name = format!("plugin-api-{}-{}", env!("CARGO_PKG_VERSION"), &hash[..12]);
    let folder = cache.join("host").join(&name);
    // It got its name when it was complete.
    if folder.is_dir() {
        return Ok(Sdk(folder));
    }
    let temporary = cache
        .join("host")
        .join(format!(".{name}.{}", process::id()));
    let failed = |source| SdkError::Unpack {
        folder: folder.clone(),
        source,
    };
    write(&temporary).map_err(failed)?;
    match fs::rename(&temporary, &folder) {
        Ok(()) => Ok(Sdk(folder)),
        // Another process was faster.
        Err(_) if folder.is_dir() => {
            fs::remove_dir_all(&temporary).map_err(failed)?;
            Ok(Sdk(folder))
        }
        Err(source) => Err(failed(source)),
    }
}

fn write(folder: &Path) -> io::Result<()> {
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

/// What `build.rs` packed.
const ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin-api.json.gz"));

/// Sources that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SdkError {
    /// Neither variable names a folder.
    #[error(
        "there is no folder for the sources of plugin-api, expected HOME or XDG_CACHE_HOME; or say --plugin-api"
    )]
    NoCache,
    /// The system refuses.
    #[error("cannot unpack the sources of plugin-api into {}", folder.display())]
    Unpack {
        /// Where to.
        folder: PathBuf,
        /// What the system says.
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
        // A dependency keeps the features of both, and what is its own.
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
            let found = cache(|name| {
                let variable = variables.iter().find(|(variable, _)| *variable == name);
                variable.map(|(_, value)| PathBuf::from(value))
            });
            assert_eq!(found, folder.map(PathBuf::from), "{variables:?}");
        }
    }
}
