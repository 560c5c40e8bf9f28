//! What sessions ask of the daemon.

use super::Daemon;
use crate::protocol::command::{ArrivalRequest, KeptRequest};
use crate::protocol::reply;
use crate::session::{DaemonRequest, Key};

impl Daemon {
    /// Does what the session of `key` has asked for.
    pub(super) fn perform(&mut self, key: Key, request: DaemonRequest) {
        match request {
            DaemonRequest::Kept(KeptRequest::Claim) => self.claim(key),
            DaemonRequest::Kept(KeptRequest::Attach { pid, seen, target }) => {
                if let Err(reason) = self.attach(key, &pid, seen, target.as_ref()) {
                    self.reply(key, &reply::failed("ATCH", reason));
                }
            }
            DaemonRequest::Kept(KeptRequest::Drop { pid }) => self.drop_session(key, &pid),
            DaemonRequest::Trace(request) => {
                let answer = match self.trace(key, &request) {
                    Ok(()) => reply::tracing(&request.id),
                    Err(reason) => reply::failed("TRAC", reason),
                };
                self.reply(key, &answer);
            }
            DaemonRequest::Listen => {
                if let Err(why) = self.listen(key) {
                    self.with_session(key, |session, cx| session.handle_not_listening(&why, cx));
                }
            }
            DaemonRequest::Arrived => {
                if let Err(refusal) = self.announce(key) {
                    self.refuse_arrival(key, refusal);
                }
            }
            DaemonRequest::Arrival(ArrivalRequest::Accept { id, options }) => {
                if let Err(error) = self.accept(key, &id, &options) {
                    self.with_session(key, |session, cx| session.handle_not_accepted(&error, cx));
                }
            }
            DaemonRequest::Arrival(ArrivalRequest::Deny { id, status, reason }) => {
                let answer = self.deny(key, &id, status, &reason);
                self.reply(key, &answer);
            }
            DaemonRequest::Stat(_) if self.has_too_many_unread() => {
                self.with_session(key, |session, cx| {
                    log::warn!("{} gets no STAT: too many replies wait to be read", session.pid());
                    session.reject(Vec::new(), cx);
                });
            }
            DaemonRequest::Stat(None) => self.reply(key, &self.status_table(Some(key))),
            DaemonRequest::Stat(Some(format)) => self.reply(key, &reply::stat_body(&self.status_text(format))),
            DaemonRequest::StatusPage(page) => {
                let response = self.status_page(page);
                let now = self.now;
                self.with_session(key, |session, _| session.respond(response, now));
            }
            DaemonRequest::StatusUpdate => self.send_status_update(key),
            DaemonRequest::Stop => self.stop(key),
        }
    }

    /// Ends the daemon, if the session of `key` may ask for it.
    fn stop(&mut self, key: Key) {
        let Some(found) = self.sessions.get(key) else { return };
        let (pid, address) = (found.session.pid(), found.session.address());
        let allowed = self.resources.config.stop.allows(address);
        let answer = if allowed { reply::ok("STOP") } else { reply::stop_refused() };
        self.with_session(key, |session, cx| session.reject(answer, cx));
        if allowed {
            self.ending = Some("STOP");
        } else {
            log::warn!("{pid} may not STOP from {address}");
        }
    }
}
