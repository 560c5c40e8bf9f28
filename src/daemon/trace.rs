//! Traces of connections (TRAC).

use super::Daemon;
use crate::protocol::command::TraceRequest;
use crate::protocol::reply;
use crate::session::Key;

impl Daemon {
    /// The session of `key` wants to see what passes on a connection. An error is the reason why it may not.
    pub(super) fn trace(&mut self, key: Key, request: &TraceRequest) -> Result<(), &'static str> {
        let Some(session) = self.sessions.get(key).map(|found| &found.session) else { return Ok(()) };
        let (own_pid, address, config) = (session.pid(), session.address(), &self.resources.config);
        if !config.trace || !config.stop.allows(address) {
            log::warn!("{own_pid} may not TRAC from {address}");
            return Err(reply::NOT_ALLOWED);
        }
        let may_be_traced = |key: &Key| self.sessions.get(*key).is_some_and(|found| found.session.may_be_traced());
        let traced = self.sessions.find(&request.id).filter(may_be_traced).ok_or(reply::NO_SUCH_PID)?;
        if !self.resources.traces.add(traced, key, request.max_shown, self.now) {
            return Err(reply::TOO_MANY_TRACES);
        }
        log::info!("{own_pid} traces {}", String::from_utf8_lossy(&request.id));
        Ok(())
    }

    /// Passes on what was traced to the clients that have asked for it.
    pub(super) fn pass_traces(&mut self) {
        if self.resources.traces.is_empty() {
            return;
        }
        for (traced, tracer) in self.resources.traces.pairs() {
            let Some(found) = self.sessions.get_mut(tracer).filter(|found| found.session.is_in_setup()) else {
                // It has gone, or has gone on to CONN.
                self.resources.traces.remove(tracer);
                continue;
            };
            if found.session.unread() > 0 {
                continue;
            }
            let lines = self.resources.traces.take_lines(tracer);
            if self.sessions.get(traced).is_none_or(|found| !found.session.may_be_traced()) {
                self.resources.traces.remove(tracer);
                self.with_session(tracer, |session, cx| session.reject(lines, cx));
            } else if lines.is_empty() {
                continue;
            } else {
                self.reply(tracer, &lines);
            }
            self.enqueue(tracer);
        }
    }
}
