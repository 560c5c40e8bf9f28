//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;

use mio::net::TcpListener;
use mio::{Registry, Token};
use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::socket::{KeepAlive, set_options};

/// Connections that wait to be accepted: after a Luup reload, all plugins reconnect at once.
const BACKLOG: i32 = 128;

/// Listens on `address` (`*`, a literal address or a name) and `port`. 0: the system chooses a port.
///
/// `*` means all IPv6 and IPv4 addresses, or all IPv4 addresses if the kernel has no IPv6. Of the addresses of a name, the
/// first that can be bound is used. For `keep_alive` see [`set_options`]. The error is that of the last address.
pub(crate) fn listen(address: &str, port: u16, keep_alive: Option<KeepAlive>) -> io::Result<TcpListener> {
    if address == "*" {
        return listen_at((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into(), keep_alive)
            .or_else(|_| listen_at((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into(), keep_alive));
    }
    let literal = address.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no such address");
    for address in (literal, port).to_socket_addrs()? {
        match listen_at(address, keep_alive) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Registers a listener for events under `token`, level-triggered: while a connection waits, every poll reports it. So one
/// that was accepted needs no second accept(2) to find that no other waits. mio registers edge-triggered only.
pub(crate) fn register(registry: &Registry, listener: &TcpListener, token: Token) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token.0 as u64 };
    // SAFETY: both descriptors are open during the call, and the kernel copies `event`.
    let result =
        unsafe { libc::epoll_ctl(registry.as_raw_fd(), libc::EPOLL_CTL_ADD, listener.as_raw_fd(), &mut event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the registration of a listener. Closing it does so, too.
pub(crate) fn deregister(registry: &Registry, listener: &TcpListener) -> io::Result<()> {
    // SAFETY: both descriptors are open during the call, and no event is passed.
    let result = unsafe {
        libc::epoll_ctl(registry.as_raw_fd(), libc::EPOLL_CTL_DEL, listener.as_raw_fd(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Listens on `address`. For `keep_alive` see [`set_options`].
pub(crate) fn listen_at(address: SocketAddr, keep_alive: Option<KeepAlive>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // After a restart, connections in TIME_WAIT still hold the port.
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn listens_on_literal_addresses_names_and_all_addresses() {
        let listener = listen("127.0.0.1", 0, None).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen("127.0.0.1", port, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listen("localhost", 0, None).is_ok());
        assert!(listen("192.0.2.1", 0, None).is_err());
        let any = listen("*", 0, None).unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "IPv4 clients cannot connect");
    }

    #[test]
    fn accepted_sockets_inherit_the_options_of_the_listener() {
        let keep_alive = KeepAlive { idle: 77, interval: 11, probes: 5 };
        for (listener, client) in [("127.0.0.1", "127.0.0.1"), ("*", "127.0.0.1"), ("*", "::1"), ("::1", "::1")] {
            let Ok(listener) = listen(listener, 0, Some(keep_alive)) else { continue };
            let Ok(client) = std::net::TcpStream::connect((client, listener.local_addr().unwrap().port())) else {
                assert!(client.contains(':'), "the listener does not answer on IPv4");
                continue;
            };
            let own = client.local_addr().unwrap();
            let accepted = loop {
                // The connection may not be in the backlog yet.
                match listener.accept() {
                    Ok((accepted, _)) => break accepted,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap(), "{own}");
            assert!(socket.out_of_band_inline().unwrap(), "{own}");
            assert!(socket.keepalive().unwrap(), "{own}");
            let probes = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval(), socket.tcp_keepalive_retries());
            let (time, interval, retries) = (probes.0.ok(), probes.1.ok(), probes.2.ok());
            let seconds = |seconds| Some(Duration::from_secs(seconds));
            assert_eq!((time, interval, retries), (seconds(77), seconds(11), Some(5)), "{own}");
        }
    }
}
