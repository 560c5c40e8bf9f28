//! Connecting in a thread that may wait, to one address. The loop, which may not, has [`super::connector`].

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

/// So short a time is none: the kernel would take 0 for as long as it likes.
const LEAST: Duration = Duration::from_millis(1);

/// A connection to `address`, made `within` that time (a millisecond at least), or connect(2)'s own word on why there is
/// none; `TimedOut` where time was up. std's connect_timeout reads that word from SO_ERROR, which emulators of other
/// processors get wrong. The socket keeps its time limit for writing.
pub fn connect(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // socket(7): SO_SNDTIMEO bounds connect, which then says EINPROGRESS.
    socket.set_write_timeout(Some(within.max(LEAST)))?;
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
    fn a_refusal_is_told_as_one() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = connect(unused, Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_allowed() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let full = listener.local_addr().unwrap().as_socket().unwrap();
        // Those that fit into the queue are let in; whoever comes behind them is not answered.
        let mut queue = Vec::new();
        for within in [Duration::from_millis(100), Duration::ZERO] {
            let error = loop {
                match connect(full, within) {
                    Ok(stream) => queue.push(stream),
                    Err(error) => break error,
                }
                assert!(queue.len() < 8, "there is always room");
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
