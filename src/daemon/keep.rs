//! Kept connections (KEEP, ATCH, DROP): which session gets a pid, and which one a pid names.

use super::kept_registry::TooManyGuesses;
use super::{Daemon, sessions};
use crate::net::network::Network;
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::session::{KeptEnd, KeptState, Key, Session};

impl Daemon {
    /// The session of `key` wants to connect, and to be found again by its pid.
    pub(super) fn claim(&mut self, key: Key) {
        let Some(pid) = self.sessions.get(key).map(|found| found.session.kept_pid().unwrap_or_default().into()) else {
            return;
        };
        let claim = self.claim_pid(key, pid, key);
        self.with_session(key, |session, cx| session.handle_claimed(claim, cx));
    }

    /// The client of the session of `key` wants `pid` for the session of `kept`. An error is the reason why it cannot have it.
    pub(super) fn claim_pid(&mut self, key: Key, pid: Box<[u8]>, kept: Key) -> Result<(), &'static str> {
        let Some(client) = self.sessions.get(key).map(|found| found.session.client()) else { return Ok(()) };
        let limit = self.resources.config.limits.kept;
        match self.look_up_kept(key, &pid) {
            // The answer must not tell whether there is such a pid.
            Err(TooManyGuesses) => return Err(reply::PID_IN_USE),
            Ok(Some(older)) => {
                let released = self.with_session(older, Session::release_pid);
                self.enqueue(older);
                if released == Some(false) {
                    return Err(reply::PID_IN_USE);
                }
            }
            Ok(None) if self.kept.find(&pid).is_none() && !self.kept.has_room(client, limit) => {
                return Err(reply::TOO_MANY_KEPT);
            }
            Ok(None) => {}
        }
        self.kept.insert(&pid, kept, client);
        Ok(())
    }

    /// The kept session of a `pid` that the client of the session of `key` has named, unless it is ending.
    pub(super) fn look_up_kept(&mut self, key: Key, pid: &[u8]) -> Result<Option<Key>, TooManyGuesses> {
        let Some(client) = self.sessions.get(key).map(|found| found.session.client()) else { return Ok(None) };
        let is_kept = |kept| self.sessions.get(kept).is_some_and(|found| found.session.kept_state() != KeptState::Over);
        self.kept.look_up(pid, client, is_kept, self.now)
    }

    /// The connection of the session of `key` takes the place of that of the kept session of `pid`. An error is the reason
    /// why not.
    pub(super) fn attach(
        &mut self,
        key: Key,
        pid: &[u8],
        seen: Option<u64>,
        target: Option<&Target>,
    ) -> Result<(), &'static str> {
        let kept = self.look_up_kept(key, pid).ok().flatten().ok_or(reply::NO_SUCH_PID)?;
        if !self.may_take_over(key, kept) {
            return Err(reply::NO_SUCH_PID);
        }
        let resumed = self.with_session(kept, |session, cx| session.resume(seen, target, cx));
        // Whatever comes of it, these turns may have left the session something to do, or another deadline.
        self.enqueue(kept);
        resumed.ok_or(reply::NO_SUCH_PID)??;
        let connection = self.sessions.get_mut(key).and_then(|found| found.session.take_connection());
        let Some(connection) = connection else { return Ok(()) };
        let clients = [key, kept].map(|key| self.sessions.get(key).map(|found| found.session.client()));
        let attached = self.with_session(kept, |session, cx| session.attach(connection, cx));
        let Some((peer, registered)) = attached else { return Ok(()) };
        if let Err(error) = registered {
            log::warn!("cannot register a connection: {error}");
        }
        if let Some(found) = self.sessions.get_mut(key) {
            found.session.set_peer(peer);
        }
        for (key, before) in [key, kept].into_iter().zip(clients) {
            if let (Some(found), Some(before)) = (self.sessions.get(key), before) {
                self.resources.budget.set_client(sessions::slot_of(key), before, found.session.client());
            }
        }
        Ok(())
    }

    /// See [`crate::access::OwnServices::may_take_over`].
    fn may_take_over(&self, key: Key, kept: Key) -> bool {
        let session = |key| self.sessions.get(key).map(|found| &found.session);
        let (Some(client), Some(kept)) = (session(key), session(kept)) else { return false };
        let is_own = |address| self.resources.network.is_own_address(address);
        let port = kept.target().map_or(0, |target| target.endpoint().port);
        self.resources.own.may_take_over(port, kept.peer_address(), client.peer_address(), is_own)
    }

    /// The session of `key` wants the end of the kept session of `pid`; or of any session of which STAT shows `pid`, if its
    /// client may say STOP.
    pub(super) fn drop_session(&mut self, key: Key, pid: &[u8]) {
        let Some(session) = self.sessions.get(key).map(|found| &found.session) else { return };
        let (own_pid, is_operator) = (session.pid(), self.resources.config.stop.allows(session.address()));
        let is_shown = |key: &Key| self.sessions.get(*key).is_some_and(|found| found.session.is_shown());
        let shown = if is_operator { self.sessions.find(pid).filter(is_shown) } else { None };
        let kept = match shown {
            // The id that STAT shows is no guess of a kept pid.
            Some(_) if self.kept.find(pid).is_none() => None,
            _ => self.look_up_kept(key, pid).ok().flatten(),
        };
        match (kept, shown) {
            (Some(kept), _) => {
                self.with_session(kept, |session, cx| session.end_kept(KeptEnd::Dropped, cx));
                self.enqueue(kept);
            }
            (None, Some(own)) if own == key => {
                self.with_session(key, |session, cx| session.reject(reply::ok("DROP"), cx));
                return;
            }
            (None, Some(other)) => {
                log::info!("{own_pid} has {} ended", String::from_utf8_lossy(pid));
                self.with_session(other, Session::end_by_operator);
                self.enqueue(other);
                self.arm_timer(other);
            }
            (None, None) => return self.reply(key, &reply::failed("DROP", reply::NO_SUCH_PID)),
        }
        self.reply(key, &reply::ok("DROP"));
    }
}
