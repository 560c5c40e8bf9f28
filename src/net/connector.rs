//! Connects to the first of several addresses that answers: staggered attempts (RFC 8305), none of which blocks.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;

use super::attempts::ExtraAttempt;
use super::endpoint::SocketEndpoint;
use super::network::Network;
use super::readiness::Readiness;

/// An attempt runs alone for this long before the next address is tried as well (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Attempts at once. Each takes a descriptor.
const MAX_ATTEMPTS: usize = 3;
/// An attempt has at least this long before it makes room for another address: its second SYN follows after 1 s
/// (RFC 6298 section 2).
const MIN_ATTEMPT_TIME: Duration = Duration::from_millis(1250);

/// Attempts under way and addresses still to try.
#[derive(Debug)]
pub(crate) struct Connector<N: Network> {
    waiting: VecDeque<SocketAddr>,
    /// In the order in which they began.
    racing: Vec<Attempt<N::Stream>>,
    /// What events have reported of the attempts, taken together: an event does not say which attempt it is of. So it
    /// holds for the connection only if there was one attempt.
    readiness: Readiness,
    attempts: usize,
    next_attempt: Instant,
    last_error: Option<io::Error>,
}

/// An attempt under way.
#[derive(Debug)]
struct Attempt<S> {
    address: SocketAddr,
    stream: S,
    began: Instant,
    /// Counts it, unless it is the only one.
    _extra: Option<ExtraAttempt>,
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
        while !self.waiting.is_empty() && (self.racing.is_empty() || self.next_attempt <= now) {
            let Some(extra) = self.make_room(network, now) else { break };
            let Some(address) = self.waiting.pop_front() else { break };
            self.next_attempt = now + ATTEMPT_DELAY;
            self.attempts += 1;
            match network.connect(address, token) {
                Ok(stream) => self.racing.push(Attempt { address, stream, began: now, _extra: extra }),
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

    /// Makes room for another attempt, and returns what counts it. `None`: there is no room before the deadline.
    fn make_room(&mut self, network: &N, now: Instant) -> Option<Option<ExtraAttempt>> {
        let Some(oldest) = self.racing.first() else { return Some(None) };
        if self.racing.len() < MAX_ATTEMPTS
            && let Some(extra) = network.extra_attempts().take()
        {
            return Some(Some(extra));
        }
        let due = oldest.began + MIN_ATTEMPT_TIME;
        if now < due {
            // If others give attempts back before that, it waits all the same.
            self.next_attempt = due;
            return None;
        }
        self.last_error = Some(io::ErrorKind::TimedOut.into());
        // The new one is counted as the oldest was: as an extra one, unless no other is left.
        let Attempt { _extra: extra, .. } = self.racing.remove(0);
        Some(extra)
    }

    /// The attempt that has succeeded, if one has. Failed attempts are dropped.
    fn poll_attempts(&mut self, network: &mut N, token: Token) -> Option<ConnectorProgress<N>> {
        let mut at = 0;
        while at < self.racing.len() {
            let Attempt { address, stream, .. } = &self.racing[at];
            match network.poll_connected(stream, *address) {
                Ok(false) => at += 1,
                Ok(true) => {
                    let Attempt { address: peer, mut stream, .. } = self.racing.remove(at);
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
                    self.racing.remove(at);
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
    use crate::net::attempts::ExtraAttempts;
    use crate::net::endpoint::Endpoint;
    use crate::net::network::MioNetwork;
    use crate::testing::network::SimNetwork;

    /// Runs a race to its end.
    fn run(addresses: Vec<SocketAddr>) -> ConnectorProgress<MioNetwork> {
        let mut poll = mio::Poll::new().unwrap();
        let mut network = MioNetwork::new(poll.registry().try_clone().unwrap(), 8);
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
        let mut network = MioNetwork::new(poll.registry().try_clone().unwrap(), 8);
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

    /// Addresses of which none answers.
    fn silent(number: u8) -> impl Iterator<Item = SocketAddr> {
        (1..=number).map(|last| SocketAddr::from(([192, 0, 2, last], 80)))
    }

    /// The descriptors that are open, after polling at each deadline up to `until`.
    fn open(
        connector: &mut Connector<SimNetwork>,
        network: &mut SimNetwork,
        now: &mut Instant,
        until: Duration,
    ) -> usize {
        let until = *now + until;
        while *now <= until {
            assert!(matches!(connector.poll(network, Token(1), *now), ConnectorProgress::Pending));
            let Some(due) = connector.deadline() else { break };
            assert!(due > *now, "the deadline has passed");
            *now = due;
        }
        network.begun.iter().filter(|(_, peer)| !peer.is_dropped()).count()
    }

    #[test]
    fn three_addresses_are_tried_at_once_and_each_has_time_to_answer() {
        let (mut network, mut now) = (SimNetwork::default(), Instant::now());
        let start = now;
        let mut connector = Connector::new(silent(16), now);
        let mut began = Vec::new();
        for _ in 0..16 {
            assert!(open(&mut connector, &mut network, &mut now, Duration::ZERO) <= MAX_ATTEMPTS);
            began.push((network.begun.len(), now - start));
        }
        let tried = network.begun.iter().filter(|(_, peer)| peer.is_dropped()).count();
        assert!(tried >= 3, "{began:?}");
        let within = began.iter().rfind(|(_, at)| *at <= Duration::from_millis(4500)).unwrap();
        assert!(within.0 >= 10, "{began:?}");
    }

    #[test]
    fn attempts_of_all_connections_are_bounded() {
        let (mut network, now) = (SimNetwork::default(), Instant::now());
        network.extra_attempts = ExtraAttempts::new(4);
        let mut connectors: Vec<_> = (0..10).map(|_| Connector::new(silent(16), now)).collect();
        for connector in &mut connectors {
            let count = open(connector, &mut network, &mut now.clone(), Duration::from_secs(5));
            assert!(count <= 10 + 4, "{count}");
        }
        assert!(!network.extra_attempts.has_room());
        connectors.truncate(5);
        drop(connectors.drain(..5));
        let given_back: Vec<_> = (0..4).map(|_| network.extra_attempts.take()).collect();
        assert!(given_back.iter().all(Option::is_some) && !network.extra_attempts.has_room());
        assert_eq!(network.begun.iter().filter(|(_, peer)| !peer.is_dropped()).count(), 0);
        // One after another, every address has its turn.
        network.extra_attempts = ExtraAttempts::new(0);
        network.begun.clear();
        let mut connector = Connector::new(silent(4), now);
        assert_eq!(open(&mut connector, &mut network, &mut now.clone(), Duration::from_secs(5)), 1);
        assert_eq!(network.begun.len(), 4);
    }
}
