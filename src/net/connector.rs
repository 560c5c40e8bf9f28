//! Connects to the first of several addresses that answers: staggered attempts (RFC 8305), none of which blocks.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Registry, Token};

use super::socket::INTEREST;

/// An attempt gets so much of a start before the next address is tried as well (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Attempts under way and addresses still to try.
#[derive(Debug)]
pub struct Connector {
    waiting: VecDeque<SocketAddr>,
    racing: Vec<TcpStream>,
    next: Instant,
    last_error: Option<io::Error>,
}

/// How it stands.
#[derive(Debug)]
pub enum Progress {
    /// Nobody has answered yet.
    Pending,
    /// This one has, with this address. It is registered.
    Connected(TcpStream, SocketAddr),
    /// All have failed; the last one so.
    Failed(io::Error),
}

impl Connector {
    /// A race between `addresses`, of which none is tried yet.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) -> Self {
        Self { waiting: addresses.into_iter().collect(), racing: Vec::new(), next: now, last_error: None }
    }

    /// When [`Connector::poll`] has something to do even without an event.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Looks after the attempts: to be called at first, on each event for `token`, and at the deadline.
    pub fn poll(&mut self, registry: &Registry, token: Token, now: Instant) -> Progress {
        let mut at = 0;
        while at < self.racing.len() {
            match outcome(&self.racing[at]) {
                Ok(None) => at += 1,
                Ok(Some(peer)) => return Progress::Connected(self.racing.swap_remove(at), peer),
                Err(error) => {
                    self.racing.swap_remove(at);
                    self.last_error = Some(error);
                }
            }
        }
        while (self.racing.is_empty() || self.next <= now)
            && let Some(address) = self.waiting.pop_front()
        {
            self.next = now + STAGGER;
            match attempt(address, registry, token) {
                Ok(stream) => self.racing.push(stream),
                Err(error) => self.last_error = Some(error),
            }
        }
        if self.racing.is_empty() {
            let nobody = || io::Error::from(io::ErrorKind::AddrNotAvailable);
            return Progress::Failed(self.last_error.take().unwrap_or_else(nobody));
        }
        Progress::Pending
    }
}

fn attempt(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    registry.register(&mut stream, token, INTEREST)?;
    Ok(stream)
}

/// The address with which an attempt has succeeded. Events may be spurious, so that the socket itself is asked.
fn outcome(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        // Where nobody listens on a local port of the ephemeral range, TCP may connect to itself (RFC 9293, simultaneous
        // open): the plugin would read what it wrote, and the service that belongs there could not start.
        Ok(peer) if stream.local_addr().is_ok_and(|own| own == peer) => Err(io::ErrorKind::ConnectionRefused.into()),
        Ok(peer) => Ok(Some(peer)),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
        // Linux says EINVAL of a connection that was made and reset before anybody looked.
        Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Runs a race to its end.
    fn run(addresses: Vec<SocketAddr>) -> Progress {
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(8);
        let mut connector = Connector::new(addresses, Instant::now());
        loop {
            match connector.poll(poll.registry(), Token(1), Instant::now()) {
                Progress::Pending => {}
                ended => return ended,
            }
            let timeout = connector.deadline().map(|due| due.saturating_duration_since(Instant::now()));
            poll.poll(&mut events, timeout).unwrap();
        }
    }

    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn goes_on_to_the_next_address_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let Progress::Connected(stream, peer) = run(vec![refusing(), refusing(), address]) else { panic!() };
        assert_eq!((stream.peer_addr().unwrap(), peer), (address, address));
    }

    #[test]
    fn says_why_the_last_one_failed() {
        let Progress::Failed(error) = run(vec![refusing()]) else { panic!() };
        assert_eq!(crate::net::reason(&error), "connection refused");
        assert!(matches!(run(vec![]), Progress::Failed(_)));
    }
}
