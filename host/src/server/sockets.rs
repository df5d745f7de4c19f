//! The addresses that the server listens on, and how many files it may have open.

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

/// Binds every address, and logs each; prints each to stdout as well, before anything else, if it
/// `prints`.
///
/// A host name may have addresses that this machine does not, as `localhost` has `::1` where IPv6 is
/// off: of a name, one address that can be had is enough, and a warning names each of the others.
///
/// # Errors
///
/// When a name cannot be resolved, an address that is given as such cannot be had, none of a name's
/// can, or somebody else listens on one of them.
pub(super) fn bind(
    addresses: &[BindAddress],
    prints: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let failed = |address: &BindAddress| {
        let address = address.clone();
        |source| StartError::Bind { address, source }
    };
    let mut named = Vec::new();
    for address in addresses {
        let found = address.to_socket_addrs().map_err(failed(address))?;
        named.push((address, found.collect()));
    }
    let mut listeners = Vec::new();
    let all: Vec<SocketAddr> = named.iter().flat_map(|(_, found)| found).copied().collect();
    for (address, found, is_bound) in without_doubles(named) {
        let listening = listen_on_any(address, &found, is_bound, &all);
        listeners.extend(listening.map_err(failed(address))?);
    }
    let mut bound = String::new();
    for listener in &listeners {
        // It has an address: it is bound.
        if let Ok(local) = listener.local_addr() {
            info!(url = format!("http://{local}"), "Listening");
            bound.push_str(&format!("Listening on http://{local}\n"));
        }
    }
    if prints {
        // Whoever started the server may not want to know.
        let _ = io::stdout().write_all(bound.as_bytes());
    }
    Ok(listeners)
}

/// Leaves out a socket address that is there before, as a name may have it twice (getaddrinfo(3)) or
/// have what is given as an address too; then the last of the three is true. Port 0 is another port
/// each time that the operator asks for it.
fn without_doubles(
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

/// Listens on those of the `found` addresses of one name that this machine has; an error when it has
/// none of them, and no other of the name is bound already. `all` are the addresses of all names.
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
            Err(error) if is_elsewhere(&error) => missing.push((socket, error)),
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

/// Whether this machine does not have the address, or its whole family (bind(2), socket(2)).
fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// TEST-NET-3 (RFC 5737): nobody has it.
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
        let found: Vec<_> = without_doubles(named)
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
