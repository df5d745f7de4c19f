//! Chooses the addresses of a session's server: only addresses of this machine, with a free port.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use crate::config::BindAddress;

/// Returns the addresses to listen on: each of the `wanted` addresses, or the same host with the next free port.
///
/// # Errors
///
/// Fails when other machines can reach an address and `allow_remote` is false, or when the wanted port and the next
/// [`PORTS_TO_TRY`] ports are taken.
pub(super) fn find_free(
    wanted: &[BindAddress],
    allow_remote: bool,
) -> Result<Vec<BindAddress>, BindError> {
    wanted
        .iter()
        .map(|address| find_free_port(address, allow_remote))
        .collect()
}

/// Returns `wanted`, or the same host with the next port that is free on all addresses of the host.
fn find_free_port(wanted: &BindAddress, allow_remote: bool) -> Result<BindAddress, BindError> {
    let failed = |source| BindError::Bind {
        address: wanted.clone(),
        source,
    };
    let sockets: Vec<SocketAddr> = wanted.to_socket_addrs().map_err(failed)?.collect();
    if !allow_remote && !sockets.iter().all(|socket| socket.ip().is_loopback()) {
        return Err(BindError::Remote(wanted.clone()));
    }
    // All addresses of a name have the same port.
    let port = sockets.first().map_or(0, SocketAddr::port);
    for candidate in port..=port.saturating_add(PORTS_TO_TRY) {
        let at_candidate = |socket: &SocketAddr| SocketAddr::new(socket.ip(), candidate);
        match sockets
            .iter()
            .try_for_each(|socket| TcpListener::bind(at_candidate(socket)).map(drop))
        {
            // `drop` closed the probe's sockets. Another process may take the port before the server binds it; the
            // server then reports the error.
            Ok(()) if candidate == port => return Ok(wanted.clone()),
            Ok(()) => {
                let host = wanted.to_string();
                let host = host.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
                return format!("{host}:{candidate}")
                    .parse()
                    .map_err(|_| BindError::PortsTaken(wanted.clone()));
            }
            // Try the next port. Port 0 means any free port, so for port 0 the error says that no port is free.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(BindError::PortsTaken(wanted.clone()))
}

/// The number of ports to try after the wanted port.
const PORTS_TO_TRY: u16 = 20;

/// The reason why a session does not listen on an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// The system rejects the address, for a reason other than a taken port.
    #[error("cannot listen on {address}")]
    Bind {
        /// The wanted address.
        address: BindAddress,
        /// The error of the system.
        source: io::Error,
    },
    /// The wanted port and the next [`PORTS_TO_TRY`] ports are taken.
    #[error("cannot listen on {0}: its port and the {PORTS_TO_TRY} after it are taken")]
    PortsTaken(BindAddress),
    /// Other machines could reach the address.
    #[error(
        "{0} can be reached from other machines, which then see errors and sources: expected 127.0.0.1 or localhost, or --allow-remote"
    )]
    Remote(BindAddress),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> BindAddress {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_free_port_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let found = find_free(&[address(&format!("127.0.0.1:{port}"))], false).unwrap();
        let found: SocketAddr = found[0].to_string().parse().unwrap();
        assert!(found.port() > port, "{found} after {port}");
    }

    #[test]
    fn other_machines_are_kept_out_unless_allowed() {
        let all = [address("0.0.0.0:0")];
        let error = find_free(&all, false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        assert_eq!(find_free(&all, true).unwrap(), all);
        assert!(find_free(&[address("localhost:0")], false).is_ok());
    }
}
