//! Setup mode: the plugin says what it wants.

use std::time::{Duration, Instant};

use crate::net::endpoint::Endpoint;
use crate::protocol::options::Parameters;
use crate::protocol::reply;
use crate::protocol::setup::{SetupAction, SetupParser};
use crate::session::connection::ConnectRequest;
use crate::session::context::DaemonRequest;
use crate::session::outbox::Outbox;
use crate::session::setup_commands::{SetupContext, SetupOutcome, TURN_COMMANDS, read_commands};

/// A plugin in setup mode.
#[derive(Debug)]
pub(crate) struct Setup {
    parser: SetupParser,
    outbox: Outbox,
    /// Since when the plugin has neither sent nor read anything.
    silent_since: Instant,
    /// When the plugin last gave a command or read some of a reply.
    last_progress: Instant,
    /// STAT has lifted the limit on silence, except for a plugin that does not read its replies.
    timeout_suspended: bool,
}

impl Setup {
    /// A plugin that is to be greeted with `greeting`; its lines may be `line_limit` bytes long.
    pub(crate) fn new(greeting: Vec<u8>, now: Instant, line_limit: usize) -> Self {
        Self {
            parser: SetupParser::new(line_limit),
            outbox: Outbox::new(greeting),
            silent_since: now,
            last_progress: now,
            timeout_suspended: false,
        }
    }

    /// Bytes that the plugin has sent behind the last command. No further command is read.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        self.take_parser().into_rest()
    }

    /// The parser, with what the plugin has sent behind the last command. No further command is read here.
    pub(crate) fn take_parser(&mut self) -> SetupParser {
        std::mem::replace(&mut self.parser, SetupParser::new(0))
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, bytes: &[u8]) {
        self.outbox.push(bytes);
    }

    /// When the plugin has been silent for `limit`. `None` while STAT has lifted the limit.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Instant> {
        let lifted = self.timeout_suspended && self.outbox.unwritten() == 0;
        (!lifted).then(|| self.silent_since + limit)
    }

    /// True if STAT has lifted the limit on silence, and the plugin has been silent for longer than `limit`.
    pub(crate) fn is_idle_watcher(&self, limit: Duration, now: Instant) -> bool {
        self.timeout_suspended && self.silent_since + limit <= now
    }

    /// True if the plugin has neither given a command nor read any of a reply for `limit`, although it may have sent bytes.
    pub(crate) fn gives_no_command(&self, limit: Duration, now: Instant) -> bool {
        self.last_progress + limit <= now
    }

    /// Bytes of replies that the plugin has yet to read.
    pub(crate) fn unread(&self) -> usize {
        self.outbox.unwritten()
    }

    /// Bytes held: replies, and what the plugin has sent and no command has taken.
    pub(crate) fn held(&self) -> usize {
        self.outbox.held() + self.parser.held()
    }

    /// Bytes of [`Setup::held`] of a line that has come in part.
    pub(crate) fn incomplete(&self) -> usize {
        self.parser.held()
    }

    /// Answers commands until there are none, or one needs something else.
    pub(crate) fn turn(
        &mut self,
        plugin: &mut dyn Endpoint,
        parameters: &mut Parameters,
        cx: &mut SetupContext<'_>,
    ) -> SetupOutcome {
        for _ in 0..TURN_COMMANDS {
            let unwritten = self.outbox.unwritten();
            let flushed = self.outbox.flush(plugin);
            if self.outbox.unwritten() < unwritten {
                (self.silent_since, self.last_progress) = (cx.now, cx.now);
            }
            match flushed {
                Ok(true) => {}
                Ok(false) => return SetupOutcome::Wait,
                Err(_) => return SetupOutcome::Lost,
            }
            let action = self.parser.poll_action(parameters);
            if action.is_some() {
                self.last_progress = cx.now;
            }
            match action {
                Some(SetupAction::Reply(reply)) => self.outbox.push(&reply),
                Some(SetupAction::Close(reply)) => return SetupOutcome::Close(reply),
                Some(SetupAction::Stat(format)) => {
                    self.timeout_suspended = true;
                    return SetupOutcome::Request(DaemonRequest::Stat(format));
                }
                Some(SetupAction::Help) => self.outbox.push(&reply::help(cx.connect_timeout)),
                Some(SetupAction::Trace(request)) => {
                    self.timeout_suspended = true;
                    return SetupOutcome::Request(DaemonRequest::Trace(request));
                }
                Some(SetupAction::Stop) => return SetupOutcome::Request(DaemonRequest::Stop),
                Some(SetupAction::Connect(target)) => {
                    return SetupOutcome::Connect(ConnectRequest { target, sent_ahead: self.take_rest() });
                }
                Some(SetupAction::Kept(request)) => return SetupOutcome::Request(DaemonRequest::Kept(request)),
                Some(SetupAction::Listen) => return SetupOutcome::Request(DaemonRequest::Listen),
                Some(SetupAction::Arrival(request)) => {
                    return SetupOutcome::Request(DaemonRequest::Arrival(request));
                }
                None => match read_commands(&mut self.parser, plugin, cx) {
                    None => self.silent_since = cx.now,
                    Some(outcome) => return outcome,
                },
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
    use crate::relay::memory_budget::{MemoryBudget, RESERVE};
    use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};

    struct Fixture {
        setup: Setup,
        plugin: WireEndpoint,
        parameters: Parameters,
        budget: MemoryBudget,
        now: Instant,
    }

    impl Fixture {
        /// A plugin with `room` bytes of room on its connection.
        fn new(room: usize) -> Self {
            let mut wire = Wire::new(FaultProfile::default());
            wire.make_room(room);
            let now = Instant::now();
            Self {
                setup: Setup::new(b"OK HELLO\n".to_vec(), now, 5000),
                plugin: SocketEndpoint::new(wire, Readiness::ACCEPTED),
                parameters: Parameters::default(),
                budget: MemoryBudget::new(100_000, 1000),
                now,
            }
        }

        fn send(&mut self, bytes: &[u8]) -> SetupOutcome {
            self.plugin.stream_mut().send_bytes(bytes);
            self.turn()
        }

        fn turn(&mut self) -> SetupOutcome {
            deliver_event(&mut self.plugin);
            let Self { setup, plugin, parameters, budget, now } = self;
            setup.turn(
                plugin,
                parameters,
                &mut SetupContext {
                    now: *now,
                    scratch: &mut [0; 4096],
                    budget,
                    connect_timeout: Duration::from_secs(1),
                },
            )
        }

        fn received(&self) -> &[u8] {
            &self.plugin.stream().received
        }
    }

    #[test]
    fn commands_are_answered_up_to_conn_and_what_is_behind_it_is_the_remotes() {
        let mut fixture = Fixture::new(1000);
        assert!(matches!(fixture.send(b"BLKS 5\nRT"), SetupOutcome::Wait));
        let SetupOutcome::Connect(request) = fixture.send(b"IM 7\nCONN h:1\nhello\n") else { panic!("no CONN") };
        assert_eq!((request.target.to_string().as_str(), &request.sent_ahead[..]), ("h:1", &b"hello\n"[..]));
        assert_eq!(fixture.received(), b"OK HELLO\nOK BLKS\nOK RTIM\n");
    }

    #[test]
    fn no_command_is_read_before_the_reply_to_the_one_before_is_written() {
        let mut fixture = Fixture::new(3);
        assert!(matches!(fixture.send(b"BLKS 5\n"), SetupOutcome::Wait));
        assert_eq!((fixture.received(), fixture.plugin.stream().unread()), (&b"OK "[..], 7));
        assert_eq!((fixture.setup.unread(), fixture.setup.held()), (6, 9));
        fixture.plugin.stream_mut().make_room(8);
        assert!(matches!(fixture.turn(), SetupOutcome::Wait));
        assert_eq!(fixture.received(), b"OK HELLO\nOK");
        fixture.plugin.stream_mut().make_room(100);
        fixture.turn();
        assert_eq!((fixture.received(), fixture.setup.held()), (&b"OK HELLO\nOK BLKS\n"[..], 0));
    }

    #[test]
    fn stat_lifts_the_limit_on_silence_for_a_plugin_that_reads() {
        let mut fixture = Fixture::new(1000);
        let limit = Duration::from_secs(5);
        assert_eq!(fixture.setup.deadline(limit), Some(fixture.now + limit));
        assert!(matches!(fixture.send(b"STAT\n"), SetupOutcome::Request(DaemonRequest::Stat(None))));
        assert_eq!(fixture.setup.deadline(limit), None);
        assert!(!fixture.setup.is_idle_watcher(limit, fixture.now));
        assert!(fixture.setup.is_idle_watcher(limit, fixture.now + limit));
        fixture.setup.reply(&[b'x'; 2000]);
        fixture.now += Duration::from_secs(1);
        assert!(matches!(fixture.turn(), SetupOutcome::Wait));
        assert_eq!(fixture.setup.deadline(limit), Some(fixture.now + limit), "it has a reply to read");
    }

    #[test]
    fn a_plugin_that_sends_no_whole_command_gives_none() {
        let mut fixture = Fixture::new(1000);
        let limit = Duration::from_secs(2);
        fixture.turn();
        for (bytes, gives_none) in [("\n", false), ("\nBLKS", true), (" 5\n", false), ("\n", false), ("\n", true)] {
            fixture.now += Duration::from_secs(1);
            assert!(matches!(fixture.send(bytes.as_bytes()), SetupOutcome::Wait));
            assert_eq!(fixture.setup.deadline(limit), Some(fixture.now + limit), "each byte counts");
            let now = fixture.now;
            assert_eq!(fixture.setup.gives_no_command(limit, now), gives_none, "{bytes:?}");
        }
    }

    #[test]
    fn half_a_line_is_held_while_there_is_memory_for_it() {
        let mut fixture = Fixture::new(1000);
        assert!(matches!(fixture.send(&[b'x'; 3000]), SetupOutcome::Wait));
        assert_eq!(fixture.setup.held(), 3000);
        fixture.budget.hold(100_000);
        assert!(matches!(fixture.send(b"x"), SetupOutcome::Close(_)), "it holds more than the reserve");
        let mut fixture = Fixture::new(1000);
        fixture.budget.hold(100_000);
        assert!(matches!(fixture.send(&[b'x'; RESERVE - 1]), SetupOutcome::Wait), "every plugin has the reserve");
    }

    #[test]
    fn a_plugin_that_goes_is_lost() {
        let mut fixture = Fixture::new(1000);
        fixture.plugin.stream_mut().close();
        assert!(matches!(fixture.turn(), SetupOutcome::Lost));
    }
}
