//! A plugin's side of a connection to the daemon: greeting, commands, then a byte stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Time after which a missing answer fails the test. Real plugins give up after 5 s; a loaded test machine needs more.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A connection to the daemon with buffered reads, so that a test can read lines and bytes in any order.
pub struct Plugin {
    stream: TcpStream,
    buffered: Vec<u8>,
    pid: String,
    timeout: Duration,
}

impl Plugin {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    /// If no greeting comes in time, or an unexpected one.
    #[track_caller]
    pub fn connect(to: impl ToSocketAddrs) -> Plugin {
        let mut plugin = Plugin::connect_raw(to).expect("connect to the daemon");
        let greeting = plugin.line();
        let pid = greeting
            .strip_prefix("OK TOGGLEDBITS-SOCKPROXY 1 ")
            .unwrap_or_else(|| panic!("unexpected greeting {greeting:?}"));
        plugin.pid = pid.to_string();
        plugin
    }

    /// Connects without reading: for `[direct]` ports, and for tests that send before they read.
    pub fn connect_raw(to: impl ToSocketAddrs) -> io::Result<Plugin> {
        let mut last = io::Error::other("no address");
        for addr in to.to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, ANSWER_LIMIT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Plugin::from_stream(stream));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// A plugin over an open stream.
    pub fn from_stream(stream: TcpStream) -> Plugin {
        Plugin { stream, buffered: Vec::new(), pid: String::new(), timeout: ANSWER_LIMIT }
    }

    /// The pid in the greeting.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// The plugin's address, as STAT shows it.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("local address")
    }

    /// Sets the timeout of later reads (20 s at first).
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends bytes unchanged.
    #[track_caller]
    pub fn send(&mut self, data: &[u8]) {
        self.try_send(data).expect("send to the daemon");
    }

    /// As [`Plugin::send`], but returns the error.
    pub fn try_send(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data)
    }

    /// Sends a command line and returns one line of answer.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.line()
    }

    /// Sends `CONN target options` and returns the pid in `OK CONN`.
    ///
    /// # Panics
    /// If CONN fails. Tests of failures use [`Plugin::command`].
    #[track_caller]
    pub fn conn(&mut self, target: impl std::fmt::Display, options: &str) -> String {
        let answer = self.command(format!("CONN {target} {options}").trim_end());
        match answer.strip_prefix("OK CONN ") {
            Some(pid) => pid.to_string(),
            None => panic!("CONN {target} {options}: {answer:?}"),
        }
    }

    /// Returns the next line without its newline.
    ///
    /// # Panics
    /// At the end of the stream, and on timeout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().unwrap_or_else(|e| panic!("no line ({e}); so far {:?}", self.buffered_text()))
    }

    /// Returns the next line; `UnexpectedEof` at the end of the stream, `TimedOut` on timeout. An incomplete line stays
    /// buffered.
    pub fn try_line(&mut self) -> io::Result<String> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(end) = self.buffered.iter().position(|&b| b == b'\n') {
                let mut line: Vec<u8> = self.buffered.drain(..=end).collect();
                line.pop();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more(deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Returns the next `n` bytes.
    ///
    /// # Panics
    /// If the stream ends before, or on timeout.
    #[track_caller]
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let deadline = Instant::now() + self.timeout;
        while self.buffered.len() < n {
            match self.more(deadline) {
                Ok(true) => {}
                other => panic!("{} of {n} bytes ({other:?})", self.buffered.len()),
            }
        }
        self.buffered.drain(..n).collect()
    }

    /// Returns all bytes up to the end of the stream.
    ///
    /// # Panics
    /// If the stream does not end in time, or ends with a reset.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + self.timeout;
        while self.more(deadline).unwrap_or_else(|e| panic!("no end ({e}); so far {:?}", self.buffered_text())) {}
        std::mem::take(&mut self.buffered)
    }

    /// True if the stream ends before any further byte; a reset counts as an end. False if a byte comes, or on timeout.
    pub fn at_end(&mut self) -> bool {
        let deadline = Instant::now() + self.timeout;
        self.buffered.is_empty()
            && match self.more(deadline) {
                Ok(more) => !more,
                Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
            }
    }

    /// True if the stream is open and there is nothing to read now.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("socket");
        let peeked = self.stream.peek(&mut [0u8; 1]);
        self.stream.set_nonblocking(false).expect("socket");
        self.buffered.is_empty() && matches!(peeked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ends this side's stream (FIN); reading stays possible.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
    }

    /// The socket, for options and direct reads. Direct reads miss bytes that are already buffered.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket, and the bytes that are already buffered.
    pub fn into_stream(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffered)
    }

    fn buffered_text(&self) -> String {
        const SHOWN: usize = 1000;
        let text = String::from_utf8_lossy(&self.buffered[..self.buffered.len().min(SHOWN)]);
        if self.buffered.len() > SHOWN {
            format!("{text}... ({} bytes)", self.buffered.len())
        } else {
            text.into_owned()
        }
    }

    /// Reads once. False at the end of the stream.
    fn more(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut buf = [0u8; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buf) {
                Ok(n) => {
                    self.buffered.extend_from_slice(&buf[..n]);
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Kind};

    /// A plugin that has read the greeting, and the other end of its connection.
    fn pair() -> (Plugin, TcpStream) {
        let device = Device::start(Kind::Manual);
        let opening = TcpStream::connect(device.addr()).unwrap();
        let mut remote = device.accept(ANSWER_LIMIT);
        remote.write_all(b"OK TOGGLEDBITS-SOCKPROXY 1 1f\nOK CONN 1f\nda").unwrap();
        let mut plugin = Plugin::from_stream(opening);
        assert_eq!(plugin.line(), "OK TOGGLEDBITS-SOCKPROXY 1 1f");
        (plugin, remote)
    }

    #[test]
    fn lines_and_bytes_can_be_read_in_turn() {
        let (mut plugin, mut remote) = pair();
        assert_eq!(plugin.conn("127.0.0.1:1", "BLKS=5"), "1f");
        assert_eq!(plugin.bytes(2), b"da");
        let mut sent = [0u8; 24];
        remote.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"CONN 127.0.0.1:1 BLKS=5\n");
        assert!(plugin.is_quiet());
        remote.write_all(b"half").unwrap();
        plugin.set_timeout(Duration::from_millis(30));
        assert_eq!(plugin.try_line().unwrap_err().kind(), io::ErrorKind::TimedOut);
        plugin.set_timeout(ANSWER_LIMIT);
        remote.write_all(b" line\nrest").unwrap();
        assert_eq!(plugin.line(), "half line");
        drop(remote);
        assert_eq!(plugin.rest(), b"rest");
        assert!(plugin.at_end());
    }

    #[test]
    fn a_reset_reaches_the_other_end() {
        let (plugin, mut remote) = pair();
        plugin.reset();
        let mut buf = [0u8; 10];
        assert_eq!(remote.read(&mut buf).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
