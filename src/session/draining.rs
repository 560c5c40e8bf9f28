//! The last words: what is still to be said is said, and the plugin gets the time to hear it.
//!
//! Closing a socket with unread bytes in it makes the kernel reset the connection, and the other end may then lose
//! what it was told last. So whatever still comes is read and thrown away, until the plugin closes or time is up.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::{Context, Stage, Step, TURN_READS, Verdict};
use crate::net::socket::Stream;
use crate::relay::Ready;

/// The time a plugin gets.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that is ending.
#[derive(Debug)]
pub struct Draining {
    outbox: Outbox,
    /// What is known of the plugin's socket.
    pub ready: Ready,
    told: bool,
    due: Instant,
}

impl Draining {
    /// Ends after `outbox` has been said.
    pub fn new(outbox: Outbox, ready: Ready, now: Instant) -> Self {
        Self { outbox, ready, told: false, due: now + PATIENCE }
    }

    /// When patience ends.
    pub fn deadline(&self) -> Instant {
        self.due
    }

    /// Says what is left, then waits for the plugin to close.
    pub fn step(&mut self, socket: &mut impl Stream, cx: &mut Context<'_>) -> Step {
        match self.outbox.flush(socket, &mut self.ready) {
            Ok(true) if !self.told => {
                socket.shutdown_write();
                self.told = true;
            }
            Ok(_) => {}
            Err(_) => return Step::Next(Stage::Closed),
        }
        for _ in 0..TURN_READS {
            if !self.ready.readable {
                return Step::Stay(Verdict::WAIT);
            }
            match socket.recv(cx.scratch) {
                // With something left to say, an end of sending is no end of listening.
                Ok(0) if !self.told => {
                    self.ready.readable = false;
                    return Step::Stay(Verdict::WAIT);
                }
                Ok(0) => return Step::Next(Stage::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.readable = false,
                Err(_) => return Step::Next(Stage::Closed),
            }
        }
        Step::Stay(Verdict::AGAIN)
    }
}
