//! The loop: poll, dispatch, timers, signals. Sessions decide what an event means.
//!
//! A turn of the loop polls for events, tells sessions theirs, gives turns to the sessions that have something to do (see
//! [`run_queue`]), and hands requests to the notification senders. A session that is not done asks for another turn, and
//! the others have theirs before.

mod admission;
mod arrivals;
mod fd_limit;
mod keep;
mod kept_registry;
mod listeners;
mod named_files;
mod reload;
mod requests;
mod run_queue;
mod sessions;
mod shut_down;
mod signals;
mod status;
mod timers;
mod tokens;
mod trace;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::access::OwnServices;
use crate::client::ClientKey;
use crate::config::{Config, ConfigSource};
use crate::logging;
use crate::net::network::MioNetwork;
use crate::net::random::RandomSource;
use crate::net::resolver::Resolver;
use crate::net::socket::{INTEREST, TcpSocket};
use crate::notify::{Schedule, Senders, Trust};
use crate::relay::SCRATCH_SIZE;
use crate::relay::memory_budget::{MemoryBudget, ShortageActions};
use crate::relay::pipe_pool::PipePool;
use crate::service_manager::ServiceManager;
use crate::session::{EndedConnections, Key, PidSource, SendFailures, Session, SessionContext, Traces, TurnResult};
use crate::tls::{self, Handshakes};
use admission::{Admission, Refusal};
use kept_registry::KeptRegistry;
use listeners::{Accepted, ListenerKind, Listeners, RefusalForm};
pub(crate) use named_files::file_problems;
use run_queue::RunQueue;
use sessions::{SessionTable, remote_token};
use signals::{SignalRequest, Signals};
use status::CachedStatus;
use timers::Timers;
use tokens::{Side, TokenKind};

/// Events taken in one turn.
const MAX_EVENTS: usize = 256;

/// Threads that compute TLS handshakes: more threads than cores gain nothing.
const HANDSHAKE_THREADS: usize = 2;

/// While places are scarce, sessions that are idle in setup mode are looked for this often.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that a session's turn may need. Apart from the sessions, so that both can be borrowed.
struct Resources {
    poll: Poll,
    network: MioNetwork,
    config: Config,
    own: OwnServices,
    scratch: Vec<u8>,
    budget: MemoryBudget,
    pipes: PipePool,
    resolver: Resolver<Key>,
    handshakes: Handshakes<Key>,
    random: RandomSource,
    schedule: Schedule,
    /// Bytes of the schedule that are counted in the budget.
    schedule_counted: usize,
    ended: EndedConnections,
    send_failures: SendFailures,
    traces: Traces,
}

/// The daemon.
pub(crate) struct Daemon {
    resources: Resources,
    /// Where the configuration came from, to be read again on SIGHUP.
    config_sources: Vec<ConfigSource>,
    signals: Signals,
    listeners: Listeners,
    senders: Senders,
    sessions: SessionTable,
    run_queue: RunQueue<Key>,
    timers: Timers<Key>,
    admission: Admission,
    /// When sessions that are idle in setup mode may be looked for again.
    idle_due: Option<Instant>,
    /// What clients of `[status]` with a WebSocket are sent, for as long as it is new.
    cached_status: Option<CachedStatus>,
    pids: PidSource,
    kept: KeptRegistry,
    accepted: u64,
    started: Instant,
    now: Instant,
    /// Why it ends, once it does.
    ending: Option<&'static str>,
    service_manager: ServiceManager,
}

impl Daemon {
    /// Opens everything that `config` names. An error is one line for people: what could not be had.
    ///
    /// Must be called before any thread is started, since signals are blocked for all of them. `config_sources`: where
    /// `config` came from, to be read again on SIGHUP.
    pub(crate) fn new(
        config: Config,
        config_sources: Vec<ConfigSource>,
        service_manager: ServiceManager,
    ) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let signals = Signals::new(poll.registry(), tokens::SIGNALS).map_err(|error| format!("no signals: {error}"))?;
        let waker = Waker::new(poll.registry(), tokens::WAKER).map_err(|error| format!("no waker: {error}"))?;
        let waker = Arc::new(waker);
        let wake = move || {
            let waker = Arc::clone(&waker);
            move || {
                // Fails only at the end of the daemon.
                let _ = waker.wake();
            }
        };
        // Before the listeners accept anything: a client that looks at the limit, or sets it, finds it as it stays.
        let fd_limits = fd_limit::raise_for(&config);
        let now = Instant::now();
        let listeners = Listeners::open(&config, poll.registry(), now)?;
        let registry = poll.registry().try_clone().map_err(|error| format!("no epoll: {error}"))?;
        let network = MioNetwork::new(registry, fd_limits.extra_attempts);
        let limits = &config.limits;
        let tls = tls_context(&config);
        let trust = trust(&tls, &config);
        Ok(Self {
            senders: Senders::new(&config.luup, fd_limits.senders, limits.answer, trust, wake()),
            resources: Resources {
                scratch: vec![0; SCRATCH_SIZE],
                budget: MemoryBudget::new(limits.buffers, limits.buffer),
                pipes: PipePool::new(fd_limits.pipes),
                resolver: Resolver::new(fd_limits.resolvers, wake()),
                handshakes: Handshakes::new(tls, HANDSHAKE_THREADS, wake()),
                random: RandomSource::default(),
                schedule: Schedule::new(fd_limits.senders, limits.notices),
                schedule_counted: 0,
                ended: EndedConnections::default(),
                send_failures: SendFailures::default(),
                traces: Traces::default(),
                own: OwnServices::new(listeners.ports(), config.luup_address()),
                poll,
                network,
                config,
            },
            config_sources,
            signals,
            listeners,
            sessions: SessionTable::default(),
            run_queue: RunQueue::new(),
            timers: Timers::new(),
            admission: Admission::new(fd_limits.connections),
            idle_due: None,
            cached_status: None,
            pids: PidSource::default(),
            kept: KeptRegistry::default(),
            accepted: 0,
            started: now,
            now,
            ending: None,
            service_manager,
        })
    }

    /// Serves until it is told to end. An error is one line for people.
    pub(crate) fn run(mut self) -> Result<(), String> {
        log::info!("sockproxyd {} ready, Luup at {}", env!("CARGO_PKG_VERSION"), self.resources.config.luup);
        let mut events = Events::with_capacity(MAX_EVENTS);
        logging::defer_lines();
        self.service_manager.notify_ready(self.now);
        while self.ending.is_none() {
            self.turn(&mut events)?;
        }
        self.shut_down(&mut events);
        Ok(())
    }

    /// One turn of the loop.
    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        let timeout = self.timeout();
        self.poll(events, timeout).map_err(|error| format!("poll: {error}"))?;
        self.retry_listeners();
        self.accept_pending();
        self.run_sessions();
        self.pass_traces();
        self.handle_shortage();
        self.send_notifications();
        self.resources.count_shared();
        Ok(())
    }

    /// Waits for events, and dispatches them and what is due.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.resources.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.now = Instant::now();
        for event in events.iter() {
            self.dispatch(event);
        }
        self.run_timers();
        self.drop_old_status();
        Ok(())
    }

    /// How long the loop may sleep.
    fn timeout(&mut self) -> Option<Duration> {
        let watchdog_due = self.service_manager.poll_watchdog(self.now);
        // Also in turns that follow each other without a wait, as while much is relayed.
        let log_due = logging::poll_flush(self.now);
        if !self.run_queue.is_empty() {
            return Some(Duration::ZERO);
        }
        self.skip_stale_timers();
        let session_due = self.timers.next().map(|(due, _)| due);
        let shortage_due = self.resources.budget.poll_timeout();
        let next = [
            session_due,
            self.resources.schedule.poll_timeout(),
            self.listeners.deadline(),
            log_due,
            shortage_due,
            watchdog_due,
            self.cached_status.as_ref().map(|status| status.due),
        ];
        // From now, not from the turn's beginning: what was due meanwhile is due at once.
        next.into_iter().flatten().min().map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn dispatch(&mut self, event: &Event) {
        match tokens::decode(event.token()) {
            TokenKind::Waker => self.take_results(),
            TokenKind::Signals => self.handle_signals(),
            TokenKind::Listener(listener) => self.listeners.handle_event(listener),
            TokenKind::Session(slot, generation, side) => {
                let key = sessions::key(slot, generation);
                // A late event of a session that is gone finds none.
                let Some(found) = self.sessions.get_mut(key) else { return };
                match side {
                    Side::Plugin => found.session.handle_plugin_event(event.into()),
                    Side::Remote => found.session.handle_remote_event(event.into()),
                }
                found.enqueue(&mut self.run_queue);
            }
        }
    }

    /// Takes what threads have found out.
    fn take_results(&mut self) {
        for (id, outcome) in self.senders.take_outcomes() {
            self.resources.schedule.handle_outcome(id, outcome, self.now);
        }
        for (key, step) in self.resources.handshakes.take_results() {
            if let Some(found) = self.sessions.get_mut(key) {
                found.session.handle_tls_step(step);
                self.enqueue(key);
            }
        }
        for (key, host, answer) in self.resources.resolver.take_results() {
            if let Some(found) = self.sessions.get_mut(key) {
                found.session.handle_resolved(&host, answer);
                self.enqueue(key);
            }
        }
    }

    fn handle_signals(&mut self) {
        while let Some(request) = self.signals.next() {
            match request {
                SignalRequest::Reload => self.reload(),
                SignalRequest::LogStatus => {
                    String::from_utf8_lossy(&self.status_table(None)).lines().for_each(|line| log::info!("{line}"));
                }
                SignalRequest::End(why) => self.ending = Some(why),
            }
        }
    }

    /// Brings the next timer in line with its session's deadline, which may have moved or gone, so that the loop does not
    /// wake up for nothing.
    fn skip_stale_timers(&mut self) {
        while let Some((due, key)) = self.timers.next() {
            let found = self.sessions.get_mut(key).filter(|found| found.armed == Some(due));
            let deadline = found.as_ref().and_then(|found| found.session.deadline(&self.resources.config));
            if deadline == Some(due) {
                return;
            }
            self.timers.remove_next();
            if let Some(found) = found {
                found.armed = None;
                self.timers.arm(key, deadline, &mut found.armed);
            }
        }
    }

    /// Gives a turn to each session whose timer is due. Whether the session is really late is asked after that turn: what
    /// has come for it meanwhile counts.
    fn run_timers(&mut self) {
        while let Some((due, key)) = self.timers.pop(self.now) {
            let Some(found) = self.sessions.get_mut(key) else { continue };
            if found.armed == Some(due) {
                found.armed = None;
            }
            self.enqueue(key);
        }
    }

    /// Tries again to listen on ports that another program had.
    fn retry_listeners(&mut self) {
        if self.listeners.retry(&self.resources.config, self.resources.poll.registry(), self.now) {
            self.renew_own_ports();
        }
    }

    /// Accepts connections that are waiting.
    fn accept_pending(&mut self) {
        let limit = self.run_queue.accept_limit();
        let accepted = self.listeners.accept(limit, self.resources.poll.registry(), self.now);
        accepted.into_iter().for_each(|accepted| self.add_session(accepted));
    }

    fn add_session(&mut self, Accepted { mut stream, peer, listener }: Accepted) {
        let address = peer.ip().to_canonical();
        let client = ClientKey::of(address);
        let _guard = logging::count_for(client);
        if let Err(answer) = self.admit(address, listener) {
            // Best effort; a fresh socket takes a line at once.
            let _ = io::Write::write(&mut stream, &answer);
            return;
        }
        let key = self.sessions.next_key();
        let Some((listener_address, kind)) = self.listeners.get(listener) else {
            // Closed since it was accepted from.
            self.admission.release(address);
            return;
        };
        let token = if let ListenerKind::Plugins(_) = kind { remote_token(key) } else { Token(key) };
        if let Err(error) = self.resources.poll.registry().register(&mut stream, token, INTEREST) {
            log::warn!("cannot register a connection from {address}: {error}");
            self.admission.release(address);
            return;
        }
        self.accepted += 1;
        let pid = self.pids.next(SystemTime::now(), matches!(kind, ListenerKind::Direct(_) | ListenerKind::Serve(_)));
        match kind {
            ListenerKind::Plugins(_) => log::info!("{pid} connection from {address} to {listener_address}"),
            // A page that asks again and again would push all else out of the log.
            ListenerKind::Status(..) => log::debug!("{pid} asks for the status from {address}"),
            _ => log::info!("{pid} connection from {address}"),
        }
        self.resources.budget.add_session(sessions::slot_of(key));
        let mut cx = self.resources.context(key, client, self.now);
        let stream = TcpSocket(stream);
        let session = match kind {
            ListenerKind::Setup => Session::greet(pid, stream, peer, &cx),
            ListenerKind::Direct(direct) => Session::direct(pid, stream, peer, direct, &mut cx),
            ListenerKind::Serve(port) => Session::served(pid, stream, peer, *port, cx.config.serve_tls(*port), &mut cx),
            ListenerKind::Status(..) => Session::status(pid, stream, peer, &mut cx),
            ListenerKind::Plugins(port) => Session::arrive(pid, stream, peer, listener_address, port, &mut cx),
        };
        self.sessions.insert(Box::new(session));
        self.enqueue(key);
    }

    /// Counts a client of `listener`, if it may connect. An error is what the client is told.
    fn admit(&mut self, address: IpAddr, listener: usize) -> Result<(), Vec<u8>> {
        let admit = |daemon: &mut Self| {
            let config = &daemon.resources.config;
            let allow = daemon.listeners.get(listener).map_or(&config.allow, |(_, kind)| kind.allow(config));
            daemon.admission.admit(address, allow, config)
        };
        let mut admitted = admit(self);
        if admitted == Err(Refusal::Full) && self.end_idle(ClientKey::of(address)) {
            admitted = admit(self);
        }
        admitted.map_err(|refusal| {
            let line = self.admission.refuse(address, refusal, self.now);
            match self.listeners.get(listener).map(|(_, kind)| kind.refusal_form(&self.resources.config)) {
                None | Some(RefusalForm::Line) => line,
                Some(RefusalForm::Response) => refusal.response(),
                Some(RefusalForm::Silence) => Vec::new(),
            }
        })
    }

    /// To be called when listeners were opened or closed: no session connects to their ports.
    fn renew_own_ports(&mut self) {
        self.resources.own.ports = self.listeners.ports();
    }

    /// Places are scarce: ends the sessions that have been idle in setup mode for longer than the limit on silence. Those of
    /// loopback only if `client` is loopback. True if there were some.
    fn end_idle(&mut self, client: ClientKey) -> bool {
        // Looking through all sessions for each of many refused clients would cost more than refusing them.
        if self.idle_due.is_some_and(|due| self.now < due) {
            return false;
        }
        self.idle_due = Some(self.now + IDLE_INTERVAL);
        let limit = self.resources.config.limits.setup;
        let is_idle = |session: &Session| {
            (client.is_loopback() || !session.client().is_loopback()) && session.is_idle_in_setup(limit, self.now)
        };
        let idle: Vec<Key> =
            self.sessions.iter().filter(|(_, found)| is_idle(&found.session)).map(|(key, _)| key).collect();
        for &key in &idle {
            self.with_session(key, Session::end_idle);
            self.run_session(key);
        }
        !idle.is_empty()
    }

    /// Queues the session of `key` for a turn.
    fn enqueue(&mut self, key: Key) {
        if let Some(found) = self.sessions.get_mut(key) {
            found.enqueue(&mut self.run_queue);
        }
    }

    /// Gives the sessions of this round their turns.
    fn run_sessions(&mut self) {
        self.run_queue.begin_round();
        while let Some(key) = self.run_queue.next() {
            self.run_session(key);
        }
    }

    fn run_session(&mut self, key: Key) {
        let Some(found) = self.sessions.get_mut(key) else { return };
        found.queued = false;
        let _guard = logging::count_for(found.session.client());
        let mut cx = self.resources.context(key, found.session.client(), self.now);
        let session = &mut found.session;
        let turn = |session: &mut Session, cx: &mut SessionContext<'_, MioNetwork>| {
            let result = session.turn(cx);
            (result, session.deadline(cx.config))
        };
        let now = self.now;
        let is_late = |result: &TurnResult, due: Option<Instant>| {
            *result == TurnResult::Wait && due.is_some_and(|due| due <= now)
        };
        let (mut result, mut due) = turn(session, &mut cx);
        if is_late(&result, due) {
            session.assume_readable();
            (result, due) = turn(session, &mut cx);
        }
        if is_late(&result, due) {
            session.handle_timeout(&mut cx);
            (result, due) = turn(session, &mut cx);
        }
        match result {
            TurnResult::Closed => return self.remove_session(key),
            TurnResult::Request(request) => {
                self.perform(key, request);
                self.enqueue(key);
                // The answer may have moved the deadline.
                self.arm_timer(key);
                return;
            }
            TurnResult::Again => found.enqueue(&mut self.run_queue),
            TurnResult::Wait => {}
        }
        self.timers.arm(key, due, &mut found.armed);
    }

    /// Brings the timer of a session in line with its deadline.
    fn arm_timer(&mut self, key: Key) {
        if let Some(found) = self.sessions.get_mut(key) {
            let due = found.session.deadline(&self.resources.config);
            self.timers.arm(key, due, &mut found.armed);
        }
    }

    fn remove_session(&mut self, key: Key) {
        let Some(session) = self.sessions.remove(key) else { return };
        if let Some(pid) = session.kept_pid() {
            self.kept.remove(pid, key);
        }
        if session.listen_settings().is_some() {
            self.remove_owner(key);
        }
        if session.has_arrived() {
            self.listeners.remove_waiting(key);
        }
        self.resources.budget.remove_session(sessions::slot_of(key));
        self.admission.release(session.address());
        self.listeners.handle_session_end(self.now);
        if self.sessions.is_empty() {
            // Memory that many sessions have needed is freed when they are gone.
            crate::buffer_pool::clear();
            self.sessions.shrink();
            self.run_queue.shrink();
        }
        let sessions = &self.sessions;
        self.timers.prune(sessions.len(), |key, due| sessions.get(key).is_some_and(|found| found.armed == Some(due)));
    }

    /// Ends sessions that hold what others need, and wakes those that wait for memory.
    fn handle_shortage(&mut self) {
        let ShortageActions { end, wake } = self.resources.budget.poll_shortage(self.now);
        let keys = |slots: Vec<usize>| slots.into_iter().filter_map(|slot| self.sessions.key_of(slot)).collect();
        let (end, wake): (Vec<Key>, Vec<Key>) = (keys(end), keys(wake));
        for &key in &end {
            self.with_session(key, Session::end_for_memory);
        }
        for key in end.into_iter().chain(wake) {
            self.enqueue(key);
        }
    }

    /// Calls `work` with the session of `key` and its context.
    fn with_session<T>(
        &mut self,
        key: Key,
        work: impl FnOnce(&mut Session, &mut SessionContext<'_, MioNetwork>) -> T,
    ) -> Option<T> {
        let found = self.sessions.get_mut(key)?;
        let client = found.session.client();
        Some(work(&mut found.session, &mut self.resources.context(key, client, self.now)))
    }

    /// Answers the request of the session of `key`.
    fn reply(&mut self, key: Key, bytes: &[u8]) {
        if let Some(found) = self.sessions.get_mut(key) {
            found.session.reply(bytes);
        }
    }

    /// Hands requests that are due to the senders.
    fn send_notifications(&mut self) {
        while let Some(job) = self.resources.schedule.poll_job(self.now) {
            if let Some((id, outcome)) = self.senders.submit(job) {
                self.resources.schedule.handle_outcome(id, outcome, self.now);
            }
        }
    }
}

/// What TLS connections share. Draws the first randomness meanwhile, and logs which files cannot be used.
fn tls_context(config: &Config) -> Arc<tls::TlsContext> {
    let context = Arc::new(tls::TlsContext::new(config.tls.directory.clone(), config.tls.ca.clone()));
    let config = config.clone();
    context.warm_up_random(move || {
        for problem in file_problems(&config) {
            log::warn!("{problem}");
        }
    });
    context
}

/// How Luup is verified.
fn trust(context: &Arc<tls::TlsContext>, config: &Config) -> Trust {
    Trust { context: Arc::clone(context), verify: config.tls.luup.clone() }
}

impl Resources {
    /// Counts in the budget what the schedule and the traces hold, which is no session's: a session that has ended may have left
    /// requests, and its trace. `notices=` bounds the requests.
    fn count_shared(&mut self) {
        self.budget.end_turn();
        self.budget.adjust(&mut self.schedule_counted, self.schedule.held());
        let traces = self.traces.held();
        self.budget.adjust(&mut self.traces.counted, traces);
    }

    /// What the session of `key`, which is one of `client`, needs for a turn.
    fn context(&mut self, key: Key, client: ClientKey, now: Instant) -> SessionContext<'_, MioNetwork> {
        self.budget.begin_turn(sessions::slot_of(key), client, now);
        SessionContext {
            now,
            key,
            client,
            remote_token: remote_token(key),
            network: &mut self.network,
            config: &self.config,
            own: &self.own,
            scratch: &mut self.scratch,
            budget: &mut self.budget,
            pipes: &mut self.pipes,
            resolver: &mut self.resolver,
            handshakes: &mut self.handshakes,
            random: &mut self.random,
            schedule: &mut self.schedule,
            ended: &mut self.ended,
            send_failures: &mut self.send_failures,
            traces: &mut self.traces,
        }
    }
}
