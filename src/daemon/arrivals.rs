//! Ports of plugins and what arrives at them (LSTN, ACPT, DENY).

use super::Daemon;
use crate::protocol::reply;
use crate::session::{AcceptError, Key, Session, WaitingArrival, not_served};
use crate::websocket::handshake;

impl Daemon {
    /// The session of `key` wants to listen. An error is the reason why it cannot.
    pub(super) fn listen(&mut self, key: Key) -> Result<(), String> {
        let Some(session) = self.sessions.get(key).map(|found| &found.session) else { return Ok(()) };
        let (pid, address) = (session.pid(), session.address());
        let Some(settings) = session.listen_settings() else { return Ok(()) };
        let shown = settings.to_string();
        if !self.resources.config.listen.allows(address) {
            log::warn!("{pid} may not LSTN from {address}");
            return Err(reply::NOT_ALLOWED.into());
        }
        let sessions = &self.sessions;
        let may_replace = |older| sessions.get(older).is_some_and(|older| older.session.address() == address);
        let registry = self.resources.poll.registry();
        let replaced = self.listeners.add_owner(key, settings, &self.resources.config, may_replace, registry)?;
        self.renew_own_ports();
        log::info!("{pid} listens on {shown}");
        if let Some(older) = replaced {
            self.remove_owner(older);
            self.with_session(older, Session::end_listening);
            self.enqueue(older);
        }
        self.with_session(key, |session, cx| session.listen(cx.now));
        Ok(())
    }

    /// The session of `key` listens no longer. The arrivals that wait for it are refused.
    pub(super) fn remove_owner(&mut self, key: Key) {
        for arrival in self.listeners.remove_owner(key).unwrap_or_default() {
            self.refuse_arrival(arrival, not_served());
        }
        self.renew_own_ports();
    }

    /// Tells the owner of the listener where the session of `key` has arrived, or returns why it is refused.
    pub(super) fn announce(&mut self, key: Key) -> Result<(), handshake::Refusal> {
        let Some(arrival) = self.sessions.get(key).map(|found| &found.session) else { return Ok(()) };
        let Some(port) = arrival.port() else { return Ok(()) };
        let waiting = WaitingArrival { pid: arrival.pid(), key, client: arrival.client() };
        let owner = self.listeners.owner(port, arrival.path(), waiting.client)?;
        let listening = self.sessions.get(owner).and_then(|found| found.session.listen_settings());
        let introduction = arrival.introduce(listening)?;
        if self.with_session(owner, |session, cx| session.announce(&introduction.line, cx)) != Some(true) {
            return Err(not_served());
        }
        self.enqueue(owner);
        self.listeners.add_waiting(owner, waiting);
        self.with_session(key, |session, cx| session.handle_announced(introduction, cx.now));
        Ok(())
    }

    /// Refuses the arrival with this `id` for the owner of `key`. Returns the answer to DENY.
    pub(super) fn deny(&mut self, key: Key, id: &[u8], status: Option<u16>, reason: &[u8]) -> Vec<u8> {
        let arrival = self.listeners.find_waiting(id).filter(|&(owner, _)| owner == key);
        match (arrival, status) {
            (None, _) => reply::failed("DENY", reply::NO_SUCH_ID),
            (_, None) => reply::failed("DENY", reply::INVALID_STATUS),
            (Some((_, arrival)), Some(status)) => {
                self.refuse_arrival(arrival, handshake::Refusal::with_phrase(status, reason));
                reply::denied(id)
            }
        }
    }

    /// Refuses an arrival, which waits no longer.
    pub(super) fn refuse_arrival(&mut self, arrival: Key, refusal: handshake::Refusal) {
        self.listeners.remove_waiting(arrival);
        let now = self.now;
        self.with_session(arrival, |session, _| session.refuse_arrival(refusal, now));
        self.enqueue(arrival);
    }

    /// The connection of the session of `key` accepts the arrival that `id` names.
    pub(super) fn accept(&mut self, key: Key, id: &[u8], options: &[u8]) -> Result<(), AcceptError> {
        let (owner, arrival) = self.listeners.find_waiting(id).ok_or(AcceptError::NoSuchId)?;
        let session = |key| self.sessions.get(key).map(|found| &found.session);
        let (Some(session), Some(owner), Some(found)) = (session(key), session(owner), session(arrival)) else {
            return Err(AcceptError::NoSuchId);
        };
        let (_, protocol) = found.port().ok_or(AcceptError::NoSuchId)?;
        if owner.address() != session.address() {
            return Err(AcceptError::NoSuchId);
        }
        let parameters = session.parameters_for(protocol, options).map_err(AcceptError::Option)?;
        let checked = self.with_session(arrival, |session, cx| session.check_acceptance(&parameters, cx));
        // Whatever comes of it, this turn may have left the session something to do, or another deadline.
        self.enqueue(arrival);
        checked.ok_or(AcceptError::NoSuchId)??;
        if let Some(pid) = parameters.kept_pid() {
            self.claim_pid(key, pid.into(), arrival).map_err(AcceptError::Pid)?;
        }
        self.listeners.remove_waiting(arrival);
        let connection = self.sessions.get_mut(key).and_then(|found| found.session.take_connection());
        let Some(connection) = connection else { return Ok(()) };
        let accepted = self.with_session(arrival, |session, cx| session.accept(connection, parameters, cx));
        if let Some(Err(error)) = accepted {
            log::warn!("cannot register a connection: {error}");
        }
        Ok(())
    }
}
