//! The addresses that the server listens on, and how many files it may have open.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    time::Duration,
};

use rustix::{
    net::sockopt,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::net::TcpSocket;
use tracing::warn;

use super::StartError;
use crate::config::Address;

/// Binds every address, and prints each address once, before anything else.
pub(super) fn bind(addresses: &[Address]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    let mut bound = String::new();
    let failed = |address: &Address| {
        let address = address.clone();
        |source| StartError::Bind { address, source }
    };
    let mut sockets = Vec::new();
    for address in addresses {
        let found = address.to_socket_addrs().map_err(failed(address))?;
        sockets.extend(found.map(|socket| (address, socket)));
    }
    let others: Vec<_> = sockets.iter().map(|&(_, socket)| socket).collect();
    for (address, socket) in sockets {
        let listener = listen(socket, &others).map_err(failed(address))?;
        let local = listener.local_addr().map_err(failed(address))?;
        bound.push_str(&format!("Listening on http://{local}\n"));
        listeners.push(listener);
    }
    // Whoever started the server may not want to know.
    let _ = io::stdout().write_all(bound.as_bytes());
    Ok(listeners)
}

fn listen(address: SocketAddr, others: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // `[::]` is every address of IPv4 as well (ipv6(7)), unless somebody else is to have those.
    let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    if address.is_ipv6() && others.contains(&ipv4) {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Else an address could not be used for a minute after a restart.
    socket.set_reuseaddr(true)?;
    // Its connections have the same: one whose client is gone without a word is found out, though
    // nothing is sent on it (tcp(7)).
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, SILENCE)?;
    sockopt::set_tcp_keepintvl(&socket, SILENCE / PROBES)?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    socket.bind(address)?;
    // The runtime that serves the socket registers it again.
    socket.listen(BACKLOG)?.into_std()
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

/// After how long a silent client is asked whether it is there, and how long it has to answer.
const SILENCE: Duration = Duration::from_secs(60);

/// How often it is asked before it counts as gone.
const PROBES: u32 = 6;

/// How many connections the kernel may keep for us: as many as it lets us have (listen(2)).
const BACKLOG: u32 = 4096;

/// How many files are open beside connections: libraries, logs, runtimes.
const OTHER_FILES: u64 = 256;
