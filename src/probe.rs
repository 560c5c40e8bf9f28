//! `--probe`: asks a proxy on this machine whether it is there, as init scripts and watchdogs want to know. Owns the tries
//! and the time that they may take; what is asked for, and where, the caller says.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::{blocking, reason};
use crate::protocol::reply::is_greeting;

/// How long a probe may be told to try again, in seconds.
pub const SECONDS: RangeInclusive<u32> = 1..=3600;

/// A single try may take this long: a box that boots keeps a proxy that is well waiting for seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// One of several tries may take this long: then it is time to ask whether somebody else has the port by now.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// More than a greeting has.
const LONGEST: u64 = 128;

/// Connects to where a proxy that listens on `address` (as in the configuration: `*`, a literal address or a name) and
/// `port` can be found, and waits for its greeting. With `seconds`, tries again, whatever is wrong, until it greets or they
/// have passed; without, there is one try. An error is one line for people.
pub fn probe(address: &str, port: u16, seconds: Option<u32>) -> Result<(), String> {
    let Some(seconds) = seconds else { return attempt(address, port, Instant::now() + PATIENCE) };
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let mut known = None;
    loop {
        let outcome = attempt(address, port, until.min(Instant::now() + SILENCE));
        let left = until.saturating_duration_since(Instant::now());
        if outcome.is_err() && left.is_zero() {
            // It was cut short, and knows less than the one before it.
            return known.unwrap_or(outcome);
        }
        if outcome.is_ok() || left <= PAUSE {
            return outcome;
        }
        known = Some(outcome);
        thread::sleep(PAUSE);
    }
}

/// One try, until `until` at the latest.
fn attempt(address: &str, port: u16, until: Instant) -> Result<(), String> {
    let mut errors = Vec::new();
    for address in reachable(address, port).map_err(|error| format!("{address}: {}", reason(&error)))? {
        match greeted(address, until) {
            Ok(line) if is_greeting(&line) => return Ok(()),
            Ok(line) => errors.push(format!("{address} is no proxy, or does not let us in: {}", shown(&line))),
            Err(error) => errors.push(format!("no greeting from {address}: {}", reason(&error))),
        }
    }
    Err(errors.join("; "))
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
    let mut stream = blocking::connect(address, left(until)?)?;
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

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end()).replace(char::is_control, "?");
    if text.is_empty() { "it says nothing".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

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

    #[test]
    fn what_a_stranger_says_is_told_although_nobody_is_beside_it() {
        // At both, so that nobody else is at the second either.
        let stranger = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = stranger.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut caller = stranger.accept().unwrap().0;
            drop(stranger);
            caller.write_all(b"220 mail\r\n").unwrap();
        });
        let error = probe("*", port, None).unwrap_err();
        assert!(error.contains("220 mail"), "{error}");
        server.join().unwrap();
    }
}
