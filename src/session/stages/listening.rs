//! The connection of a plugin that listens (LSTN): it is told of each connection that arrives, and may refuse it.
//!
//! The daemon knows which arrivals wait for it. The plugin may be silent for as long as it likes.

use std::time::Instant;

use crate::net::endpoint::Endpoint;
use crate::protocol::command::ArrivalRequest;
use crate::protocol::options::Parameters;
use crate::protocol::reply;
use crate::protocol::setup::{SetupAction, SetupParser};
use crate::session::context::DaemonRequest;
use crate::session::outbox::Outbox;
use crate::session::setup_commands::{SetupContext, SetupOutcome, TURN_COMMANDS, read_commands};

/// Bytes of INCO lines that may wait for a plugin that does not read: those of as many arrivals as may wait, with long paths.
const MAX_UNREAD: usize = 16 * 1024;

/// A plugin that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    parser: SetupParser,
    /// Replies, and a line for each arrival.
    outbox: Outbox,
    /// When it began to listen.
    since: Instant,
}

impl Listening {
    /// A plugin that is to be told `reply`. `parser` has what it has sent behind LSTN.
    pub(crate) fn new(parser: SetupParser, reply: Vec<u8>, now: Instant) -> Self {
        Self { parser, outbox: Outbox::new(reply), since: now }
    }

    /// When the plugin began to listen.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, bytes: &[u8]) {
        self.outbox.push(bytes);
    }

    /// Tells the plugin of an arrival. False if too much waits to be read: the plugin is not told.
    pub(crate) fn announce(&mut self, line: &[u8], plugin: &mut dyn Endpoint) -> bool {
        let unread = self.outbox.unwritten();
        let has_room = unread == 0 || unread + line.len() <= MAX_UNREAD;
        if has_room {
            self.outbox.push(line);
            // At once: the notification that follows has the plugin read. A turn finds a connection that is broken.
            let _ = self.outbox.flush(plugin);
        }
        has_room
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.outbox.held() + self.parser.held()
    }

    /// Writes what waits, and reads DENY and QUIT. No command is read before the reply to the one before is written.
    pub(crate) fn turn(
        &mut self,
        plugin: &mut dyn Endpoint,
        parameters: &mut Parameters,
        cx: &mut SetupContext<'_>,
    ) -> SetupOutcome {
        for _ in 0..TURN_COMMANDS {
            match self.outbox.flush(plugin) {
                Ok(true) => {}
                // It has gone, and what it has not read holds nothing up.
                Ok(false) if plugin.is_read_closed() => return SetupOutcome::Lost,
                Ok(false) => return SetupOutcome::Wait,
                Err(_) => return SetupOutcome::Lost,
            }
            match self.parser.poll_action(parameters) {
                Some(SetupAction::Arrival(request @ ArrivalRequest::Deny { .. })) => {
                    return SetupOutcome::Request(DaemonRequest::Arrival(request));
                }
                Some(SetupAction::Close(reply)) => return SetupOutcome::Close(reply),
                Some(_) => return SetupOutcome::Close(reply::line_too_long()),
                None => {
                    if let Some(outcome) = read_commands(&mut self.parser, plugin, cx) {
                        return outcome;
                    }
                }
            }
        }
        SetupOutcome::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::net::readiness::Readiness;
    use crate::relay::memory_budget::MemoryBudget;
    use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};
    use std::time::Duration;

    fn listening(room: usize) -> (Listening, WireEndpoint) {
        let mut wire = Wire::new(FaultProfile::default());
        wire.make_room(room);
        let listening = Listening::new(SetupParser::new(100), b"OK LSTN 1\n".to_vec(), Instant::now());
        (listening, SocketEndpoint::new(wire, Readiness::ACCEPTED))
    }

    fn turn(listening: &mut Listening, plugin: &mut WireEndpoint) -> SetupOutcome {
        deliver_event(plugin);
        let mut cx = SetupContext {
            now: Instant::now(),
            scratch: &mut [0; 4096],
            budget: &mut MemoryBudget::new(100_000, 1000),
            connect_timeout: Duration::from_secs(1),
        };
        listening.turn(plugin, &mut Parameters::default(), &mut cx)
    }

    #[test]
    fn an_owner_may_say_deny_and_quit_and_nothing_else() {
        let (mut listening, mut plugin) = listening(1000);
        plugin.stream_mut().send_bytes(b"\nDENY 5 404 No\nquit\n");
        let SetupOutcome::Request(DaemonRequest::Arrival(ArrivalRequest::Deny { id, status, .. })) =
            turn(&mut listening, &mut plugin)
        else {
            panic!()
        };
        assert_eq!((&*id, status), (&b"5"[..], Some(404)));
        listening.reply(b"OK DENY 5\n");
        assert!(matches!(turn(&mut listening, &mut plugin), SetupOutcome::Close(reply) if reply == b"OK QUIT\n"));
        assert_eq!(plugin.stream().received, b"OK LSTN 1\nOK DENY 5\n");
        for line in ["STAT\n", "BLKS 5\n", "CONN h:1\n", "ACPT 5\n", "LSTN 5\n", "HELP\n", "STOP\n", "x\n"] {
            let (mut listening, mut plugin) = self::listening(1000);
            plugin.stream_mut().send_bytes(line.as_bytes());
            let outcome = turn(&mut listening, &mut plugin);
            assert!(matches!(outcome, SetupOutcome::Close(reply) if reply == b"ERR INVALID COMMAND\n"), "{line}");
        }
    }

    #[test]
    fn an_owner_that_does_not_read_is_told_of_no_more_than_a_bound() {
        let (mut listening, mut plugin) = listening(0);
        let line = [b'x'; 4000];
        assert!(matches!(turn(&mut listening, &mut plugin), SetupOutcome::Wait));
        let told = (0..100).filter(|_| listening.announce(&line, &mut plugin)).count();
        assert_eq!((told, listening.held()), (4, 16_010));
        plugin.stream_mut().make_room(16_010);
        assert!(matches!(turn(&mut listening, &mut plugin), SetupOutcome::Wait));
        assert_eq!((plugin.stream().received.len(), listening.held()), (16_010, 0));
        assert!(listening.announce(&[b'x'; MAX_UNREAD + 1], &mut plugin), "a line of any length, if nothing waits");
        assert!(listening.held() > 0, "it does not read");
        plugin.stream_mut().close();
        assert!(matches!(turn(&mut listening, &mut plugin), SetupOutcome::Lost));
    }
}
