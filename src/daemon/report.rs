//! What the daemon tells of itself: STAT's table and STAT JSON.

use super::Daemon;
use crate::session::Snapshot;
use crate::status;

impl Daemon {
    fn snapshots(&self) -> impl Iterator<Item = (usize, Snapshot)> {
        self.sessions.iter().filter_map(|(slot, found)| {
            found.session.snapshot(&self.house.schedule, self.now).map(|shown| (slot, shown))
        })
    }

    /// Bytes of answers that plugins in setup mode have yet to take.
    pub(super) fn unread(&self) -> usize {
        self.sessions.iter().map(|(_, found)| found.session.unread()).sum()
    }

    /// STAT's answer, as `own` sees it.
    pub(super) fn table(&self, own: Option<usize>) -> Vec<u8> {
        let mut table = status::header();
        for (slot, shown) in self.snapshots() {
            table.extend(status::row(&shown, own == Some(slot)));
        }
        table
    }

    pub(super) fn json(&self) -> String {
        let overview = status::DaemonStatus {
            uptime: self.now - self.started,
            buffered: self.house.buffers.held(),
            history: self.house.buffers.history(),
            accepted: self.accepted,
            refused: self.admission.refused(),
            listeners: self.doors.list(),
            notifications: self.house.schedule.counters(),
            pending: self.house.schedule.pending(),
        };
        let sessions: Vec<Snapshot> = self.snapshots().map(|(_, shown)| shown).collect();
        status::json(&overview, &self.house.config.limits, &sessions)
    }
}
