//! The end of the daemon.

use std::time::{Duration, Instant};

use mio::Events;

use super::Daemon;
use crate::logging;
use crate::session::{Key, Session};

/// Time at the end for closing notifications to reach Luup, and for remotes to be told.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

impl Daemon {
    /// Closes everything, and gives closing notifications time to reach Luup, and remotes time to be told.
    pub(super) fn shut_down(mut self, events: &mut Events) {
        log::info!("ending: {}", self.ending.unwrap_or_default());
        self.service_manager.notify_stopping();
        self.listeners.close();
        self.resources.schedule.handle_shutdown(self.now);
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.with_session(key, Session::shut_down);
            self.enqueue(key);
        }
        let until = self.now + SHUTDOWN_TIMEOUT;
        loop {
            self.run_sessions();
            self.handle_shortage();
            self.send_notifications();
            let left = until.saturating_duration_since(Instant::now());
            let done = self.sessions.is_empty() && self.resources.schedule.pending() == 0;
            if done || left.is_zero() {
                break;
            }
            let wait = self.timeout().map_or(left, |timeout| timeout.min(left));
            if self.poll(events, Some(wait)).is_err() {
                break;
            }
        }
        let left: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in left {
            self.with_session(key, Session::abort);
        }
        log::info!("ended");
        logging::flush();
    }
}
