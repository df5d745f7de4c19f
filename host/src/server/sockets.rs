//! Binds the addresses of the server, and raises the limit on open files.

use std::{
    collections::HashSet,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::sockopt,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::net::TcpSocket;
use tracing::{info, warn};

use super::StartError;
use crate::config::BindAddress;

/// Binds all addresses and logs them. If `prints_addresses` is true, also prints them to stdout, as the first lines
/// of the server.
///
/// A host name may resolve to addresses that this machine does not have: `localhost` resolves to `::1` even where
/// IPv6 is off. One address of a name is enough; each missing address causes a warning.
///
/// # Errors
///
/// When a name cannot be resolved, when this machine has none of a name's addresses, or when an address cannot be
/// bound for another reason, for instance because another process listens on it.
pub(super) fn bind(
    addresses: &[BindAddress],
    prints_addresses: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let bind_error = |address: &BindAddress| {
        let address = address.clone();
        |source| StartError::Bind { address, source }
    };
    // Resolve all names before any address is bound, because the options of the socket of `[::]` depend on the other
    // addresses (see `listen`).
    let mut named = Vec::new();
    for address in addresses {
        let found = address.to_socket_addrs().map_err(bind_error(address))?;
        named.push((address, found.collect()));
    }
    let mut listeners = Vec::new();
    let all: Vec<SocketAddr> = named.iter().flat_map(|(_, found)| found).copied().collect();
    for (address, found, is_bound) in without_duplicates(named) {
        let listening = listen_on_any(address, &found, is_bound, &all);
        listeners.extend(listening.map_err(bind_error(address))?);
    }
    let mut bound = String::new();
    for listener in &listeners {
        // `local_addr` never fails for a bound socket.
        if let Ok(local) = listener.local_addr() {
            info!(url = format!("http://{local}"), "Listening");
            bound.push_str(&format!("Listening on http://{local}\n"));
        }
    }
    if prints_addresses {
        // Ignore a failure: the reader of stdout may be gone, and the log contains the addresses too.
        let _ = io::stdout().write_all(bound.as_bytes());
    }
    Ok(listeners)
}

/// Removes duplicate socket addresses. A name may resolve to the same address twice (getaddrinfo(3)), and two of the
/// operator's addresses may resolve to the same one. The bool of each tuple is true if an address was removed because
/// an earlier name has it. Addresses with port 0 are no duplicates of those of another name, because the system
/// chooses another port for each.
fn without_duplicates(
    named: Vec<(&BindAddress, Vec<SocketAddr>)>,
) -> impl Iterator<Item = (&BindAddress, Vec<SocketAddr>, bool)> {
    let mut seen = HashSet::new();
    named.into_iter().map(move |(address, found)| {
        let mut of_name = HashSet::new();
        let mut is_bound = false;
        let mut is_new = |socket: &SocketAddr| {
            if !of_name.insert(*socket) {
                return false;
            }
            let is_new = socket.port() == 0 || seen.insert(*socket);
            is_bound |= !is_new;
            is_new
        };
        let found = found.into_iter().filter(|socket| is_new(socket)).collect();
        (address, found, is_bound)
    })
}

/// Listens on the `found` addresses of one name, and skips addresses that this machine does not have. `is_bound` is
/// true if an earlier name has bound an address of this name already. `all` are the addresses of all names.
///
/// # Errors
///
/// When this machine has none of the addresses and `is_bound` is false, or when an address of this machine cannot be
/// bound.
fn listen_on_any(
    name: &BindAddress,
    found: &[SocketAddr],
    is_bound: bool,
    all: &[SocketAddr],
) -> io::Result<Vec<TcpListener>> {
    let (mut listeners, mut missing) = (Vec::new(), Vec::new());
    for &socket in found {
        match listen(socket, all) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_foreign_address(&error) => missing.push((socket, error)),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty()
        && !is_bound
        && let Some((_, error)) = missing.pop()
    {
        return Err(error);
    }
    for (address, error) in missing {
        warn!(%error, %name, %address, "An address of a name is not one of this machine, listening on the others");
    }
    Ok(listeners)
}

/// Returns whether an error means that this machine does not have the address, or does not support the address's
/// whole family, such as IPv6 (bind(2), socket(2)).
fn is_foreign_address(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Listens on one address. `all` are the addresses of all names.
///
/// # Errors
///
/// When the address cannot be bound.
fn listen(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A socket on `[::]` also accepts IPv4 connections (ipv6(7)). If the operator binds `0.0.0.0` with the same port
    // too, restrict `[::]` to IPv6, because otherwise the second bind fails.
    let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    if address.is_ipv6() && all.contains(&ipv4) {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Without SO_REUSEADDR a restarted server could not bind the address for a minute, while connections of the
    // earlier process are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit these options (tcp(7)). Keep-alive probes detect a client that has vanished, even
    // while neither side sends data.
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, PROBE_TIME)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE_TIME / MAX_PROBES)?;
    sockopt::set_tcp_keepcnt(&socket, MAX_PROBES)?;
    socket.bind(address)?;
    // Return a socket of std, because tokio registers a socket with one runtime and another runtime will serve this
    // one.
    socket.listen(BACKLOG)?.into_std()
}

/// Raises the limit on open files if `connections` need more, as far as the system allows. Logs a warning if the
/// raised limit is still too low.
pub(super) fn raise_open_files(connections: u32) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(connections) + OTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    // A process without privileges can raise its soft limit up to the hard limit (getrlimit(2)).
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

/// The time after which the system sends the first keep-alive probe to a silent client. The client has the same time
/// once more to answer one of [`MAX_PROBES`] probes.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// The number of unanswered probes after which the system closes a connection.
const MAX_PROBES: u32 = 6;

/// The number of connections that may wait in the kernel's queue. The system reduces the number to its own limit
/// (listen(2)).
const BACKLOG: u32 = 4096;

/// The number of descriptors that the process may need besides connections: libraries, logs, runtimes.
const OTHER_FILES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// An address of TEST-NET-3 (RFC 5737), which no machine has.
    const ELSEWHERE: &str = "203.0.113.7:0";

    fn listens_on(found: &[&str], is_bound: bool) -> io::Result<Vec<SocketAddr>> {
        let name = "shop.example:0".parse().expect("a name and a port");
        let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let listeners = listen_on_any(&name, &found, is_bound, &found)?;
        listeners.iter().map(TcpListener::local_addr).collect()
    }

    #[tokio::test]
    async fn one_address_of_a_name_is_enough() {
        for found in [[ELSEWHERE, "127.0.0.1:0"], ["127.0.0.1:0", ELSEWHERE]] {
            let bound = listens_on(&found, false).unwrap();
            let ips: Vec<_> = bound.iter().map(|socket| socket.ip().to_string()).collect();
            assert_eq!(ips, ["127.0.0.1"]);
        }
    }

    #[tokio::test]
    async fn none_of_a_name_is_an_error_and_so_is_one_that_is_in_use() {
        let none = listens_on(&[ELSEWHERE, "203.0.113.8:0"], false).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(listens_on(&[ELSEWHERE], true).unwrap(), []);
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = other.local_addr().unwrap().to_string();
        let used = listens_on(&["127.0.0.1:0", &other], false).unwrap_err();
        assert_eq!(used.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_is_bound_once_however_it_is_named() {
        let [name, literal]: [BindAddress; 2] =
            ["localhost:80", "127.0.0.1:80"].map(|text| text.parse().unwrap());
        let socket: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let named = vec![
            (&name, vec![socket, socket]),
            (&literal, vec![socket]),
            (&name, vec![any, any]),
            (&name, vec![any]),
        ];
        let found: Vec<_> = without_duplicates(named)
            .map(|(_, found, is_bound)| (found, is_bound))
            .collect();
        let expected = [
            (vec![socket], false),
            (vec![], true),
            (vec![any], false),
            (vec![any], false),
        ];
        assert_eq!(found, expected);
    }
}
