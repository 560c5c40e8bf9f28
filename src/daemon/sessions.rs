//! Sessions come in, have their turns, and go.

use std::io;
use std::time::{Instant, SystemTime};

use mio::Token;
use slab::Slab;

use super::Daemon;
use super::doors::Arrival;
use super::tokens::{self, Side, Source};
use crate::net::socket::INTEREST;
use crate::session::{Context, Key, Session, Verdict};

/// A session, and what the loop remembers of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) session: Box<Session>,
    pub(super) generation: u16,
    /// It stands in the queue.
    queued: bool,
    /// What its timer is armed for.
    pub(super) armed: Option<Instant>,
}

impl Daemon {
    /// Lets in who is waiting at the doors.
    pub(super) fn let_in(&mut self) {
        for Arrival { mut stream, peer, door } in self.doors.accept(self.turns.arrivals(), self.now) {
            let address = peer.ip().to_canonical();
            let in_all = self.sessions.len();
            if let Err(refusal) = self.admission.enter(address, in_all, &self.house.config, self.now) {
                // A fresh socket takes a line at once; if not, there is nobody to tell.
                let _ = io::Write::write(&mut stream, &refusal);
                continue;
            }
            let slot = self.sessions.vacant_key();
            if self.generations.len() <= slot {
                self.generations.resize(slot + 1, 0);
            }
            let generation = self.generations[slot];
            let key = key(slot, generation);
            if let Err(error) = self.house.poll.registry().register(&mut stream, Token(key), INTEREST) {
                log::warn!("cannot watch a connection from {address}: {error}");
                self.admission.leave(address);
                continue;
            }
            self.accepted += 1;
            let direct = self.doors.direct(door);
            let pid = self.pids.next(SystemTime::now(), direct.is_some());
            log::info!("{pid} connection from {address}");
            let mut cx = self.house.context(key, self.now);
            let session = match direct {
                Some(direct) => Session::direct(pid, stream, peer, direct, &mut cx),
                None => Session::greet(pid, stream, peer, &cx),
            };
            self.sessions.insert(Slot { session: Box::new(session), generation, queued: false, armed: None });
            self.enqueue(key);
        }
    }

    /// Gives those a turn whose turn it is.
    pub(super) fn run_sessions(&mut self) {
        self.turns.begin();
        while let Some(key) = self.turns.next() {
            let Some(slot) = slot_of(&self.sessions, key) else { continue };
            self.sessions[slot].queued = false;
            self.run_session(slot, key);
        }
    }

    fn run_session(&mut self, slot: usize, key: Key) {
        let found = &mut self.sessions[slot];
        let mut cx = self.house.context(key, self.now);
        let mut verdict = found.session.turn(&mut cx);
        let late = |session: &Session, cx: &Context<'_>| session.deadline(cx.config).is_some_and(|due| due <= cx.now);
        if verdict == Verdict::WAIT && late(&found.session, &cx) {
            // Before anybody is judged for silence, the sockets themselves are asked: the word may have come while the
            // machine slept, and its event is yet to be fetched.
            found.session.look_again();
            verdict = found.session.turn(&mut cx);
        }
        if verdict == Verdict::WAIT && late(&found.session, &cx) {
            found.session.handle_timeout(&mut cx);
            verdict = found.session.turn(&mut cx);
        }
        match verdict {
            Verdict { closed: true, .. } => return self.forget(slot),
            Verdict { ask: Some(ask), .. } => {
                self.perform(slot, key, ask);
                self.enqueue(key);
            }
            Verdict { again: true, .. } => self.enqueue(key),
            _ => {}
        }
        let found = &mut self.sessions[slot];
        let due = found.session.deadline(&self.house.config);
        self.timers.arm(key, due, &mut found.armed);
    }

    /// Has the session of `key` wait for a turn.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(slot) = slot_of(&self.sessions, key) {
            let found = &mut self.sessions[slot];
            self.turns.add(key, found.session.relays(), &mut found.queued);
        }
    }

    fn forget(&mut self, slot: usize) {
        let gone = self.sessions.remove(slot);
        self.generations[slot] = tokens::next_generation(gone.generation);
        if let Some(pid) = gone.session.kept_pid() {
            self.directory.remove(pid, key(slot, gone.generation));
        }
        self.admission.leave(gone.session.address());
        self.doors.handle_room();
        if self.sessions.is_empty() {
            // What a crowd has needed is given back when it has gone.
            crate::buffer_pool::clear();
            self.sessions.shrink_to_fit();
            self.turns.shrink();
        }
        let sessions = &self.sessions;
        self.timers.prune(sessions.len(), |key, due| {
            slot_of(sessions, key).is_some_and(|slot| sessions[slot].armed == Some(due))
        });
    }
}

/// A session's key is its plugin socket's token.
pub(super) fn key(slot: usize, generation: u16) -> Key {
    tokens::session(slot, generation, Side::Plugin).0
}

/// The token of the remote's sockets of the session that `key` names.
pub(super) fn remote_token(key: Key) -> Token {
    match tokens::source(Token(key)) {
        Source::Session(slot, generation, _) => tokens::session(slot, generation, Side::Remote),
        _ => Token(key),
    }
}

/// The slot of the session that `key` names, if it is still that session's.
pub(super) fn slot_of(sessions: &Slab<Slot>, key: Key) -> Option<usize> {
    match tokens::source(Token(key)) {
        Source::Session(slot, generation, _) => {
            sessions.get(slot).filter(|found| found.generation == generation).map(|_| slot)
        }
        _ => None,
    }
}
