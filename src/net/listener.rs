//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted: a house full of plugins that reconnect after a Luup reload.
const BACKLOG: i32 = 128;

/// Listens on `address` (`*`, a literal one or a name) and `port`; 0 lets the system choose.
///
/// `*` is every IPv6 and IPv4 address, or every IPv4 one where the kernel has no IPv6.
pub fn listen(address: &str, port: u16) -> io::Result<TcpListener> {
    if address == "*" {
        return bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into())
            .or_else(|_| bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()));
    }
    let literal = address.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no such address");
    for address in (literal, port).to_socket_addrs()? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A daemon that comes back finds its port still held by connections that linger.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_where_it_is_told() {
        let listener = listen("127.0.0.1", 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen("127.0.0.1", port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listen("localhost", 0).is_ok());
        assert!(listen("192.0.2.1", 0).is_err());
        let any = listen("*", 0).unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "v4 comes in, too");
    }
}
