//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::socket::set_options;

/// Connections that may wait to be accepted: a house full of plugins that reconnect after a Luup reload.
const BACKLOG: i32 = 128;

/// Listens on `address` (`*`, a literal one or a name) and `port`; 0 lets the system choose.
///
/// `*` is every IPv6 and IPv4 address, or every IPv4 one where the kernel has no IPv6. `keep_alive`: see [`set_options`].
pub fn listen(address: &str, port: u16, keep_alive: Option<Duration>) -> io::Result<TcpListener> {
    if address == "*" {
        return bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into(), keep_alive)
            .or_else(|_| bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into(), keep_alive));
    }
    let literal = address.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no such address");
    for address in (literal, port).to_socket_addrs()? {
        match bind(address, keep_alive) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr, keep_alive: Option<Duration>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A daemon that comes back finds its port still held by connections that linger.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    set_options(SockRef::from(&socket), keep_alive);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::super::socket::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_PROBES};
    use super::*;

    #[test]
    fn listens_where_it_is_told() {
        let listener = listen("127.0.0.1", 0, None).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen("127.0.0.1", port, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listen("localhost", 0, None).is_ok());
        assert!(listen("192.0.2.1", 0, None).is_err());
        let any = listen("*", 0, None).unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "v4 comes in, too");
    }

    #[test]
    fn connections_inherit_what_the_listener_has() {
        let silence = Some(Duration::from_secs(77));
        for (listener, client) in [("127.0.0.1", "127.0.0.1"), ("*", "127.0.0.1"), ("*", "::1"), ("::1", "::1")] {
            let Ok(listener) = listen(listener, 0, silence) else { continue };
            let Ok(client) = std::net::TcpStream::connect((client, listener.local_addr().unwrap().port())) else {
                assert!(client.contains(':'), "nobody listens");
                continue;
            };
            let own = client.local_addr().unwrap();
            let accepted = loop {
                // It may not have got there yet.
                match listener.accept() {
                    Ok((accepted, _)) => break accepted,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap(), "{own}");
            assert!(socket.out_of_band_inline().unwrap(), "{own}");
            assert!(socket.keepalive().unwrap(), "{own}");
            let asks = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval(), socket.tcp_keepalive_retries());
            let (time, interval, retries) = (asks.0.ok(), asks.1.ok(), asks.2.ok());
            assert_eq!(
                (time, interval, retries),
                (silence, Some(KEEP_ALIVE_INTERVAL), Some(KEEP_ALIVE_PROBES)),
                "{own}"
            );
        }
    }
}
