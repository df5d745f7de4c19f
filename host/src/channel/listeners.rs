//! Shares listening sockets between the supervisor and its workers, so that all workers accept connections from the
//! same queue.
//!
//! SO_REUSEPORT is not used, because with that option each socket has its own queue, and the kernel resets the
//! connections in the queue when the process of the socket ends. Connections in a shared queue survive the death of a
//! worker, because the supervisor keeps its own descriptor open until the server stops.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Duplicates the descriptor of a listening socket, so that the duplicate can be sent to a worker.
///
/// # Errors
///
/// Returns the system's error when this process may not open more files.
pub fn share(listener: &impl AsFd) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}

/// Turns a received descriptor into a listening socket, and makes it nonblocking for tokio.
///
/// # Errors
///
/// Fails when the descriptor is not a TCP socket, or does not listen.
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
    async fn a_waiting_connection_is_accepted_by_another_socket() {
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
    fn a_descriptor_that_does_not_listen_is_refused() {
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
