//! `--probe`: checks that a proxy on this machine answers, for init scripts and watchdogs. Blocks.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::{blocking, reason};
use crate::protocol::reply::is_greeting;

/// Time limit of a single attempt. On a machine that boots, a healthy proxy may need seconds.
const SINGLE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of each of several attempts. The next one finds out whether another process has the port by then.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of a line that are read; a greeting is shorter.
const MAX_LINE_LEN: u64 = 128;

/// Connects to the proxy that listens on `address` (as in the configuration: `*`, a literal address or a name) and `port`,
/// and waits for its greeting. With `seconds`, repeats a failed attempt until this time has passed; without, there is one
/// attempt. The error is a message of one line.
pub(crate) fn probe(address: &str, port: u16, seconds: Option<u32>) -> Result<(), String> {
    let Some(seconds) = seconds else { return attempt(address, port, Instant::now() + SINGLE_ATTEMPT_TIMEOUT) };
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let mut last = None;
    loop {
        let result = attempt(address, port, deadline.min(Instant::now() + ATTEMPT_TIMEOUT));
        let left = deadline.saturating_duration_since(Instant::now());
        if result.is_err() && left.is_zero() {
            // The deadline cut this attempt short; the error of the attempt before says more.
            return last.unwrap_or(result);
        }
        if result.is_ok() || left <= RETRY_INTERVAL {
            return result;
        }
        last = Some(result);
        thread::sleep(RETRY_INTERVAL);
    }
}

/// One attempt at each address, until `deadline`.
fn attempt(address: &str, port: u16, deadline: Instant) -> Result<(), String> {
    connect(address, port, deadline).map(drop)
}

/// A connection to the proxy that listens on `address` and `port`, as for [`probe`], which has sent its greeting before `deadline`.
/// The error is a message of one line.
pub(crate) fn connect(address: &str, port: u16, deadline: Instant) -> Result<TcpStream, String> {
    let mut errors = Vec::new();
    for address in local_addresses(address, port).map_err(|error| format!("{address}: {}", reason(&error)))? {
        let connected = time_left(deadline).and_then(|time| blocking::connect(address, time));
        match connected.and_then(|mut stream| Ok((read_line(&mut stream, deadline)?, stream))) {
            Ok((line, stream)) if is_greeting(&line) => return Ok(stream),
            Ok((line, _)) => errors.push(format!("{address} is not a proxy, or refuses access: {}", printable(&line))),
            Err(error) => errors.push(format!("no greeting from {address}: {}", reason(&error))),
        }
    }
    Err(errors.join("; "))
}

/// The addresses at which this machine reaches a listener on `address` and `port`.
fn local_addresses(address: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
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

/// The next line of the server, or what it has sent of it at the end of the connection. What follows is not read.
pub(crate) fn read_line(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') && (line.len() as u64) < MAX_LINE_LEN {
        let mut byte = [0];
        if read(stream, &mut byte, deadline)? == 0 {
            break;
        }
        line.push(byte[0]);
    }
    Ok(line)
}

/// Reads what there is, at least a byte unless the connection has ended.
pub(crate) fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The read timeout has passed (socket(7), SO_RCVTIMEO).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            read => return read,
        }
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A line of a server, for messages.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end()).replace(char::is_control, "?");
    if text.is_empty() { "it sends nothing".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn a_wildcard_address_is_reached_by_loopback() {
        let texts =
            |address| -> Vec<String> { local_addresses(address, 7).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(texts("*"), ["127.0.0.1:7", "[::1]:7"]);
        assert_eq!(texts("0.0.0.0"), ["127.0.0.1:7"]);
        assert_eq!(texts("::"), ["[::1]:7"]);
        assert_eq!(texts("[::1]"), ["[::1]:7"]);
        assert_eq!(texts("192.0.2.1"), ["192.0.2.1:7"]);
    }

    #[test]
    fn the_error_quotes_another_server_although_one_address_refuses() {
        // The server listens on both addresses and stops after one connection, so that the second attempt is refused.
        let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            drop(listener);
            client.write_all(b"220 mail\r\n").unwrap();
        });
        let error = probe("*", port, None).unwrap_err();
        assert!(error.contains("220 mail"), "{error}");
        server.join().unwrap();
    }
}
