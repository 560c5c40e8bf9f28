//! The end of the daemon.

use std::io;
use std::time::{Duration, Instant};

use mio::Events;

use super::{Daemon, key};
use crate::session::Key;

/// At the end, closing notices get so much time to reach Luup, and remotes to take their leave.
const FAREWELL: Duration = Duration::from_secs(1);

impl Daemon {
    /// Ends: closes all, and gives closing notices a little time to reach Luup, and remotes to hear of it.
    pub(super) fn say_farewell(mut self, events: &mut Events) -> Result<(), String> {
        log::info!("ending: {}", self.ending.unwrap_or_default());
        self.doors.close();
        let keys: Vec<(usize, Key)> =
            self.sessions.iter().map(|(slot, found)| (slot, key(slot, found.generation))).collect();
        for (slot, key) in keys {
            self.sessions[slot].session.shut(&mut self.house.context(key, self.now));
            self.enqueue(key);
        }
        let until = self.now + FAREWELL;
        loop {
            self.run_sessions();
            self.send_notifications();
            let left = until.saturating_duration_since(Instant::now());
            let done = self.sessions.is_empty() && self.house.schedule.pending() == 0;
            if done || left.is_zero() {
                break;
            }
            let wait = self.timeout().map_or(left, |timeout| timeout.min(left));
            match self.house.poll.poll(events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
            self.now = Instant::now();
            for event in events.iter() {
                self.dispatch(event);
            }
            self.run_timers();
        }
        for (_, left) in &mut self.sessions {
            left.session.hang_up();
        }
        log::info!("ended");
        Ok(())
    }
}
