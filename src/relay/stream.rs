//! Two byte streams, relayed both ways.
//!
//! How it ends is a table of the two directions' phases:
//!
//! | to remote | to plugin | what happens | limit since the last byte |
//! | --- | --- | --- | --- |
//! | Open | Open | both run | RTIM, idle |
//! | Open | Ended | the plugin was told the end; it may still send | half_close |
//! | Ended | Open | the remote was told the end; it may still send | half_close |
//! | Ending | any | the plugin has ended; its last bytes are written to the remote | half_close |
//! | any | Ending | the remote has ended; its last bytes are written to the plugin | stall |
//! | Ended | Ended | over, once the remote's stream has written what it holds itself | half_close |
//!
//! A connection that breaks (RST, or a failed write) ends both ways. What came from it is still written; what was on its
//! way to it is lost. The other side is told the end by FIN, not by RST.

use std::io;
use std::time::{Duration, Instant};

use super::direction::{Direction, DirectionError, DirectionPhase};
use super::memory_budget::MemoryBudget;
use super::pipe_pool::PipePool;
use super::receive_timer::ReceiveTimer;
use super::{CloseReason, Relay, RelayContext, RelayTurn, Timing};
use crate::net::endpoint::Endpoint;
use crate::net::reason;
use crate::trace::Way;

/// The relay of two streams.
#[derive(Debug)]
pub(crate) struct StreamRelay {
    to_remote: Direction,
    to_plugin: Direction,
    receive_timer: ReceiveTimer,
    /// When the remote last sent something.
    last_heard: Instant,
    /// Boxed, since no relay has it before it ends.
    end: Option<Box<StreamEnd>>,
}

/// What is known of the end of a relay.
#[derive(Debug, Default)]
struct StreamEnd {
    /// The first error. `None`: the relay ends when both directions have ended.
    error: Option<CloseReason>,
    /// See [`Relay::failure`].
    failure: Option<Box<str>>,
    /// Since when both directions have ended, while the remote's stream still holds bytes of its own.
    flushing_since: Option<Instant>,
}

impl StreamRelay {
    /// A relay that begins now, with what the plugin has sent behind its CONN.
    pub(crate) fn new(now: Instant, sent_ahead: Vec<u8>, budget: &mut MemoryBudget) -> Self {
        let mut to_remote = Direction::new(now);
        to_remote.preload(sent_ahead, budget);
        Self {
            to_remote,
            to_plugin: Direction::new(now),
            receive_timer: ReceiveTimer::new(now),
            last_heard: now,
            end: None,
        }
    }

    /// Moves what can be moved.
    pub(crate) fn run(
        &mut self,
        plugin: &mut dyn Endpoint,
        remote: &mut dyn Endpoint,
        cx: &mut RelayContext<'_>,
    ) -> RelayTurn {
        let mut turn = RelayTurn::default();
        if plugin.is_closed() && self.to_plugin.phase() != DirectionPhase::Ended {
            // What the plugin sent before is still read; a device is not held for what the plugin will never read.
            self.to_plugin.abandon(cx.budget, cx.pipes);
            self.to_remote.restart_clock(cx.now);
            self.end_mut().error.get_or_insert(CloseReason::PluginLost);
        }
        // close(2) tells both sides the end if they are plain sockets that have nothing unread.
        let are_plain = self.error().is_none() && plugin.fd().is_some() && remote.fd().is_some();
        let close_follows = cx.heals || are_plain && self.to_remote.phase() == DirectionPhase::Ended;
        let to_plugin = self.to_plugin.pump(remote, plugin, close_follows, cx);
        turn.delivered = to_plugin.written;
        turn.end_delivered = to_plugin.ended;
        if to_plugin.read {
            self.last_heard = cx.now;
            self.receive_timer.handle_received(cx.now);
        }
        if to_plugin.ended {
            self.to_remote.restart_clock(cx.now);
        }
        self.handle_error(to_plugin.error, Way::ToPlugin, cx);

        // BLKS concerns what the plugin reads; the remote gets what there is.
        let block = cx.block.take();
        let close_follows = are_plain && self.error().is_none() && self.to_plugin.phase() == DirectionPhase::Ended;
        let to_remote = self.to_remote.pump(plugin, remote, close_follows, cx);
        cx.block = block;
        if to_remote.ended {
            self.to_plugin.restart_clock(cx.now);
        }
        self.handle_error(to_remote.error, Way::ToRemote, cx);
        // A layer answers by itself to what was read, and holds what the socket did not take.
        let flushed = remote.flush().unwrap_or_else(|error| {
            self.handle_error(Some(DirectionError::Sink(error)), Way::ToRemote, cx);
            true
        });
        if self.is_over() && !flushed {
            self.end_mut().flushing_since.get_or_insert(cx.now);
        } else if let Some(end) = &mut self.end {
            end.flushing_since = None;
        }

        let held_back = self.to_plugin.is_held_back() || remote.waits_for_memory();
        self.receive_timer.set_held_back(held_back, cx.now);
        // An error may have left the other direction with something to do.
        let goes_on = self.error().is_some() && !self.is_over() && self.can_move(plugin, remote);
        turn.again = to_plugin.again || to_remote.again || goes_on;
        turn.end = (self.is_over() && flushed).then(|| self.error().unwrap_or(CloseReason::Done));
        turn
    }

    fn error(&self) -> Option<CloseReason> {
        self.end.as_ref()?.error
    }

    fn end_mut(&mut self) -> &mut StreamEnd {
        self.end.get_or_insert_default()
    }

    fn is_over(&self) -> bool {
        self.to_remote.phase() == DirectionPhase::Ended && self.to_plugin.phase() == DirectionPhase::Ended
    }

    /// True if a direction could move something at once.
    fn can_move(&self, plugin: &dyn Endpoint, remote: &dyn Endpoint) -> bool {
        let can = |way: &Direction, readable: bool, writable: bool| match way.phase() {
            DirectionPhase::Ended => false,
            _ if way.is_held_back() => writable,
            DirectionPhase::Ending => true,
            DirectionPhase::Open => readable,
        };
        can(&self.to_plugin, remote.is_readable(), plugin.is_writable())
            || can(&self.to_remote, plugin.is_readable(), remote.is_writable())
    }

    fn handle_error(&mut self, error: Option<DirectionError>, way: Way, cx: &mut RelayContext<'_>) {
        let Some(error) = error else { return };
        let (lost, error, at_source) = match (way, error) {
            (Way::ToPlugin, DirectionError::Source(error)) => (CloseReason::RemoteLost, error, true),
            (Way::ToPlugin, DirectionError::Sink(error)) => (CloseReason::PluginLost, error, false),
            (Way::ToRemote, DirectionError::Source(error)) => (CloseReason::PluginLost, error, true),
            (Way::ToRemote, DirectionError::Sink(error)) => (CloseReason::RemoteLost, error, false),
        };
        if *self.end_mut().error.get_or_insert(lost) == CloseReason::RemoteLost && lost == CloseReason::RemoteLost {
            // What TLS says (an alert, say) may be read only after a write has failed, and says more.
            let failure = &mut self.end_mut().failure;
            if failure.is_none() || error.kind() == io::ErrorKind::InvalidData {
                *failure = Some(reason(&error).into());
            }
        }
        let (this, other) = match way {
            Way::ToPlugin => (&mut self.to_plugin, &mut self.to_remote),
            Way::ToRemote => (&mut self.to_remote, &mut self.to_plugin),
        };
        if at_source {
            // What came from there is still written; nothing more can be written to it.
            this.end_source();
            other.abandon(cx.budget, cx.pipes);
        } else {
            // Nothing more can be written there; what it sent before is still read, until that ends by itself.
            // The time limit begins anew once: a stream that holds bytes of its own fails in each turn.
            if this.phase() != DirectionPhase::Ended {
                other.restart_clock(cx.now);
            }
            this.abandon(cx.budget, cx.pipes);
        }
    }
}

impl Relay for StreamRelay {
    fn limits(&self, timing: &Timing) -> [Option<(Instant, CloseReason)>; 3] {
        let (to_remote, to_plugin) = (&self.to_remote, &self.to_plugin);
        let source_ended = |way: &Direction, source_read_closed: bool| match way.phase() {
            DirectionPhase::Ending => true,
            DirectionPhase::Open => way.is_held_back() && source_read_closed,
            DirectionPhase::Ended => false,
        };
        let standstill = |way: &Direction, other: &Direction, source_read_closed: bool, left_behind: Duration| {
            if source_ended(way, source_read_closed) {
                Some((way.progress() + left_behind, CloseReason::Stalled))
            } else if way.phase() == DirectionPhase::Open && other.phase() == DirectionPhase::Ended {
                Some((way.progress() + timing.half_close, CloseReason::HalfClosed))
            } else {
                None
            }
        };
        let both_open = to_remote.phase() == DirectionPhase::Open && to_plugin.phase() == DirectionPhase::Open;
        let last_moved = to_remote.progress().max(to_plugin.progress());
        let idle = timing.idle.filter(|_| both_open).map(|idle| (last_moved + idle, CloseReason::Idle));
        let flushing_since = self.end.as_ref().and_then(|end| end.flushing_since);
        let flushing = flushing_since.map(|since| (since + timing.half_close, CloseReason::Stalled));
        let silent = self.receive_timer.deadline(timing.receive).filter(|_| to_plugin.phase() == DirectionPhase::Open);
        [
            // A device is not held for the last bytes of a plugin that has gone; a plugin may take its time to read a
            // device's.
            standstill(to_remote, to_plugin, timing.plugin_read_closed, timing.half_close).or(idle).or(flushing),
            standstill(to_plugin, to_remote, timing.remote_read_closed, timing.stall),
            silent.map(|due| (due, CloseReason::RemoteSilent)),
        ]
    }

    fn handle_new_plugin(&mut self, now: Instant) {
        self.to_remote.restart_clock(now);
    }

    /// Each direction counts what it holds when it comes to hold it.
    fn account(&mut self, _: &mut MemoryBudget) {}

    fn release(&mut self, budget: &mut MemoryBudget, pipes: &mut PipePool) {
        self.to_remote.abandon(budget, pipes);
        self.to_plugin.abandon(budget, pipes);
    }

    fn received(&self) -> u64 {
        self.to_plugin.moved()
    }

    fn sent(&self) -> u64 {
        self.to_remote.moved()
    }

    fn remote_end(&self) -> Option<CloseReason> {
        let is_told = self.to_plugin.phase() == DirectionPhase::Ended;
        match self.error() {
            Some(CloseReason::RemoteLost) if is_told => Some(CloseReason::RemoteLost),
            // The plugin has not ended: what it sends would still be written.
            None if is_told && self.to_remote.phase() == DirectionPhase::Open => Some(CloseReason::RemoteClosed),
            _ => None,
        }
    }

    fn held(&self) -> usize {
        self.to_remote.held() + self.to_plugin.held()
    }

    fn stream_held(&self) -> usize {
        self.to_remote.stream_held() + self.to_plugin.stream_held()
    }

    fn reads_remote(&self) -> bool {
        !self.to_plugin.is_held_back()
    }

    fn failure(&self) -> Option<&str> {
        self.end.as_ref()?.failure.as_deref()
    }

    fn last_heard(&self) -> Instant {
        self.last_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::net::readiness::Readiness;
    use crate::net::socket::Stream;
    use crate::testing::TestContext;
    use crate::testing::wire::{FaultProfile, Wire};

    /// A remote that takes nothing, and says why to a reader.
    #[derive(Debug)]
    struct Refusing(io::ErrorKind);

    impl Stream for Refusing {
        fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(self.0, "SSL_ERROR the server wants a certificate from us"))
        }

        fn send(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn shutdown_write(&mut self) {}
    }

    #[test]
    fn what_tls_says_is_the_failure_although_a_write_fails_before() {
        for (kind, failure) in [
            (io::ErrorKind::InvalidData, "SSL_ERROR the server wants a certificate from us"),
            (io::ErrorKind::ConnectionReset, "broken pipe"),
        ] {
            let mut cx = TestContext::new(MemoryBudget::new(100_000, 10_000), 10_000);
            let mut plugin = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
            let writable = Readiness { writable: true, ..Readiness::default() };
            let mut remote = SocketEndpoint::new(Refusing(kind), writable);
            let mut relay = StreamRelay::new(cx.now, b"hello".to_vec(), &mut cx.budget);
            let mut turn = relay.run(&mut plugin, &mut remote, &mut cx.relay());
            assert_eq!((turn.end, turn.again, relay.failure()), (None, true, Some("broken pipe")));
            while turn.again {
                turn = relay.run(&mut plugin, &mut remote, &mut cx.relay());
            }
            assert_eq!((turn.end, relay.failure()), (Some(CloseReason::RemoteLost), Some(failure)));
        }
    }

    #[test]
    fn only_what_the_remote_sends_ends_its_silence() {
        let mut cx = TestContext::new(MemoryBudget::new(100_000, 10_000), 10_000);
        let mut plugin = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
        let mut remote = SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH);
        let mut relay = StreamRelay::new(cx.now, Vec::new(), &mut cx.budget);
        let second = Duration::from_secs(1);
        let heard = cx.now + second;
        cx.now = heard;
        remote.stream_mut().send_bytes(b"hello");
        relay.run(&mut plugin, &mut remote, &mut cx.relay());
        assert_eq!((relay.held(), relay.last_heard()), (5, heard));
        cx.now += second;
        plugin.stream_mut().make_room(10);
        plugin.handle_event(Readiness { writable: true, ..Readiness::default() });
        relay.run(&mut plugin, &mut remote, &mut cx.relay());
        assert_eq!((&plugin.stream().received[..], relay.last_heard()), (&b"hello"[..], heard));
        cx.now += second;
        plugin.stream_mut().close();
        plugin.handle_event(Readiness { readable: true, read_closed: true, ..Readiness::default() });
        relay.run(&mut plugin, &mut remote, &mut cx.relay());
        assert_eq!((relay.to_remote.phase(), relay.last_heard()), (DirectionPhase::Ended, heard));
    }
}
