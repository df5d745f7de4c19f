//! The addresses that the server listens on, and how many files it may have open.

use std::{
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

use super::StartError;
use crate::config::Address;

/// Binds every address, and prints each address once, before anything else.
pub(super) fn bind(addresses: &[Address]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    let mut bound = String::new();
    for address in addresses {
        let failed = |source| StartError::Bind {
            address: address.clone(),
            source,
        };
        for socket in address.to_socket_addrs().map_err(failed)? {
            let listener = listen(socket).map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            bound.push_str(&format!("Listening on http://{local}\n"));
            listeners.push(listener);
        }
    }
    // Whoever started the server may not want to know.
    let _ = io::stdout().write_all(bound.as_bytes());
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Else an address could not be used for a minute after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the limit on open files as far as the system allows, if the connections need it.
pub(super) fn raise_open_files(connections: u32) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(connections) + OTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = rustix::process::Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, wanted, "Cannot raise the limit on open files");
    } else if possible < wanted {
        warn!(
            limit = possible,
            wanted, "The limit on open files (ulimit -n) is lower than --max-connections needs"
        );
    }
}

/// How many connections the kernel may keep for us: as many as it lets us have (listen(2)).
const BACKLOG: u32 = 4096;

/// How many files are open beside connections: libraries, logs, runtimes.
const OTHER_FILES: u64 = 256;
