//! How the server of a session is started: the author's own settings, and what a session puts in the
//! place of the defaults.

use std::{
    ffi::OsString,
    fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::{Path, PathBuf},
};

use crate::{
    cli,
    config::{Address, Config},
};

/// Where a session keeps what its server needs.
#[derive(Debug)]
pub(super) struct Places {
    /// The folder of plugins, which only the session writes to.
    pub(super) plugins: PathBuf,
    /// The server's private copies.
    pub(super) state: PathBuf,
    /// The configuration file.
    pub(super) config: PathBuf,
    /// The control socket.
    pub(super) control: PathBuf,
    /// The socket that tells the state of the session.
    pub(super) feed: PathBuf,
}

/// Writes the configuration file of the server: the author's, with settings added that are good for
/// development and of which it says nothing.
///
/// # Errors
///
/// When the author's file cannot be read or is no TOML, or the server's cannot be written.
pub(super) fn write(
    places: &Places,
    authors: Option<&Path>,
    crates: &[String],
) -> Result<(), SettingsError> {
    let text = authors.map_or_else(
        || Ok(String::new()),
        |path| {
            fs::read_to_string(path).map_err(|source| SettingsError::Read {
                path: path.to_owned(),
                source,
            })
        },
    )?;
    let mut table: toml::Table = text.parse().map_err(|source| SettingsError::Toml {
        path: authors.map(Path::to_owned).unwrap_or_default(),
        source: Box::new(source),
    })?;
    let levels = crates.iter().map(|name| format!(",{name}=debug"));
    let defaults = [
        ("log-level", format!("info{}", levels.collect::<String>())),
        // Files come complete, by a rename.
        ("quiet-time", "1ms".to_owned()),
    ];
    for (key, value) in defaults {
        table.entry(key).or_insert(toml::Value::String(value));
    }
    fs::write(&places.config, table.to_string()).map_err(|source| SettingsError::Write {
        path: places.config.clone(),
        source,
    })
}

/// The arguments of the server. `given` are the options that the author gave to the session.
pub(super) fn arguments(places: &Places, given: &[OsString]) -> Vec<OsString> {
    let option = |name: &str, path: &Path| {
        let mut option = OsString::from(format!("--{name}="));
        option.push(path);
        option
    };
    let own = [
        OsString::from("host"),
        option("config", &places.config),
        option("plugins", &places.plugins),
        option("state-dir", &places.state),
    ];
    let is_own = |given: &&OsString| {
        let text = given.to_string_lossy();
        !["--plugins=", "--state-dir="]
            .iter()
            .any(|own| text.starts_with(own))
    };
    own.into_iter()
        .chain(given.iter().filter(is_own).cloned())
        .collect()
}

/// What the server makes of its arguments, the environment and the file.
///
/// # Errors
///
/// When some of it is wrong.
pub(super) fn check(arguments: &[OsString]) -> Result<Box<Config>, cli::Error> {
    match cli::parse(arguments.iter().cloned())? {
        cli::Command::Serve(config, _) => Ok(config),
        _ => Err(cli::Error::NotServing),
    }
}

/// Where to listen: as said, or at the next ports that are free.
///
/// # Errors
///
/// When an address is not of this machine alone and remote clients are not allowed, or when there is no free port.
pub(super) fn addresses(wanted: &[Address], allow_remote: bool) -> Result<Vec<Address>, BindError> {
    wanted
        .iter()
        .map(|address| free(address, allow_remote))
        .collect()
}

fn free(wanted: &Address, allow_remote: bool) -> Result<Address, BindError> {
    let failed = |source| BindError::Bind {
        address: wanted.clone(),
        source,
    };
    let sockets: Vec<SocketAddr> = wanted.to_socket_addrs().map_err(failed)?.collect();
    if !allow_remote && !sockets.iter().all(|socket| socket.ip().is_loopback()) {
        return Err(BindError::Remote(wanted.clone()));
    }
    let port = sockets.first().map_or(0, SocketAddr::port);
    for next in port..=port.saturating_add(PORTS) {
        let at = |socket: &SocketAddr| SocketAddr::new(socket.ip(), next);
        match sockets
            .iter()
            .try_for_each(|socket| TcpListener::bind(at(socket)).map(drop))
        {
            Ok(()) if next == port => return Ok(wanted.clone()),
            Ok(()) => {
                let host = wanted.to_string();
                let host = host.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
                return format!("{host}:{next}")
                    .parse()
                    .map_err(|_| BindError::Full(wanted.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(BindError::Full(wanted.clone()))
}

/// How many ports to try after the one that is wanted.
const PORTS: u16 = 20;

/// Settings that the server cannot be given.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    /// The author's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The author's file is no TOML.
    #[error("{} is not a configuration file", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// The server's file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// An address that a session does not listen on.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// The system refuses.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// What it says.
        source: io::Error,
    },
    /// All ports are taken.
    #[error("cannot listen on {0}: its port and the {PORTS} after it are taken")]
    Full(Address),
    /// Others could reach it.
    #[error(
        "{0} can be reached from other machines, which then see errors and sources: expected 127.0.0.1 or localhost, or --allow-remote"
    )]
    Remote(Address),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_free_port_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let found = addresses(&[address(&format!("127.0.0.1:{port}"))], false).unwrap();
        let found: SocketAddr = found[0].to_string().parse().unwrap();
        assert!(found.port() > port, "{found} after {port}");
    }

    #[test]
    fn other_machines_are_kept_out_unless_allowed() {
        let all = [address("0.0.0.0:0")];
        let error = addresses(&all, false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        assert_eq!(addresses(&all, true).unwrap(), all);
        assert!(addresses(&[address("localhost:0")], false).is_ok());
    }

    #[test]
    fn the_authors_settings_go_before_those_of_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let places = Places {
            plugins: at("plugins"),
            state: at("state"),
            config: at("server.toml"),
            control: at("control"),
            feed: at("feed"),
        };
        let crates = ["shop".to_owned()];
        write(&places, None, &crates).unwrap();
        let config = check(&arguments(&places, &[])).unwrap();
        assert_eq!(config.log_level.to_string(), "info,shop=debug");
        assert_eq!(config.plugins, at("plugins"));

        fs::write(at("host.toml"), "log-level = \"warn\"\nmax-headers = 7\n").unwrap();
        write(&places, Some(&at("host.toml")), &crates).unwrap();
        let config = check(&arguments(&places, &[])).unwrap();
        assert_eq!(config.log_level.to_string(), "warn");
        assert_eq!(config.limits.max_headers, 7);
        let given = ["--log-level=error", "--plugins=elsewhere"].map(OsString::from);
        let config = check(&arguments(&places, &given)).unwrap();
        assert_eq!(
            (config.log_level.to_string(), &config.plugins),
            ("error".to_owned(), &at("plugins"))
        );

        fs::write(at("host.toml"), "log-level =").unwrap();
        let error = write(&places, Some(&at("host.toml")), &crates).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("host.toml is not a configuration file")
        );
    }
}
