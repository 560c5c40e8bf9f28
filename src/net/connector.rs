//! Connects to the first of several addresses that answers: staggered attempts (RFC 8305), none of which blocks.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;

use super::endpoint::SocketEndpoint;
use super::network::Network;
use super::readiness::Readiness;

/// An attempt runs alone for this long before the next address is tried as well (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts under way and addresses still to try.
#[derive(Debug)]
pub(crate) struct Connector<N: Network> {
    waiting: VecDeque<SocketAddr>,
    racing: Vec<(SocketAddr, N::Stream)>,
    /// What events have reported of the attempts, taken together: an event does not say which attempt it is of. So it
    /// holds for the connection only if there was one attempt.
    readiness: Readiness,
    attempts: usize,
    next_attempt: Instant,
    last_error: Option<io::Error>,
}

/// What [`Connector::poll`] came to.
#[derive(Debug)]
pub(crate) enum ConnectorProgress<N: Network> {
    /// No attempt has succeeded yet.
    Pending,
    /// The connection is established, with this address. It is registered.
    Connected(SocketEndpoint<N::Stream>, SocketAddr),
    /// All attempts have failed; this is the error of the last one.
    Failed(io::Error),
}

impl<N: Network> Connector<N> {
    /// A race between `addresses`, of which none is tried yet.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) -> Self {
        Self {
            waiting: addresses.into_iter().collect(),
            racing: Vec::new(),
            readiness: Readiness::default(),
            attempts: 0,
            next_attempt: now,
            last_error: None,
        }
    }

    /// Adds what an event of one of the attempts reports.
    pub(crate) fn handle_event(&mut self, event: Readiness) {
        self.readiness.merge(event);
    }

    /// When [`Connector::poll`] has something to do even without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_attempt)
    }

    /// Looks after the attempts: to be called at first, after each event for `token`, and at the deadline.
    pub(crate) fn poll(&mut self, network: &mut N, token: Token, now: Instant) -> ConnectorProgress<N> {
        if let Some(connected) = self.poll_attempts(network, token) {
            return connected;
        }
        while (self.racing.is_empty() || self.next_attempt <= now)
            && let Some(address) = self.waiting.pop_front()
        {
            self.next_attempt = now + ATTEMPT_DELAY;
            self.attempts += 1;
            match network.connect(address, token) {
                Ok(stream) => self.racing.push((address, stream)),
                Err(error) => self.last_error = Some(error),
            }
            // This machine has answered before connect(2) returns: that saves a turn of the loop.
            if address.ip().to_canonical().is_loopback()
                && let Some(connected) = self.poll_attempts(network, token)
            {
                return connected;
            }
        }
        if self.racing.is_empty() {
            let no_address = || io::Error::from(io::ErrorKind::AddrNotAvailable);
            return ConnectorProgress::Failed(self.last_error.take().unwrap_or_else(no_address));
        }
        ConnectorProgress::Pending
    }

    /// The attempt that has succeeded, if one has. Failed attempts are dropped.
    fn poll_attempts(&mut self, network: &mut N, token: Token) -> Option<ConnectorProgress<N>> {
        let mut at = 0;
        while at < self.racing.len() {
            let (address, stream) = &self.racing[at];
            match network.poll_connected(stream, *address) {
                Ok(false) => at += 1,
                Ok(true) => {
                    let (peer, mut stream) = self.racing.swap_remove(at);
                    let mut readiness = Readiness { writable: true, ..self.readiness };
                    if self.attempts > 1 {
                        // Events of failed attempts must not end this one. Registering it again reports what holds.
                        readiness = Readiness::FRESH;
                        if let Err(error) = network.reregister(&mut stream, token) {
                            return Some(ConnectorProgress::Failed(error));
                        }
                    }
                    return Some(ConnectorProgress::Connected(SocketEndpoint::new(stream, readiness), peer));
                }
                Err(error) => {
                    self.racing.swap_remove(at);
                    self.last_error = Some(error);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net::endpoint::Endpoint;
    use crate::net::network::MioNetwork;

    /// Runs a race to its end.
    fn run(addresses: Vec<SocketAddr>) -> ConnectorProgress<MioNetwork> {
        let mut poll = mio::Poll::new().unwrap();
        let mut network = MioNetwork::new(poll.registry().try_clone().unwrap());
        let mut events = mio::Events::with_capacity(8);
        let mut connector = Connector::new(addresses, Instant::now());
        loop {
            match connector.poll(&mut network, Token(1), Instant::now()) {
                ConnectorProgress::Pending => {}
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
        let ConnectorProgress::Connected(stream, peer) = run(vec![refusing(), refusing(), address]) else { panic!() };
        assert_eq!((stream.stream().0.peer_addr().unwrap(), peer), (address, address));
    }

    /// Regression: the connection that succeeded inherited the reported end of an attempt that was refused.
    #[test]
    fn events_of_a_failed_attempt_do_not_end_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = mio::Poll::new().unwrap();
        let mut network = MioNetwork::new(poll.registry().try_clone().unwrap());
        let addresses = [refusing(), listener.local_addr().unwrap()];
        let mut connector = Connector::new(addresses, Instant::now());
        connector.handle_event(Readiness {
            readable: true,
            writable: true,
            read_closed: true,
            urgent: false,
            closed: true,
        });
        let connected = connector.poll(&mut network, Token(1), Instant::now());
        let ConnectorProgress::Connected(stream, _) = connected else { panic!("not connected") };
        assert!(stream.is_readable() && !stream.is_read_closed() && !stream.is_closed());
    }

    #[test]
    fn says_why_the_last_one_failed() {
        let ConnectorProgress::Failed(error) = run(vec![refusing()]) else { panic!() };
        assert_eq!(crate::net::reason(&error), "connection refused");
        assert!(matches!(run(vec![]), ConnectorProgress::Failed(_)));
    }
}
