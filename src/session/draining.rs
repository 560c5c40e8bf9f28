//! The end of a plugin's connection: the last reply is written, and the plugin gets time to read it.
//!
//! Closing a socket with unread bytes in it makes the kernel reset the connection, and the peer may then lose what it
//! was sent last. So whatever still comes is read and dropped, until the plugin closes or time is up.

use std::time::{Duration, Instant};

use crate::net::endpoint::{Endpoint, Transfer};
use crate::session::TURN_READS;
use crate::session::outbox::Outbox;

/// Time for the plugin to read and close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is ending.
#[derive(Debug)]
pub(crate) struct Draining {
    outbox: Outbox,
    end_sent: bool,
    due: Instant,
}

/// What a turn leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainOutcome {
    /// Nothing more to do until something happens.
    Wait,
    /// There is more to do at once.
    Again,
    /// The plugin has closed its side, or is gone; or time is up, and it still sends.
    Done,
}

impl Draining {
    /// Ends after `last_reply` is written.
    pub(crate) fn new(last_reply: Vec<u8>, now: Instant) -> Self {
        Self { outbox: Outbox::new(last_reply), end_sent: false, due: now + DRAIN_TIMEOUT }
    }

    /// When time is up.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// Changes the time.
    pub(crate) fn set_deadline(&mut self, due: Instant) {
        self.due = due;
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.outbox.held()
    }

    /// Writes what is left, then waits for the plugin to close.
    pub(crate) fn turn(&mut self, plugin: &mut dyn Endpoint, scratch: &mut [u8], now: Instant) -> DrainOutcome {
        match self.outbox.flush(plugin) {
            Ok(true) if !self.end_sent => {
                plugin.shutdown_write();
                self.end_sent = true;
            }
            Ok(_) => {}
            Err(_) => return DrainOutcome::Done,
        }
        // Over TLS the stream may hold what the socket has not taken.
        if plugin.flush().is_err() {
            return DrainOutcome::Done;
        }
        for _ in 0..TURN_READS {
            if !plugin.is_readable() {
                return DrainOutcome::Wait;
            }
            match plugin.try_read(scratch) {
                // A plugin that has ended its side may still read its reply.
                Transfer::Eof if !self.end_sent => return DrainOutcome::Wait,
                Transfer::Eof | Transfer::Broken(_) => return DrainOutcome::Done,
                Transfer::Bytes(_) => {}
                Transfer::Blocked => return DrainOutcome::Wait,
            }
        }
        // A peer that sends faster than it is read would otherwise keep its place.
        if now < self.due { DrainOutcome::Again } else { DrainOutcome::Done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::SocketEndpoint;
    use crate::net::readiness::Readiness;
    use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};

    fn plugin(room: usize) -> WireEndpoint {
        let mut wire = Wire::new(FaultProfile::default());
        wire.make_room(room);
        SocketEndpoint::new(wire, Readiness::ACCEPTED)
    }

    fn turn(draining: &mut Draining, plugin: &mut WireEndpoint) -> DrainOutcome {
        deliver_event(plugin);
        draining.turn(plugin, &mut [0; 64], draining.due - DRAIN_TIMEOUT)
    }

    #[test]
    fn the_last_reply_is_written_in_pieces_and_the_end_behind_it() {
        let (mut draining, mut plugin) = (Draining::new(b"OK QUIT\n".to_vec(), Instant::now()), plugin(3));
        assert_eq!((turn(&mut draining, &mut plugin), draining.held()), (DrainOutcome::Wait, 8), "the memory of all");
        // It has ended its side, and still reads.
        plugin.stream_mut().close();
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Wait);
        assert!(!plugin.stream().is_told());
        plugin.stream_mut().make_room(100);
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Done);
        assert_eq!((&plugin.stream().received[..], plugin.stream().is_told()), (&b"OK QUIT\n"[..], true));
    }

    #[test]
    fn what_a_layer_holds_of_the_reply_is_written_when_there_is_room() {
        let faults = FaultProfile { buffer: 100, layered: true, ..FaultProfile::default() };
        let mut plugin = SocketEndpoint::new(Wire::new(faults), Readiness::ACCEPTED);
        let mut draining = Draining::new(b"OK QUIT\n".to_vec(), Instant::now());
        assert_eq!((turn(&mut draining, &mut plugin), draining.held()), (DrainOutcome::Wait, 0));
        assert_eq!(plugin.stream().received, b"");
        plugin.stream_mut().make_room(100);
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Wait);
        assert_eq!(plugin.stream().received, b"OK QUIT\n");
    }

    #[test]
    fn what_still_comes_is_read_and_dropped() {
        let (mut draining, mut plugin) = (Draining::new(Vec::new(), Instant::now()), plugin(100));
        plugin.stream_mut().send_bytes(&[0; 64 * (TURN_READS + 1)]);
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Again, "others have their turn");
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Wait);
        assert_eq!(plugin.stream().unread(), 0);
        plugin.stream_mut().break_off();
        assert_eq!(turn(&mut draining, &mut plugin), DrainOutcome::Done);
    }

    /// Regression: a peer that sent without end was never closed.
    #[test]
    fn a_peer_that_still_sends_when_time_is_up_is_closed() {
        let (mut draining, mut plugin) = (Draining::new(Vec::new(), Instant::now()), plugin(100));
        for (early, expected) in [(Duration::from_millis(1), DrainOutcome::Again), (Duration::ZERO, DrainOutcome::Done)]
        {
            plugin.stream_mut().send_bytes(&[0; 64 * (TURN_READS + 1)]);
            deliver_event(&mut plugin);
            assert_eq!(draining.turn(&mut plugin, &mut [0; 64], draining.due - early), expected);
        }
    }
}
