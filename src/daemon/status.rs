//! The status, for STAT and the pages of `[status]`.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::protocol::command::StatFormat;
use crate::session::{Key, Snapshot, StatusPage};
use crate::status;
use crate::websocket::handshake::{self, server::page_response};

/// The status that clients with a WebSocket are sent is made at most this often, for all of them: that of a thousand connections
/// takes milliseconds.
const STATUS_LIFETIME: Duration = Duration::from_millis(250);

/// A status for all clients with a WebSocket.
#[derive(Debug)]
pub(super) struct CachedStatus {
    text: String,
    /// When it is dropped.
    pub due: Instant,
}

impl Daemon {
    /// Sends the session of `key` the status, as a client with a WebSocket.
    pub(super) fn send_status_update(&mut self, key: Key) {
        let status = self.cached_status.take().unwrap_or_else(|| CachedStatus {
            text: self.status_text(StatFormat::Json),
            due: self.now + STATUS_LIFETIME,
        });
        self.with_session(key, |session, cx| session.send_status(&status.text, cx));
        self.cached_status = Some(status);
    }

    /// Drops a status that is too old to be sent.
    pub(super) fn drop_old_status(&mut self) {
        self.cached_status.take_if(|status| status.due <= self.now);
    }

    /// True if the replies and pages that clients have yet to read take more than is left of `buffers`: no status is made then.
    pub(super) fn has_too_many_unread(&self) -> bool {
        let unread: usize = self.sessions.iter().map(|(_, found)| found.session.unread()).sum();
        unread > self.resources.budget.left_in_all()
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = (Key, Snapshot)> {
        self.sessions.iter().filter_map(|(key, found)| {
            found.session.snapshot(&self.resources.schedule, self.now).map(|shown| (key, shown))
        })
    }

    /// STAT's answer, as the session of `own` sees it.
    pub(super) fn status_table(&self, own: Option<Key>) -> Vec<u8> {
        let mut table = status::header();
        for (key, shown) in self.snapshots() {
            table.extend(status::row(&shown, own == Some(key)));
        }
        table
    }

    /// The answer to STAT with the name of a format.
    pub(super) fn status_text(&self, format: StatFormat) -> String {
        let overview = status::DaemonStatus {
            uptime: self.now - self.started,
            buffered: self.resources.budget.held(),
            history: self.resources.budget.history(),
            accepted: self.accepted,
            refused: self.admission.refused(),
            listeners: self.listeners.list(&self.resources.config, |key| {
                self.sessions.get(key).map(|found| found.session.pid().to_string()).unwrap_or_default()
            }),
            notifications: self.resources.schedule.counters(),
            pending: self.resources.schedule.pending(),
            ended: self.resources.ended.iter().map(|ended| (self.now - ended.at, ended.clone())).collect(),
        };
        let sessions = self.snapshots().map(|(_, shown)| shown);
        let limits = &self.resources.config.limits;
        match format {
            StatFormat::Json => status::json(&overview, limits, sessions),
            StatFormat::Metrics => status::metrics(&overview, limits, sessions),
            StatFormat::Text => status::text(&overview, limits, sessions),
        }
    }

    /// The response to a request for a page of the status port.
    pub(super) fn status_page(&self, page: StatusPage) -> Result<Vec<u8>, handshake::Refusal> {
        if self.has_too_many_unread() {
            return Err(handshake::Refusal::new(503, "There is no memory for the page now."));
        }
        Ok(match page {
            StatusPage::Html { accepts_gzip } => {
                page_response("text/html; charset=utf-8", accepts_gzip, &status::page(accepts_gzip))
            }
            StatusPage::Json => page_response("application/json", false, self.status_text(StatFormat::Json).as_bytes()),
            StatusPage::Metrics => page_response(
                "text/plain; version=0.0.4; charset=utf-8",
                false,
                self.status_text(StatFormat::Metrics).as_bytes(),
            ),
        })
    }
}
