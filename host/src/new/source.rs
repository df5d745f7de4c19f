//! The source of `plugin-api` for a new crate: a folder, a version, or any other kind of Cargo dependency.

use std::{
    env, io,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

/// A dependency on `plugin-api`, as a table for `Cargo.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct SdkSource(toml::Table);

impl SdkSource {
    /// Returns a dependency on the sources in a folder.
    #[must_use]
    pub fn from_folder(path: PathBuf) -> Self {
        let path = toml::Value::String(path.to_string_lossy().into_owned());
        Self(toml::Table::from_iter([("path".to_owned(), path)]))
    }

    /// Returns a dependency on the `plugin-api` in the repository of `host`, if `path` is in that repository. Returns
    /// `None` for any other path.
    #[must_use]
    pub fn of_repository(path: &Path) -> Option<Self> {
        let path = absolute(path).ok()?;
        let has_package =
            |folder: &Path, package: &str| folder.join(package).join("Cargo.toml").is_file();
        // Skip `path` itself, which is the folder of the new crate.
        let root = path.ancestors().skip(1).find(|folder| {
            has_package(folder, "plugin-api")
                && has_package(folder, "host")
                && folder.join("Cargo.toml").is_file()
        })?;
        Some(Self::from_folder(relative_path(
            &path,
            &root.join("plugin-api"),
        )))
    }

    /// Makes the path of a dependency's folder relative to the crate at `path`, as Cargo expects. Before, a relative
    /// path is relative to the working directory. Changes neither an absolute path nor another kind of dependency.
    ///
    /// # Errors
    ///
    /// Fails when the folder contains no package.
    pub fn relative_to(mut self, path: &Path) -> Result<Self, SdkSourceError> {
        let Some(toml::Value::String(folder)) = self.0.get_mut("path") else {
            return Ok(self);
        };
        let package = PathBuf::from(&*folder);
        let resolved = absolute(&package).and_then(|to| Ok((absolute(path)?, to)));
        match resolved {
            Ok((from, to)) if to.join("Cargo.toml").is_file() => {
                if package.is_relative() {
                    *folder = relative_path(&from, &to).to_string_lossy().into_owned();
                }
                Ok(self)
            }
            _ => Err(SdkSourceError::NoPackage(package)),
        }
    }

    /// Returns the inner part of an inline table: the keys and values, separated by commas.
    pub(super) fn to_toml(&self) -> String {
        let entries = self.0.iter().map(|(key, value)| format!("{key} = {value}"));
        entries.collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for SdkSource {
    type Err = SdkSourceError;

    fn from_str(text: &str) -> Result<Self, SdkSourceError> {
        // A text that begins with a brace is an inline table.
        if text.starts_with('{') {
            let parsed = format!("source = {text}").parse::<toml::Table>();
            return match parsed.map(|mut table| table.remove("source")) {
                Ok(Some(toml::Value::Table(table))) => Ok(Self(table)),
                _ => Err(SdkSourceError::NoDependency(text.to_owned())),
            };
        }
        let is_version =
            text.starts_with(|first: char| first.is_ascii_digit() || "=^~".contains(first));
        if is_version && !text.contains('/') {
            let version = toml::Value::String(text.to_owned());
            return Ok(Self(toml::Table::from_iter([(
                "version".to_owned(),
                version,
            )])));
        }
        Ok(Self::from_folder(text.into()))
    }
}

/// Returns the absolute path without `.` and `..`. Resolves symbolic links in the part of the path that exists.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut resolved = env::current_dir()?.canonicalize()?;
    for part in path.components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            part => {
                resolved.push(part);
                // Resolve links after each part: `..` after a link means the parent of the link's target.
                resolved = resolved.canonicalize().unwrap_or(resolved);
            }
        }
    }
    Ok(resolved)
}

/// Returns the relative path from the folder `from` to the folder `to`. Both paths are absolute.
fn relative_path(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components());
    let common = common.take_while(|(from, to)| from == to).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

/// The reason why a value of `--plugin-api` is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdkSourceError {
    /// The text begins with a brace, but is no table.
    #[error(
        "{0:?} is no dependency, expected a folder, a version, or a table as in '{{ git = \"https://…\" }}'"
    )]
    NoDependency(String),
    /// The folder contains no package.
    #[error("--plugin-api {} has no Cargo.toml, expected the folder of a package", .0.display())]
    NoPackage(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_table_a_version_or_a_folder() {
        let written = |text: &str| text.parse::<SdkSource>().map(|source| source.to_toml());
        assert_eq!(
            written(r#"{ git = "https://example.org/host", tag = "v1" }"#).unwrap(),
            r#"git = "https://example.org/host", tag = "v1""#
        );
        assert_eq!(written("0.1").unwrap(), r#"version = "0.1""#);
        assert_eq!(written("=0.1.2").unwrap(), r#"version = "=0.1.2""#);
        assert_eq!(
            written("../plugin-api").unwrap(),
            r#"path = "../plugin-api""#
        );
        assert_eq!(written("1/plugin-api").unwrap(), r#"path = "1/plugin-api""#);
        let error = written("{ git = ").unwrap_err();
        assert!(
            error.to_string().contains("expected a folder, a version"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_is_named_from_the_crate_that_uses_it() {
        let way = |from: &str, to: &str| relative_path(Path::new(from), Path::new(to));
        assert_eq!(
            way("/a/b/shop", "/a/plugin-api"),
            Path::new("../../plugin-api")
        );
        assert_eq!(
            way("/a/shop", "/c/plugin-api"),
            Path::new("../../c/plugin-api")
        );
        let error =
            SdkSource::from_folder("/nowhere/plugin-api".into()).relative_to(Path::new("shop"));
        assert_eq!(
            error,
            Err(SdkSourceError::NoPackage("/nowhere/plugin-api".into()))
        );
    }
}
