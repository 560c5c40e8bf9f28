//! The loop: poll, dispatch, timers, signals. What an event means is decided elsewhere.
//!
//! A turn of the loop waits for events, tells them to those they concern, lets sessions that have something to do do
//! it (see `turns`), and hands requests to the senders. Who is not done asks for another turn, and the others have
//! theirs before.

mod admission;
mod descriptors;
mod doors;
mod farewell;
mod kept;
mod owner;
mod report;
mod sessions;
mod timers;
mod tokens;
mod turns;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use nix::sys::signalfd::SignalFd;
use slab::Slab;

use crate::config::{Config, Step};
use crate::net::random::Randomness;
use crate::net::resolver::Resolver;
use crate::notify::{Schedule, Senders, Trust};
use crate::protocol::reply;
use crate::relay::SCRATCH;
use crate::relay::buffers::Buffers;
use crate::relay::pipes::Pipes;
use crate::session::{Ask, Context, Key, PidSource};
use crate::tls::{self, Handshakes};
use admission::Admission;
use doors::Doors;
use kept::Directory;
use sessions::{Slot, key, remote_token, slot_of};
use timers::Timers;
use tokens::{Side, Source};
use turns::Turns;

/// Events taken in one turn.
const EVENTS: usize = 256;

/// TLS handshakes made at once. They are all computing: more threads than cores gain nothing.
const HANDSHAKES: usize = 2;

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
    turns: Turns<Key>,
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
            turns: Turns::new(),
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
        if !self.turns.is_empty() || self.doors.is_ready() {
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
}

/// What TLS connections share. Draws the first randomness meanwhile.
fn tls_house(config: &Config) -> Arc<tls::TlsContext> {
    let house = Arc::new(tls::TlsContext::new(config.tls.directory.clone(), config.tls.ca.clone()));
    house.warm_up_random();
    house
}

/// How Luup proves who it is.
fn trust(house: &Arc<tls::TlsContext>, config: &Config) -> Trust {
    Trust { context: Arc::clone(house), verify: config.tls.luup.clone() }
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
