//! The remote has gone, and the plugin has yet to read what it left: a kept connection's last stage.
//!
//! It lasts until the plugin has read everything, which it shows by ending its side after the end it was told, or until
//! KEEP runs out. A plugin that goes away before is parked, and may come back.

use std::time::{Duration, Instant};

use super::super::plugin::PluginSide;
use super::super::relaying::Relaying;
use super::super::{Context, Session, Stage, Step, TURN_READS, Verdict};
use crate::protocol::options::Protocol;
use crate::protocol::target::Target;
use crate::relay::Turn;

/// The time that a plugin gets which has ended the connection itself: what is still to be read is no more than why.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is left of a connection.
#[derive(Debug)]
pub struct Left {
    /// Where it led.
    pub target: Target,
    /// What was spoken.
    pub protocol: Protocol,
    /// Messages received and sent, where that was told apart.
    pub messages: Option<(u64, u64)>,
    /// Bytes received from the remote.
    pub received: u64,
    /// Bytes sent to the remote.
    pub sent: u64,
    /// When the remote was last heard.
    pub last_heard: Instant,
    since: Instant,
    /// It waits for a plugin that goes away. Where the plugin itself has ended it, there is nothing to come back for.
    pub kept: bool,
}

impl Left {
    /// What `stage` leaves.
    pub fn new(stage: &Relaying, kept: bool, now: Instant) -> Self {
        let relay = stage.relay();
        Self {
            target: stage.target().clone(),
            protocol: stage.protocol(),
            messages: relay.messages(),
            received: relay.received(),
            sent: relay.sent(),
            last_heard: relay.last_heard(),
            since: now,
            kept,
        }
    }

    /// When patience ends with a plugin that is attached, and has last read something at `progress`.
    pub fn deadline(&self, progress: Instant, keep: Option<Duration>) -> Instant {
        self.since.max(progress) + keep.filter(|_| self.kept).unwrap_or(PATIENCE)
    }
}

impl Session {
    /// Hands over what is left, and looks whether the plugin has read it.
    pub(in crate::session) fn leave(&mut self, cx: &mut Context<'_>) -> Step {
        let (PluginSide::Kept(plugin), Stage::Left(left)) = (&mut self.plugin, &self.stage) else {
            return Step::Next(Stage::Closed);
        };
        let kept = left.kept;
        plugin.begin(cx.config.limits.history, cx.buffers);
        let mut again = true;
        for _ in 0..TURN_READS {
            match plugin.read(cx.scratch) {
                Ok(0) => return Step::Next(Stage::Closed),
                // There is nobody any more to whom it could be sent.
                Ok(_) => {}
                Err(_) => {
                    again = false;
                    break;
                }
            }
        }
        let mut turn = Turn { again, ..Turn::default() };
        let parked = plugin.settle(&mut turn, cx.now, cx.buffers);
        if !kept && plugin.parked_since().is_some() {
            return Step::Next(Stage::Closed);
        }
        self.tell(&turn, parked, cx);
        Step::Stay(Verdict { again, ..Verdict::WAIT })
    }
}
