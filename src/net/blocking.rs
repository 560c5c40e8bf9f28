//! Blocking connect to one address, with a time limit, for threads of a pool. The event loop uses [`super::connector`].

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

/// Shortest time limit. A SO_SNDTIMEO of 0 means no limit (socket(7)).
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Connects to `address` within `timeout`, which is at least a millisecond. Errors: `TimedOut`, or the error of connect(2).
///
/// std's `TcpStream::connect_timeout` reads the error from SO_ERROR, which user-mode emulators of other processors
/// translate wrongly. The socket keeps the time limit for writes.
pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // SO_SNDTIMEO also limits connect(2), which then fails with EINPROGRESS (socket(7)).
    socket.set_write_timeout(Some(timeout.max(MIN_TIMEOUT)))?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refused_connection_has_its_error() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = connect(unused, Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn connecting_ends_at_the_time_limit() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let full = listener.local_addr().unwrap().as_socket().unwrap();
        // The kernel answers as many connections as fit into the backlog, and no further ones.
        let mut queue = Vec::new();
        for timeout in [Duration::from_millis(100), Duration::ZERO] {
            let error = loop {
                match connect(full, timeout) {
                    Ok(stream) => queue.push(stream),
                    Err(error) => break error,
                }
                assert!(queue.len() < 8, "the backlog is never full");
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
