//! The loop: poll, dispatch, timers, signals. What an event means is decided elsewhere.
//!
//! A turn of the loop waits for events, tells them to those they concern, runs every session that has something to
//! do once, and hands requests to the senders. Who is not done asks for another turn, and the others have theirs
//! before.

mod admission;
mod descriptors;
mod doors;
mod farewell;
mod kept;
mod owner;
mod report;
mod timers;
mod tokens;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::signalfd::SignalFd;
use slab::Slab;

use crate::config::{Config, Step};
use crate::net::random::Randomness;
use crate::net::resolver::Resolver;
use crate::net::socket::INTEREST;
use crate::notify::{Schedule, Senders, Trust};
use crate::protocol::reply;
use crate::relay::SCRATCH;
use crate::relay::buffers::Buffers;
use crate::relay::pipes::Pipes;
use crate::session::{Ask, Context, Key, PidSource, Session, Verdict};
use crate::tls::{self, Handshakes};
use admission::Admission;
use doors::{Arrival, Doors};
use kept::Directory;
use timers::Timers;
use tokens::{Side, Source};

/// Events taken in one turn.
const EVENTS: usize = 256;

/// TLS handshakes made at once. They are all computing: more threads than cores gain nothing.
const HANDSHAKES: usize = 2;

/// A session, and what the loop remembers of it.
#[derive(Debug)]
struct Slot {
    session: Box<Session>,
    generation: u16,
    /// It stands in the queue.
    queued: bool,
    /// What its timer is armed for.
    armed: Option<Instant>,
}

/// Everything that a session's turn may need. Apart from the sessions, so that both can be borrowed.
struct House {
    poll: Poll,
    config: Config,
    scratch: Vec<u8>,
    buffers: Buffers,
    pipes: Pipes,
    resolver: Resolver<Key>,
    handshakes: Handshakes<Key>,
    randomness: Randomness,
    schedule: Schedule,
}

/// The daemon.
pub struct Daemon {
    house: House,
    steps: Vec<Step>,
    signals: SignalFd,
    doors: Doors,
    senders: Senders,
    sessions: Slab<Slot>,
    /// The generation that the next session in a slot gets.
    generations: Vec<u16>,
    queue: VecDeque<Key>,
    timers: Timers<Key>,
    admission: Admission,
    pids: PidSource,
    /// Kept connections by the pids that their plugins gave them.
    directory: Directory,
    accepted: u64,
    started: Instant,
    now: Instant,
    /// Why it ends, once it does.
    ending: Option<&'static str>,
}

impl Daemon {
    /// Opens everything that `config` names. An error is one line for people: what could not be had.
    ///
    /// Must be called before any thread is started, since signals are taken from all of them. `steps` are those that
    /// made `config`, to be gone through again on SIGHUP.
    pub fn new(config: Config, steps: Vec<Step>) -> Result<Self, String> {
        let signals = owner::take_signals().map_err(|errno| format!("no signals: {errno}"))?;
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let signal_fd = signals.as_raw_fd();
        let registered = poll.registry().register(&mut SourceFd(&signal_fd), tokens::SIGNALS, Interest::READABLE);
        registered.map_err(|error| format!("no signals: {error}"))?;
        let waker = Waker::new(poll.registry(), tokens::WAKER).map_err(|error| format!("no waker: {error}"))?;
        let waker = Arc::new(waker);
        let wake = move || {
            let waker = Arc::clone(&waker);
            move || {
                // It fails only when the daemon is at its end.
                let _ = waker.wake();
            }
        };
        // Before anybody can come in: who looks at the limit, or sets it, then finds it as it stays.
        let connections = descriptors::provide(&config);
        let doors = Doors::open(&config, poll.registry())?;
        let limits = &config.limits;
        let now = Instant::now();
        let tls = tls_house(&config);
        let trust = trust(&tls, &config);
        Ok(Self {
            senders: Senders::new(&config.luup, limits.senders, limits.answer, trust, wake()),
            house: House {
                scratch: vec![0; SCRATCH],
                buffers: Buffers::new(limits.buffers, limits.buffer),
                pipes: Pipes::new(limits.pipes),
                resolver: Resolver::new(limits.resolvers, wake()),
                handshakes: Handshakes::new(tls, HANDSHAKES, wake()),
                randomness: Randomness::default(),
                schedule: Schedule::new(limits.senders, limits.notices),
                poll,
                config,
            },
            steps,
            signals,
            doors,
            sessions: Slab::new(),
            generations: Vec::new(),
            queue: VecDeque::new(),
            timers: Timers::new(),
            admission: Admission::new(connections),
            pids: PidSource::default(),
            directory: Directory::default(),
            accepted: 0,
            started: now,
            now,
            ending: None,
        })
    }

    /// Serves until it is told to end. An error is one line for people.
    pub fn run(mut self) -> Result<(), String> {
        log::info!("sockproxyd {} ready, Luup at {}", env!("CARGO_PKG_VERSION"), self.house.config.luup);
        let mut events = Events::with_capacity(EVENTS);
        while self.ending.is_none() {
            self.turn(&mut events)?;
        }
        self.say_farewell(&mut events)
    }

    /// One turn of the loop.
    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        match self.house.poll.poll(events, self.timeout()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(format!("poll: {error}")),
            _ => {}
        }
        self.now = Instant::now();
        for event in events.iter() {
            self.dispatch(event);
        }
        self.run_timers();
        self.let_in();
        self.run_sessions();
        self.send_notifications();
        Ok(())
    }

    /// How long the loop may sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.queue.is_empty() || self.doors.is_ready() {
            return Some(Duration::ZERO);
        }
        let next = [self.timers.next(), self.house.schedule.poll_timeout(), self.doors.deadline()];
        // From now, not from the turn's beginning: what was due meanwhile is due at once.
        next.into_iter().flatten().min().map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn dispatch(&mut self, event: &Event) {
        match tokens::source(event.token()) {
            Source::Waker => self.take_results(),
            Source::Signals => self.handle_signals(),
            Source::Listener(door) => self.doors.handle_event(door),
            Source::Session(slot, generation, side) => {
                // A late event of a session that has gone, or of a slot that is somebody else's now, means nothing.
                let Some(found) = self.sessions.get_mut(slot).filter(|found| found.generation == generation) else {
                    return;
                };
                match side {
                    Side::Plugin => found.session.handle_plugin_event(event),
                    Side::Remote => found.session.handle_remote_event(event),
                }
                self.enqueue(key(slot, generation));
            }
        }
    }

    /// What threads have found out.
    fn take_results(&mut self) {
        for (line, outcome) in self.senders.take_outcomes() {
            self.house.schedule.handle_outcome(line, outcome, self.now);
        }
        for (key, step) in self.house.handshakes.take_results() {
            if let Some(slot) = slot_of(&self.sessions, key) {
                self.sessions[slot].session.handle_secured(step);
                self.enqueue(key);
            }
        }
        for (key, host, answer) in self.house.resolver.take_answers() {
            if let Some(slot) = slot_of(&self.sessions, key) {
                self.sessions[slot].session.handle_resolved(&host, answer);
                self.enqueue(key);
            }
        }
    }

    /// Gives those a turn whose timer has come up. Whether they are really late is asked afterwards: what has come for
    /// them meanwhile counts.
    fn run_timers(&mut self) {
        while let Some((due, key)) = self.timers.pop(self.now) {
            let Some(slot) = slot_of(&self.sessions, key) else { continue };
            let found = &mut self.sessions[slot];
            if found.armed == Some(due) {
                found.armed = None;
            }
            self.enqueue(key);
        }
    }

    fn let_in(&mut self) {
        for Arrival { mut stream, peer, door } in self.doors.accept(self.now) {
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

    /// Gives every session in the queue one turn.
    fn run_sessions(&mut self) {
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { break };
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

    /// Does what a session has asked for.
    fn perform(&mut self, slot: usize, key: Key, ask: Ask) {
        match ask {
            Ask::Stat | Ask::StatJson if self.unread() > self.house.config.limits.buffers => {
                let session = &mut self.sessions[slot].session;
                log::warn!("{} gets no STAT: too many wait to be read", session.pid());
                session.dismiss(Vec::new(), &mut self.house.context(key, self.now));
            }
            Ask::Stat => {
                let table = self.table(Some(slot));
                self.sessions[slot].session.answer(table);
            }
            Ask::StatJson => {
                let answer = reply::stat_json(&self.json());
                self.sessions[slot].session.answer(answer);
            }
            Ask::Kept => self.perform_kept(slot, key),
            Ask::Stop => {
                let session = &mut self.sessions[slot].session;
                let (pid, address) = (session.pid(), session.address());
                let allowed = self.house.config.stop.allows(address);
                let answer = if allowed { reply::ok("STOP") } else { reply::stop_refused() };
                session.dismiss(answer, &mut self.house.context(key, self.now));
                if allowed {
                    self.ending = Some("STOP");
                } else {
                    log::warn!("{pid} may not STOP from {address}");
                }
            }
        }
    }

    fn send_notifications(&mut self) {
        while let Some(job) = self.house.schedule.poll_job(self.now) {
            if let Some((line, outcome)) = self.senders.submit(job) {
                self.house.schedule.handle_outcome(line, outcome, self.now);
            }
        }
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(slot) = slot_of(&self.sessions, key)
            && !std::mem::replace(&mut self.sessions[slot].queued, true)
        {
            self.queue.push_back(key);
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
            crate::spare::clear();
            self.sessions.shrink_to_fit();
            self.queue.shrink_to_fit();
        }
        let sessions = &self.sessions;
        self.timers.prune(sessions.len(), |key, due| {
            slot_of(sessions, key).is_some_and(|slot| sessions[slot].armed == Some(due))
        });
    }
}

/// What TLS connections share. Draws the first randomness meanwhile.
fn tls_house(config: &Config) -> Arc<tls::House> {
    let house = Arc::new(tls::House::new(config.tls.directory.clone(), config.tls.ca.clone()));
    house.warm_up();
    house
}

/// How Luup proves who it is.
fn trust(house: &Arc<tls::House>, config: &Config) -> Trust {
    Trust { house: Arc::clone(house), verify: config.tls.luup.clone() }
}

impl House {
    fn context(&mut self, key: Key, now: Instant) -> Context<'_> {
        Context {
            now,
            key,
            remote_token: remote_token(key),
            registry: self.poll.registry(),
            config: &self.config,
            scratch: &mut self.scratch,
            buffers: &mut self.buffers,
            pipes: &mut self.pipes,
            resolver: &mut self.resolver,
            handshakes: &mut self.handshakes,
            randomness: &mut self.randomness,
            schedule: &mut self.schedule,
        }
    }
}

/// A session's key is its plugin socket's token.
fn key(slot: usize, generation: u16) -> Key {
    tokens::session(slot, generation, Side::Plugin).0
}

fn remote_token(key: Key) -> Token {
    match tokens::source(Token(key)) {
        Source::Session(slot, generation, _) => tokens::session(slot, generation, Side::Remote),
        _ => Token(key),
    }
}

/// The slot of the session that `key` names, if it is still that session's.
fn slot_of(sessions: &Slab<Slot>, key: Key) -> Option<usize> {
    match tokens::source(Token(key)) {
        Source::Session(slot, generation, _) => {
            sessions.get(slot).filter(|found| found.generation == generation).map(|_| slot)
        }
        _ => None,
    }
}
