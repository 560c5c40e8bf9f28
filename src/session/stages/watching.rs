//! A client of the status port (`[status]`) with a WebSocket, over which it is sent the status every second. What it sends is
//! dropped.

use std::time::{Duration, Instant};

use crate::net::endpoint::{Endpoint, Transfer};
use crate::net::socket::Stream;
use crate::session::TURN_READS;
use crate::session::plugin::served::ServedClient;

/// Time between two messages with the status.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// A client with an open WebSocket.
#[derive(Debug)]
pub(crate) struct Watching {
    /// When the status is to be sent again.
    due: Instant,
}

/// What a turn leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchOutcome {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once.
    Again,
    /// The client is to be sent the status.
    Update,
    /// The client has ended its side.
    Ended,
    /// The connection broke.
    Lost,
}

impl Watching {
    /// A client that is sent the status at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// When a turn is needed even without an event.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// Drops what the client has sent. To be called between the begin and the end of its turn.
    pub(crate) fn turn<S: Stream>(
        &mut self,
        client: &mut ServedClient<S>,
        scratch: &mut [u8],
        now: Instant,
    ) -> WatchOutcome {
        for _ in 0..TURN_READS {
            if !client.is_readable() {
                // A client that has yet to take the last message gets none now.
                let is_due = self.due <= now;
                if is_due {
                    self.due = now + UPDATE_INTERVAL;
                }
                return if is_due && !client.is_behind() { WatchOutcome::Update } else { WatchOutcome::Wait };
            }
            match client.try_read(scratch) {
                Transfer::Bytes(_) | Transfer::Blocked => {}
                Transfer::Eof => return WatchOutcome::Ended,
                Transfer::Broken(_) => return WatchOutcome::Lost,
            }
        }
        WatchOutcome::Again
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::Session;
    use crate::session::context::{DaemonRequest, TurnResult};
    use crate::session::pid::PidSource;
    use crate::session::simulation::world::{SimSession, World};
    use crate::session::status_port::{PING_INTERVAL, StatusPage};
    use crate::testing::network::{SimPeer, connection};
    use crate::testing::wire::FaultProfile;

    const KEY: usize = 1;
    const UPGRADE: &[u8] =
        b"GET /status.json HTTP/1.1\r\nHost: 10.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// A client that has sent `request`, and has room for `room` bytes.
    fn begin(world: &mut World, request: &[u8], room: usize) -> (SimSession, SimPeer) {
        let (stream, peer) = connection(FaultProfile::default(), room);
        let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, false);
        world.budget.add_session(KEY);
        let address = "10.0.0.5:40000".parse().unwrap();
        let session = world.with_context(KEY, |cx| Session::status(pid, stream, address, cx));
        peer.wire_mut().send_bytes(request);
        (session, peer)
    }

    /// Gives turns until there is nothing more to do, and `status` when the session asks for it. Returns how often it has asked,
    /// or `None` when it is over.
    fn turns(world: &mut World, session: &mut SimSession, peer: &SimPeer, status: &str) -> Option<usize> {
        session.handle_plugin_event(peer.wire_mut().take_event());
        let mut asked = 0;
        loop {
            match world.with_context(KEY, |cx| session.turn(cx)) {
                TurnResult::Again => {}
                TurnResult::Wait => return Some(asked),
                TurnResult::Closed => return None,
                TurnResult::Request(DaemonRequest::StatusUpdate) => {
                    asked += 1;
                    world.with_context(KEY, |cx| session.send_status(status, cx));
                }
                TurnResult::Request(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_websocket_is_sent_the_status_at_once_and_every_second() {
        let mut world = World::new(0);
        let (mut session, peer) = begin(&mut world, UPGRADE, 1_000_000);
        assert_eq!(turns(&mut world, &mut session, &peer, "{\"a\":1}"), Some(1));
        assert!(peer.wire().received.starts_with(b"HTTP/1.1 101 "));
        // RFC 6455 section 5.2: FIN and text, 7 bytes, not masked.
        assert!(peer.wire().received.ends_with(b"\r\n\r\n\x81\x07{\"a\":1}"));
        for _ in 0..5 {
            let due = session.deadline(&world.config).unwrap();
            assert_eq!(due, world.now + UPDATE_INTERVAL);
            world.now = due - Duration::from_millis(1);
            assert_eq!(turns(&mut world, &mut session, &peer, "x"), Some(0));
            world.now = due;
            assert_eq!(turns(&mut world, &mut session, &peer, "x"), Some(1));
            assert!(peer.wire().received.ends_with(b"\x81\x01x"));
        }
        // A close frame of the client is answered, and the server ends first (section 7.1.1).
        peer.wire_mut().send_bytes(b"\x88\x82\0\0\0\0\x03\xe8");
        assert_eq!(turns(&mut world, &mut session, &peer, "x"), None);
        assert!(peer.wire().received.ends_with(b"\x88\x02\x03\xe8") && peer.wire().is_told());
    }

    #[test]
    fn a_client_that_does_not_read_holds_one_message_and_is_lost_by_a_ping() {
        let mut world = World::new(0);
        let (mut session, peer) = begin(&mut world, UPGRADE, 300);
        let status = "s".repeat(10_000);
        let (start, mut asked) = (world.now, 0);
        while let Some(count) = turns(&mut world, &mut session, &peer, &status) {
            asked += count;
            // The queue of a connection may grow to twice of what it holds.
            assert!(world.budget.held() < 3 * status.len(), "{} bytes are held", world.budget.held());
            assert!(world.now - start <= 3 * PING_INTERVAL, "it is never lost");
            world.now = session.deadline(&world.config).unwrap().max(world.now);
        }
        assert_eq!(asked, 1, "it has yet to take the first one");
    }

    #[test]
    fn a_status_without_memory_is_not_sent_and_the_next_one_is() {
        let mut world = World::new(0);
        let (mut session, peer) = begin(&mut world, UPGRADE, 1_000_000);
        let too_long = "s".repeat(world.config.limits.buffers.max(world.budget.left_in_all()) + 1);
        assert_eq!(turns(&mut world, &mut session, &peer, &too_long), Some(1));
        assert!(peer.wire().received.ends_with(b"\r\n\r\n"));
        world.now = session.deadline(&world.config).unwrap();
        assert_eq!(turns(&mut world, &mut session, &peer, "x"), Some(1));
        assert!(peer.wire().received.ends_with(b"\x81\x01x"));
    }

    #[test]
    fn a_page_is_asked_for_once_and_its_reader_gets_ten_seconds() {
        let mut world = World::new(0);
        let (mut session, peer) = begin(&mut world, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 10);
        session.handle_plugin_event(peer.wire_mut().take_event());
        let result = world.with_context(KEY, |cx| session.turn(cx));
        assert_eq!(result, TurnResult::Request(DaemonRequest::StatusPage(StatusPage::Metrics)));
        session.respond(Ok(b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()), world.now);
        assert_eq!(turns(&mut world, &mut session, &peer, ""), Some(0));
        assert_eq!(peer.wire().received, b"HTTP/1.1 2");
        world.now += Duration::from_millis(9999);
        assert_eq!(turns(&mut world, &mut session, &peer, ""), Some(0));
        world.now += Duration::from_millis(1);
        assert_eq!(turns(&mut world, &mut session, &peer, ""), None);
    }
}
