//! The address of a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An IP address and port. All fields are 0 if the peer has no IP address, for example on a Unix socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketAddress {
    /// 4 for IPv4, 6 for IPv6, 0 for no address.
    pub family: u16,
    /// The port, in the machine's byte order.
    pub port: u16,
    /// The scope ID of an IPv6 address; otherwise 0.
    pub scope: u32,
    /// The address in network byte order; an IPv4 address in the first four bytes.
    pub address: [u8; 16],
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; 16];
        let (family, scope) = match address {
            SocketAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.ip().octets());
                (4, 0)
            }
            SocketAddr::V6(v6) => {
                bytes = v6.ip().octets();
                (6, v6.scope_id())
            }
        };
        Self {
            family,
            port: address.port(),
            scope,
            address: bytes,
        }
    }
}

impl SocketAddress {
    /// Returns the address, or `None` if the peer has no IP address.
    #[must_use]
    pub fn to_std(self) -> Option<SocketAddr> {
        match self.family {
            4 => {
                let [a, b, c, d, ..] = self.address;
                Some(SocketAddr::new(
                    IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                    self.port,
                ))
            }
            6 => {
                let ip = Ipv6Addr::from(self.address);
                Some(SocketAddrV6::new(ip, self.port, 0, self.scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for text in ["127.0.0.1:80", "[::1]:8000", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddress::from(address).to_std(), Some(address));
        }
        assert_eq!(SocketAddress::default().to_std(), None);
    }
}
