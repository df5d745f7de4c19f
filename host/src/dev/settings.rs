//! The settings of a session's server: the author's settings, and values for development where the author has set none.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// The folders and files that a session makes for its server.
#[derive(Debug)]
pub(super) struct SessionPaths {
    /// The plugins folder. Only the session writes to it.
    pub(super) plugins: PathBuf,
    /// The folder for the server's private copies of libraries.
    pub(super) state: PathBuf,
    /// The configuration file that the session writes for the server.
    pub(super) config: PathBuf,
    /// The control socket. Not used if the author has chosen another path.
    pub(super) control: PathBuf,
    /// The socket on which the session sends its state to the server.
    pub(super) state_socket: PathBuf,
}

/// Writes the server's configuration file: a copy of the author's file, plus values for development for settings that
/// the author's file does not set. By default the crates in `crates` are logged at debug.
///
/// # Errors
///
/// Fails when the author's file cannot be read or is no TOML, or when the copy cannot be written.
pub(super) fn write(
    paths: &SessionPaths,
    authors_file: Option<&Path>,
    crates: &[String],
) -> Result<(), ServerConfigError> {
    let text = authors_file.map_or_else(
        || Ok(String::new()),
        |path| {
            fs::read_to_string(path).map_err(|source| ServerConfigError::Read {
                path: path.to_owned(),
                source,
            })
        },
    )?;
    let mut table: toml::Table = text.parse().map_err(|source| ServerConfigError::Toml {
        path: authors_file.map(Path::to_owned).unwrap_or_default(),
        source: Box::new(source),
    })?;
    let levels = crates.iter().map(|name| format!(",{name}=debug"));
    let defaults = [
        ("log-level", format!("info{}", levels.collect::<String>())),
        // The server need not wait until a file is complete, because the session renames complete files into the
        // plugins folder.
        ("quiet-time", "1ms".to_owned()),
    ];
    for (key, value) in defaults {
        // The server reads `log_level` as `log-level`, and refuses a file that sets a key twice.
        let is_set = table.keys().any(|set| set.replace('_', "-") == key);
        if !is_set {
            table.insert(key.to_owned(), toml::Value::String(value));
        }
    }
    fs::write(&paths.config, table.to_string()).map_err(|source| ServerConfigError::Write {
        path: paths.config.clone(),
        source,
    })
}

/// Returns the arguments of the server: the session's paths, followed by the author's flags for the server. Leaves out
/// the author's `--plugins` and `--state-dir`, because the session has folders of its own.
pub(super) fn arguments(paths: &SessionPaths, server_flags: &[OsString]) -> Vec<OsString> {
    let option = |name: &str, path: &Path| {
        let mut option = OsString::from(format!("--{name}="));
        option.push(path);
        option
    };
    let session_args = [
        OsString::from("host"),
        option("config", &paths.config),
        option("plugins", &paths.plugins),
        option("state-dir", &paths.state),
    ];
    let is_allowed = |flag: &&OsString| {
        let text = flag.to_string_lossy();
        !["--plugins=", "--state-dir="]
            .iter()
            .any(|option| text.starts_with(option))
    };
    session_args
        .into_iter()
        .chain(server_flags.iter().filter(is_allowed).cloned())
        .collect()
}

/// The reason why the server's configuration file was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerConfigError {
    /// The author's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The author's file is no TOML.
    #[error("{} is not a configuration file", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The error of the TOML parser.
        source: Box<toml::de::Error>,
    },
    /// The server's file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::parse;

    #[test]
    fn the_authors_settings_go_before_those_of_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let paths = SessionPaths {
            plugins: at("plugins"),
            state: at("state"),
            config: at("server.toml"),
            control: at("control"),
            state_socket: at("feed"),
        };
        let crates = ["shop".to_owned()];
        write(&paths, None, &crates).unwrap();
        let config = parse(&arguments(&paths, &[])).unwrap().config;
        assert_eq!(config.log_level.to_string(), "info,shop=debug");
        assert_eq!(config.plugins, at("plugins"));

        fs::write(at("host.toml"), "log-level = \"warn\"\nmax-headers = 7\n").unwrap();
        write(&paths, Some(&at("host.toml")), &crates).unwrap();
        let config = parse(&arguments(&paths, &[])).unwrap().config;
        assert_eq!(config.log_level.to_string(), "warn");
        assert_eq!(config.limits.max_headers, 7);
        let given = ["--log-level=error", "--plugins=elsewhere"].map(OsString::from);
        let config = parse(&arguments(&paths, &given)).unwrap().config;
        assert_eq!(
            (config.log_level.to_string(), &config.plugins),
            ("error".to_owned(), &at("plugins"))
        );

        fs::write(
            at("host.toml"),
            "log_level = \"warn\"\nquiet_time = \"2s\"\n",
        )
        .unwrap();
        write(&paths, Some(&at("host.toml")), &crates).unwrap();
        let config = parse(&arguments(&paths, &[])).unwrap().config;
        assert_eq!(config.log_level.to_string(), "warn");
        assert_eq!(config.quiet_time, Duration::from_secs(2));

        fs::write(at("host.toml"), "log-level =").unwrap();
        let error = write(&paths, Some(&at("host.toml")), &crates).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("host.toml is not a configuration file")
        );
    }
}
