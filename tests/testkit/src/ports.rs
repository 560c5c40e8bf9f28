//! Loopback ports with known behaviour: one reserved for later, which refuses until then, and one that never answers.
//! The kernel chooses the numbers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A port that the kernel gives to no other socket until this is dropped. It is bound without listening: connections
/// are refused until [`Reserved::listen`], or a daemon that binds with SO_REUSEADDR, listens on it.
#[derive(Debug)]
pub struct Reserved {
    socket: Socket,
    addr: SocketAddr,
}

impl Reserved {
    /// Reserves a free port on 127.0.0.1.
    pub fn new() -> io::Result<Self> {
        Reserved::on(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
    }

    /// Reserves `addr`; port 0 means any.
    pub fn on(addr: SocketAddr) -> io::Result<Self> {
        let socket = bound(addr)?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Reserved { socket, addr })
    }

    /// The reserved address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The reserved port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Listens on the port. Can be called again after the listener was dropped.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let listener = bound(self.addr)?;
        listener.listen(4096)?;
        Ok(listener.into())
    }
}

/// An address where connect(2) never completes until this is dropped, neither with success nor with a refusal: the
/// accept queue of its listener is full, so the kernel ignores further SYNs.
#[derive(Debug)]
pub struct BlackHole {
    reserved: Reserved,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens a black hole on 127.0.0.1.
    pub fn new() -> io::Result<Self> {
        let reserved = Reserved::new()?;
        reserved.socket.listen(0)?;
        let mut queue = Vec::new();
        // A queue of length 0 holds one connection, or a few more on some kernels.
        for _ in 0..64 {
            match TcpStream::connect_timeout(&reserved.addr, Duration::from_millis(150)) {
                Ok(stream) => queue.push(stream),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    return Ok(BlackHole { reserved, _queue: queue });
                }
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("the listener's queue does not fill up"))
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.reserved.addr
    }
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_refuses_listens_and_refuses_again() {
        let reserved = Reserved::new().unwrap();
        let refused = || TcpStream::connect(reserved.addr()).unwrap_err().kind();
        assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            let listener = reserved.listen().unwrap();
            let _client = TcpStream::connect(reserved.addr()).unwrap();
            let _server = listener.accept().unwrap();
            drop(listener);
            assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_black_hole_does_not_answer() {
        let hole = BlackHole::new().unwrap();
        let error = TcpStream::connect_timeout(&hole.addr(), Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
