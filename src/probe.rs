//! `--probe`: asks a proxy on this machine whether it is there, as init scripts and watchdogs want to know.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::net::reason;
use crate::protocol::reply::is_greeting;

/// The greeting must be here within this: a box that boots keeps a proxy that is well waiting for seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than a greeting has.
const LONGEST: u64 = 128;

/// Connects to where a proxy that listens on `address` (as in the configuration: `*`, a literal address or a name) and
/// `port` can be found, and waits for its greeting. An error is one line for people.
pub fn probe(address: &str, port: u16) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let mut last = format!("nothing to connect to at {address}:{port}");
    for address in reachable(address, port).map_err(|error| format!("{address}: {}", reason(&error)))? {
        match greeted(address, until) {
            Ok(line) if is_greeting(&line) => return Ok(()),
            Ok(line) => last = format!("{address} is no proxy, or does not let us in: {}", shown(&line)),
            Err(error) => last = format!("no greeting from {address}: {}", reason(&error)),
        }
    }
    Err(last)
}

/// The addresses at which such a listener is reached from this machine.
fn reachable(address: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    if address == "*" {
        return Ok(loopback.to_vec());
    }
    let literal = address.trim_start_matches('[').trim_end_matches(']');
    let found = (literal, port).to_socket_addrs()?;
    Ok(found
        .map(|address| match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => loopback[0],
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => loopback[1],
            _ => address,
        })
        .collect())
}

/// The first line that is said at `address`.
fn greeted(address: SocketAddr, until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connected(address, left(until)?)?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') && (line.len() as u64) < LONGEST {
        stream.set_read_timeout(Some(left(until)?))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a read says whose time is up.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// A connection to `address`, or connect(2)'s own word on why there is none. std's connect_timeout reads that from
/// SO_ERROR, which emulators of other processors get wrong.
fn connected(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // socket(7): SO_SNDTIMEO bounds connect, which then says EINPROGRESS.
    socket.set_write_timeout(Some(within))?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Err(too_late()),
        Err(error) => Err(error),
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timeout")
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end()).replace(char::is_control, "?");
    if text.is_empty() { "it says nothing".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_here() {
        let texts =
            |address| -> Vec<String> { reachable(address, 7).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(texts("*"), ["127.0.0.1:7", "[::1]:7"]);
        assert_eq!(texts("0.0.0.0"), ["127.0.0.1:7"]);
        assert_eq!(texts("::"), ["[::1]:7"]);
        assert_eq!(texts("[::1]"), ["[::1]:7"]);
        assert_eq!(texts("192.0.2.1"), ["192.0.2.1:7"]);
    }
}
