//! Listening sockets that go from the supervisor to workers: shared, so that all accept from one
//! queue.
//!
//! Shared sockets, and never SO_REUSEPORT: with that option each socket has a queue of its own, and
//! the connections that wait in it are reset when its process ends. What waits in a shared queue is
//! accepted by whoever is left, because the supervisor never closes its own descriptor.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Returns another descriptor of a listening socket, to be sent to a worker.
///
/// # Errors
///
/// Returns the system's error when this process may not open more files.
pub fn share(listener: &impl AsFd) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}

/// Returns the listening socket that a descriptor is, made nonblocking as a runtime needs it.
///
/// # Errors
///
/// Fails when the descriptor is no TCP socket, or one that does not listen.
pub fn receive(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let domain = sockopt::socket_domain(&descriptor)?;
    let is_tcp = [AddressFamily::INET, AddressFamily::INET6].contains(&domain)
        && sockopt::socket_type(&descriptor)? == SocketType::STREAM;
    if !is_tcp || !sockopt::socket_acceptconn(&descriptor)? {
        let text = "a descriptor that should be a listening TCP socket is another kind of file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{TcpStream, UdpSocket},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_connection_that_waits_is_accepted_by_who_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (first, second) = (share(&listener).unwrap(), share(&listener).unwrap());
        let (first, second) = (receive(first).unwrap(), receive(second).unwrap());
        let client = TcpStream::connect(address).unwrap();
        drop(first);
        let second = tokio::net::TcpListener::from_std(second).unwrap();
        let (_, peer) = second.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let others = [
            OwnedFd::from(client),
            OwnedFd::from(unix),
            OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()),
            OwnedFd::from(File::open("/dev/null").unwrap()),
        ];
        for other in others {
            receive(other).unwrap_err();
        }
    }
}
