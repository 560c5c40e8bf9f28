//! Sessions, and a small stand-in for the daemon: the run queue, timers, and requests that concern several sessions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use mio::Token;

use super::conversation::{Conversation, PluginPhase};
use super::remote::RemoteKind;
use super::services::{Delay, SimHandshakes, SimRandom, SimResolver};
use crate::access::OwnServices;
use crate::client::ClientKey;
use crate::config::Config;
use crate::net::readiness::Readiness;
use crate::notify::{NotifyJob, NotifyOutcome, Recipient, Schedule};
use crate::protocol::command::{ArrivalRequest, KeptRequest};
use crate::protocol::reply;
use crate::protocol::target::Target;
use crate::relay::SCRATCH_SIZE;
use crate::relay::memory_budget::{MemoryBudget, RESERVE, ShortageActions};
use crate::relay::pipe_pool::PipePool;
use crate::session::context::{DaemonRequest, Key, SessionContext, TurnResult};
use crate::session::traces::Traces;
use crate::session::{
    AcceptError, EndedConnections, KeptEnd, KeptState, Pid, PidSource, PluginPort, SendFailures, Session, Stage,
    WaitingArrival, not_served, notifier::recipient,
};
use crate::testing::choices::Choices;
use crate::testing::network::{ConnectPlan, SimNetwork, SimPeer, connection};
use crate::testing::wire::FaultProfile;
use crate::websocket::handshake::Refusal;

/// Tokens of remotes' sockets are beyond those of plugins'.
pub(super) const REMOTE: usize = 1 << 20;
/// The address of all plugins.
const PLUGIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
/// Turns of a session in one round before that counts as an endless loop.
const MAX_TURNS: usize = 20_000;
/// A message that is read whole, with its frame's header and what a layer puts around it.
const MESSAGE: usize = 70_000;

pub(crate) type SimSession = Session<SimNetwork>;

pub(crate) struct Slot {
    pub session: Box<SimSession>,
    pub conversation: usize,
    queued: bool,
}

impl Slot {
    pub(super) fn new(session: SimSession, conversation: usize) -> Self {
        Self { session: Box::new(session), conversation, queued: false }
    }
}

pub(crate) struct World {
    pub random: Choices,
    pub now: Instant,
    pub config: Config,
    pub network: SimNetwork,
    pub own: OwnServices,
    scratch: Vec<u8>,
    pub budget: MemoryBudget,
    pipes: PipePool,
    pub resolver: SimResolver,
    pub handshakes: SimHandshakes,
    entropy: SimRandom,
    pub schedule: Schedule,
    pub ended: EndedConnections,
    pub slots: BTreeMap<Key, Slot>,
    queue: VecDeque<Key>,
    next_key: Key,
    pids: PidSource,
    kept: HashMap<Box<[u8]>, Key>,
    /// The port on which plugins listen.
    pub port: Option<PluginPort>,
    pub conversations: Vec<Conversation>,
    /// Notifications that are with Luup.
    pub jobs: Vec<NotifyJob>,
    /// What has occurred.
    pub seen: BTreeSet<String>,
    /// Luup answers with errors now and then.
    pub(super) luup_fails: bool,
    send_failures: SendFailures,
    traces: Traces,
    /// Connections that sessions are making, and the conversations that they are of.
    pub pending: Vec<(usize, SimPeer, ConnectPlan)>,
    /// Where sessions have begun to connect to, in order.
    pub begun: Vec<SocketAddr>,
    /// Queries of the requests that Luup has answered as it should, in order.
    pub delivered: Vec<String>,
}

impl World {
    /// A world that follows from `seed`.
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_choices(Choices::seeded(seed), SimHandshakes::new(seed))
    }

    /// A world that the input of a fuzz target makes.
    pub(crate) fn from_input(data: &[u8]) -> Self {
        let mut choices = Choices::from_input(data);
        let seed = choices.below(256);
        Self::with_choices(choices, SimHandshakes::new(seed))
    }

    fn with_choices(mut random: Choices, mut handshakes: SimHandshakes) -> Self {
        let mut config = Config::default();
        let limits = &mut config.limits;
        limits.idle = Some(Duration::from_secs(3600));
        (limits.buffers, limits.buffer) =
            [(6000, 4096), (1 << 20, 65_536), (1 << 20, 65_536)][random.below(3) as usize];
        limits.history = [500, 4096, 65_536][random.below(3) as usize];
        handshakes.lost_every = [0, 0, 0, 4][random.below(4) as usize];
        let luup_fails = random.below(3) == 0;
        Self {
            now: Instant::now(),
            budget: MemoryBudget::new(config.limits.buffers, config.limits.buffer),
            pipes: PipePool::new(0),
            schedule: Schedule::new(config.limits.senders, config.limits.notices),
            ended: EndedConnections::default(),
            config,
            network: SimNetwork::default(),
            own: OwnServices::default(),
            scratch: vec![0; SCRATCH_SIZE],
            resolver: SimResolver::default(),
            handshakes,
            entropy: SimRandom::default(),
            slots: BTreeMap::new(),
            queue: VecDeque::new(),
            next_key: 1,
            pids: PidSource::default(),
            kept: HashMap::new(),
            port: None,
            conversations: Vec::new(),
            jobs: Vec::new(),
            seen: BTreeSet::new(),
            luup_fails,
            send_failures: SendFailures::default(),
            traces: Traces::default(),
            pending: Vec::new(),
            begun: Vec::new(),
            delivered: Vec::new(),
            random,
        }
    }

    pub(crate) fn pick(&mut self, below: usize) -> usize {
        self.random.below(below as u64) as usize
    }

    /// An amount of bytes that is small as a rule.
    pub(crate) fn amount(&mut self) -> usize {
        let limit = [3, 40, 600, 9000, 90_000][self.pick(5)];
        1 + self.pick(limit)
    }

    /// A conversation more, and what names and addresses lead to.
    pub(crate) fn add_conversation(&mut self) {
        let index = self.conversations.len();
        let other = (index > 0 && self.pick(3) == 0)
            .then(|| self.conversations[0].keep.map(|_| self.conversations[0].pid.clone()))
            .flatten();
        if other.is_some() {
            self.conversations[0].shares_pid = true;
        }
        let mut conversation = Conversation::new(index, other, &mut self.random);
        if conversation.shares_pid {
            conversation.keep.get_or_insert(Duration::from_secs(60));
        }
        self.conversations.push(conversation);
        let address = |last: u8| std::net::SocketAddr::from(([192, 0, 2, last], 0));
        for name in ["tls.test", "moved.test", "slow.test"] {
            let delay = match (name, self.pick(4)) {
                ("slow.test", _) => Delay::Forever,
                (_, 0) => Delay::Rounds(3),
                (_, _) => Delay::None,
            };
            let count = 1 + self.pick(3) as u8;
            let addresses = (1..=count).rev().map(address).collect();
            self.resolver.answers.entry(name.into()).or_insert((Ok(addresses), delay));
        }
        let port = index as u16;
        let plans = [
            ConnectPlan::Immediate,
            ConnectPlan::Later,
            ConnectPlan::Later,
            ConnectPlan::Refused,
            ConnectPlan::Never,
            ConnectPlan::Unreachable,
        ];
        for last in 1..=3 {
            for base in [8000, 9000] {
                let plan =
                    if last == 1 { plans[[0, 1, 2, 0, 1, 2, 0, 1, 3, 4][self.pick(10)]] } else { plans[self.pick(6)] };
                let to = std::net::SocketAddr::from(([192, 0, 2, last], base + port));
                self.network.plans.insert(to, plan);
            }
        }
    }

    pub(super) fn new_key(&mut self) -> Key {
        self.next_key += 1;
        self.next_key - 1
    }

    pub(super) fn new_pid(&mut self) -> Pid {
        self.pids.next(SystemTime::UNIX_EPOCH, false)
    }

    /// The plugin of a conversation connects.
    pub(crate) fn connect_plugin(&mut self, index: usize) {
        let room = [200 + self.pick(3000), self.pick(60)][usize::from(self.pick(4) == 0)];
        let eintr_every = [0, 7][self.pick(2)];
        let (stream, peer) = connection(FaultProfile { eintr_every, ..FaultProfile::default() }, room);
        let key = self.new_key();
        stream.register(Token(key));
        let pid = self.new_pid();
        let address = SocketAddr::new(PLUGIN, 40_000);
        self.budget.add_session(key);
        let session = self.with_context(key, |cx| Session::greet(pid, stream, address, cx));
        self.slots.insert(key, Slot::new(session, index));
        self.conversations[index].connect(peer, &mut self.random);
        self.enqueue(key);
    }

    /// Calls `work` with the context of the session of `key`.
    pub(crate) fn with_context<T>(
        &mut self,
        key: Key,
        work: impl FnOnce(&mut SessionContext<'_, SimNetwork>) -> T,
    ) -> T {
        // All plugins come from there.
        let client = ClientKey::of(PLUGIN);
        self.budget.begin_turn(key, client, self.now);
        work(&mut SessionContext {
            now: self.now,
            key,
            client,
            remote_token: Token(key + REMOTE),
            network: &mut self.network,
            config: &self.config,
            own: &self.own,
            scratch: &mut self.scratch,
            budget: &mut self.budget,
            pipes: &mut self.pipes,
            resolver: &mut self.resolver,
            handshakes: &mut self.handshakes,
            random: &mut self.entropy,
            schedule: &mut self.schedule,
            ended: &mut self.ended,
            send_failures: &mut self.send_failures,
            traces: &mut self.traces,
        })
    }

    pub(crate) fn with_session<T>(
        &mut self,
        key: Key,
        work: impl FnOnce(&mut SimSession, &mut SessionContext<'_, SimNetwork>) -> T,
    ) -> Option<T> {
        let mut slot = self.slots.remove(&key)?;
        let result = self.with_context(key, |cx| work(&mut slot.session, cx));
        self.slots.insert(key, slot);
        Some(result)
    }

    pub(crate) fn enqueue(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(&key)
            && !std::mem::replace(&mut slot.queued, true)
        {
            self.queue.push_back(key);
        }
    }

    /// Gives new connections of sessions to their remotes.
    fn take_new_connections(&mut self) {
        for (to, peer) in std::mem::take(&mut self.network.begun) {
            let index = usize::from(to.port() % 1000);
            let plan = self.network.plans.get(&to).copied().unwrap_or(ConnectPlan::Never);
            self.begun.push(to);
            self.pending.push((index, peer, plan));
        }
        for (to, mailbox) in std::mem::take(&mut self.network.opened) {
            let index = usize::from(to.port() % 1000);
            mailbox.make_room(3);
            self.conversations[index].remote.mailbox = Some(mailbox);
        }
    }

    /// Connections that are being made stand now, if `all`, or those that stand at once. The first of a conversation's is
    /// its remote's.
    pub(crate) fn finish_connecting(&mut self, all: bool) {
        for (index, peer, plan) in std::mem::take(&mut self.pending) {
            let stands = plan == ConnectPlan::Immediate || (plan == ConnectPlan::Later && all);
            if peer.is_dropped() {
                continue;
            }
            if !stands {
                self.pending.push((index, peer, plan));
                continue;
            }
            peer.finish_connecting(true);
            let remote = &mut self.conversations[index].remote;
            let taken = remote.peer.as_ref().is_some_and(|peer| !peer.is_dropped());
            if taken {
                // The session drops one of the two.
                self.pending.push((index, peer, plan));
            } else {
                remote.accept(peer);
            }
        }
    }

    /// Delivers every event, and results of other threads that are due.
    pub(crate) fn deliver(&mut self) {
        for (key, (host, answer)) in self.resolver.take_due() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.session.handle_resolved(&host, answer);
                self.enqueue(key);
            }
        }
        for (key, step) in self.handshakes.take_due() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.session.handle_tls_step(step);
                self.enqueue(key);
            }
        }
        let mut events = Vec::new();
        for conversation in &self.conversations {
            let plugins = conversation.connections.iter().map(|connection| &connection.peer);
            let remotes = conversation.remote.peer.iter();
            events.extend(plugins.chain(remotes).filter_map(SimPeer::take_event));
            events.extend(conversation.remote.mailbox.iter().filter_map(|mailbox| mailbox.take_event()));
        }
        events.extend(self.pending.iter().filter_map(|(_, peer, _)| peer.take_event()));
        for (Token(token), event) in events {
            self.handle_event(token, event);
        }
    }

    pub(super) fn handle_event(&mut self, token: usize, event: Readiness) {
        let key = token % REMOTE;
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if token < REMOTE {
            slot.session.handle_plugin_event(event);
        } else {
            slot.session.handle_remote_event(event);
        }
        self.enqueue(key);
    }

    /// Gives turns until no session wants one, and lets timers go off.
    pub(crate) fn run(&mut self) {
        let due: Vec<Key> = self.slots.keys().copied().filter(|&key| self.is_late(key)).collect();
        for key in due {
            self.enqueue(key);
        }
        let mut turns = 0;
        while let Some(key) = self.queue.pop_front() {
            turns += 1;
            assert!(turns < MAX_TURNS, "turns without end");
            self.run_session(key);
            self.note_writes();
        }
        self.handle_shortage();
        self.take_new_connections();
        self.send_notifications();
    }

    /// As the daemon does it.
    fn handle_shortage(&mut self) {
        let ShortageActions { end, wake } = self.budget.poll_shortage(self.now);
        for &key in &end {
            self.seen.insert("ended for memory".into());
            let session = &self.slots[&key].session;
            assert!(session.held() - session.held_kinds().stream > RESERVE, "a session ends for bytes of a stream");
            let conversation = self.slots[&key].conversation;
            self.conversations[conversation].disturbed = true;
            self.with_session(key, Session::end_for_memory);
        }
        for key in end.into_iter().chain(wake) {
            self.enqueue(key);
        }
        while let Some(key) = self.queue.pop_front() {
            self.run_session(key);
            self.note_writes();
        }
    }

    fn is_late(&self, key: Key) -> bool {
        let deadline = self.slots.get(&key).and_then(|slot| slot.session.deadline(&self.config));
        deadline.is_some_and(|due| due <= self.now)
    }

    fn turn(&mut self, key: Key) -> TurnResult {
        self.with_session(key, Session::turn).unwrap_or(TurnResult::Closed)
    }

    /// As the daemon does it.
    fn run_session(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.queued = false;
        let mut result = self.turn(key);
        if result == TurnResult::Wait && self.is_late(key) {
            self.with_session(key, |session, _| session.assume_readable());
            result = self.turn(key);
        }
        // Two limits that pass at once take two timers.
        for _ in 0..2 {
            if result == TurnResult::Wait && self.is_late(key) {
                self.with_session(key, |session, cx| session.handle_timeout(cx));
                result = self.turn(key);
            }
        }
        assert!(result != TurnResult::Wait || !self.is_late(key), "a deadline lies in the past");
        self.note_stage(key);
        match result {
            TurnResult::Wait => {}
            TurnResult::Again => self.enqueue(key),
            TurnResult::Request(request) => {
                self.perform(key, request);
                self.enqueue(key);
            }
            TurnResult::Closed => self.remove(key),
        }
    }

    fn note_stage(&mut self, key: Key) {
        let Some(slot) = self.slots.get(&key) else { return };
        let name = match &slot.session.stage {
            Stage::Setup(_) => "setup",
            Stage::Opening => "opening",
            Stage::Watching(_) => "watching",
            Stage::Checking(_) => "checking",
            Stage::Listening(_) => "listening",
            Stage::Arriving(_) => "arriving",
            Stage::Claiming(_) => "claiming",
            Stage::Connecting(_) => "connecting",
            Stage::Relaying(_) => "relaying",
            Stage::Healing(_) => "healing",
            Stage::UnreadTail(_) => "unread tail",
            Stage::Draining(_) => "draining",
            Stage::Closed => "closed",
        };
        self.seen.insert(format!("stage {name}"));
        if slot.session.kept_state() == KeptState::Parked {
            self.seen.insert("parked".into());
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(slot) = self.slots.remove(&key) else { return };
        assert_eq!(slot.session.held(), 0, "a session that is over holds memory");
        if slot.session.listen_settings().is_some() {
            self.remove_owner(key);
        }
        if let Some(port) = &mut self.port {
            port.remove_waiting(key);
        }
        self.budget.remove_session(key);
        if let Some(pid) = slot.session.kept_pid()
            && self.kept.get(pid) == Some(&key)
        {
            self.kept.remove(pid);
        }
        assert!(!self.resolver.is_asked_by(key) && !self.handshakes.is_asked_by(key), "a thread works for nothing");
    }

    fn find_kept(&self, pid: &[u8]) -> Option<Key> {
        let key = *self.kept.get(pid)?;
        let slot = self.slots.get(&key)?;
        (slot.session.kept_state() != KeptState::Over).then_some(key)
    }

    fn reply(&mut self, key: Key, bytes: &[u8]) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.session.reply(bytes);
        }
    }

    /// As the daemon does it.
    fn perform(&mut self, key: Key, request: DaemonRequest) {
        match request {
            DaemonRequest::Kept(KeptRequest::Claim) => self.claim(key),
            DaemonRequest::Kept(KeptRequest::Attach { pid, seen, target }) => {
                match self.attach(key, &pid, seen, target.as_ref()) {
                    Ok(()) => drop(self.seen.insert("attached".into())),
                    Err(reason) => {
                        self.seen.insert(format!("ATCH {reason}"));
                        self.reply(key, &reply::failed("ATCH", reason));
                    }
                }
            }
            DaemonRequest::Kept(KeptRequest::Drop { pid }) => {
                let answer = match self.find_kept(&pid) {
                    Some(kept) => {
                        self.with_session(kept, |session, cx| session.end_kept(KeptEnd::Dropped, cx));
                        self.enqueue(kept);
                        reply::ok("DROP")
                    }
                    None => reply::failed("DROP", reply::NO_SUCH_PID),
                };
                self.reply(key, &answer);
            }
            DaemonRequest::Stat(_) => {
                for slot in self.slots.values() {
                    slot.session.snapshot(&self.schedule, self.now);
                }
                self.reply(key, b"a table\n");
            }
            DaemonRequest::StatusPage(_) | DaemonRequest::StatusUpdate => {
                panic!("no client of the status port is simulated")
            }
            DaemonRequest::Listen => {
                if let Err(why) = self.listen(key) {
                    self.with_session(key, |session, cx| session.handle_not_listening(why, cx));
                }
            }
            DaemonRequest::Arrived => {
                if let Err(refusal) = self.announce(key) {
                    self.refuse_arrival(key, refusal);
                }
            }
            DaemonRequest::Arrival(ArrivalRequest::Accept { id, options }) => match self.accept(key, &id, &options) {
                Ok(()) => drop(self.seen.insert("accepted".into())),
                Err(error) => drop(self.with_session(key, |session, cx| session.handle_not_accepted(&error, cx))),
            },
            DaemonRequest::Arrival(ArrivalRequest::Deny { id, status, reason }) => {
                let arrival = self.port.as_ref().and_then(|port| port.find_waiting(&id));
                match (arrival.filter(|&(owner, _)| owner == key), status) {
                    (Some((_, arrival)), Some(status)) => {
                        self.refuse_arrival(arrival, Refusal::with_phrase(status, &reason));
                        self.reply(key, &reply::denied(&id));
                    }
                    _ => self.reply(key, b"ERR DENY No such id\n"),
                }
            }
            DaemonRequest::Stop | DaemonRequest::Trace(_) => panic!("no plugin says STOP or TRAC"),
        }
    }

    /// As the daemon does it. There is one port.
    fn listen(&mut self, key: Key) -> Result<(), &'static str> {
        let session = &self.slots[&key].session;
        let address = session.address();
        let settings = session.listen_settings().expect("LSTN has settings");
        let slots = &self.slots;
        let port = self.port.get_or_insert_with(|| PluginPort::new(settings));
        if !port.fits(settings) {
            return Err("address already in use");
        }
        let may_replace = |older| slots[&older].session.address() == address;
        if let Some(older) = port.add(key, settings, may_replace)? {
            self.seen.insert("taken over".into());
            self.remove_owner(older);
            self.with_session(older, Session::end_listening);
            self.enqueue(older);
        }
        self.with_session(key, |session, cx| session.listen(cx.now));
        Ok(())
    }

    fn remove_owner(&mut self, key: Key) {
        let waited = self.port.as_mut().and_then(|port| port.remove(key)).unwrap_or_default();
        waited.into_iter().for_each(|arrival| self.refuse_arrival(arrival, not_served()));
        self.port = self.port.take().filter(|port| !port.owners().is_empty());
    }

    fn announce(&mut self, key: Key) -> Result<(), Refusal> {
        let arrival = &self.slots[&key].session;
        let waiting = WaitingArrival { pid: arrival.pid(), key, client: arrival.client() };
        let owner = self.port.as_ref().ok_or_else(not_served)?.owner(arrival.path(), waiting.client)?;
        let listening = self.slots.get(&owner).and_then(|slot| slot.session.listen_settings());
        let introduction = arrival.introduce(listening)?;
        if self.with_session(owner, |session, cx| session.announce(&introduction.line, cx)) != Some(true) {
            return Err(not_served());
        }
        self.enqueue(owner);
        if let Some(port) = &mut self.port {
            port.add_waiting(owner, waiting);
        }
        self.with_session(key, |session, cx| session.handle_announced(introduction, cx.now));
        Ok(())
    }

    fn refuse_arrival(&mut self, arrival: Key, refusal: Refusal) {
        if let Some(port) = &mut self.port {
            port.remove_waiting(arrival);
        }
        let now = self.now;
        self.with_session(arrival, |session, _| session.refuse_arrival(refusal, now));
        self.enqueue(arrival);
    }

    fn accept(&mut self, key: Key, id: &[u8], options: &[u8]) -> Result<(), AcceptError> {
        let port = self.port.as_ref().ok_or(AcceptError::NoSuchId)?;
        let (owner, arrival) = port.find_waiting(id).ok_or(AcceptError::NoSuchId)?;
        let session = &self.slots[&key].session;
        // It may have left in an ACPT before, and have had no turn since.
        let (_, protocol) = self.slots[&arrival].session.port().ok_or(AcceptError::NoSuchId)?;
        if self.slots[&owner].session.address() != session.address() {
            return Err(AcceptError::NoSuchId);
        }
        let parameters = session.parameters_for(protocol, options).map_err(AcceptError::Option)?;
        let checked = self.with_session(arrival, |session, cx| session.check_acceptance(&parameters, cx));
        self.enqueue(arrival);
        checked.ok_or(AcceptError::NoSuchId)??;
        if let Some(pid) = parameters.kept_pid() {
            self.claim_pid(pid.into(), arrival).map_err(AcceptError::Pid)?;
        }
        if let Some(port) = &mut self.port {
            port.remove_waiting(arrival);
        }
        let connection = self.slots.get_mut(&key).and_then(|slot| slot.session.take_connection());
        let connection = connection.expect("a session in setup mode has a connection");
        let accepted = self.with_session(arrival, |session, cx| session.accept(connection, parameters, cx));
        assert!(accepted.is_some_and(|accepted| accepted.is_ok()));
        Ok(())
    }

    /// As the daemon does it.
    fn claim(&mut self, key: Key) {
        let Some(slot) = self.slots.get(&key) else { return };
        let pid: Box<[u8]> = slot.session.kept_pid().unwrap_or_default().into();
        let claim = self.claim_pid(pid, key);
        self.with_session(key, |session, cx| session.handle_claimed(claim, cx));
    }

    fn claim_pid(&mut self, pid: Box<[u8]>, kept: Key) -> Result<(), &'static str> {
        if let Some(older) = self.find_kept(&pid) {
            let told = |session: &SimSession| recipient(&session.parameters, session.pid, &session.peer);
            let told = self.slots.get(&older).and_then(|slot| told(&slot.session));
            let released = self.with_session(older, Session::release_pid);
            self.enqueue(older);
            if let (Some(true), Some(told)) = (released, told) {
                self.check_silenced(&told);
            }
            if released == Some(false) {
                return Err(reply::PID_IN_USE);
            }
        }
        self.kept.insert(pid, kept);
        Ok(())
    }

    /// Checks that no request is due for a session whose pid another plugin has taken a moment ago. A connection that was not
    /// kept may have ended before with the same pid, and its closing notice is still due.
    fn check_silenced(&mut self, replaced: &Recipient) {
        let before = self.jobs.len();
        self.send_notifications();
        let is_replaced = |job: &NotifyJob| job.secret == replaced.secret && job.query.starts_with(&*replaced.query);
        assert!(!self.jobs[before..].iter().any(is_replaced), "a replaced session notifies the plugin of another");
    }

    /// As the daemon does it.
    fn attach(&mut self, key: Key, pid: &[u8], seen: Option<u64>, target: Option<&Target>) -> Result<(), &'static str> {
        let kept = self.find_kept(pid).ok_or(reply::NO_SUCH_PID)?;
        let resumed = self.with_session(kept, |session, cx| session.resume(seen, target, cx));
        self.enqueue(kept);
        resumed.ok_or(reply::NO_SUCH_PID)??;
        let connection = self.slots.get_mut(&key).and_then(|slot| slot.session.take_connection());
        let Some(connection) = connection else { return Ok(()) };
        let (peer, registered) =
            self.with_session(kept, |session, cx| session.attach(connection, cx)).expect("the kept session is there");
        assert!(registered.is_ok());
        let conversation = self.slots[&kept].conversation;
        self.conversations[conversation].attaches += 1;
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.session.set_peer(peer);
        }
        Ok(())
    }

    /// Notes what was written to plugins, and what came for those that are away.
    fn note_writes(&mut self) {
        for conversation in &mut self.conversations {
            if conversation.check_written() {
                conversation.unheard = conversation.notifies;
            }
        }
        for slot in self.slots.values() {
            let conversation = &mut self.conversations[slot.conversation];
            let Some(plugin) = slot.session.plugin.kept() else { continue };
            let Some(since) = plugin.parked_since() else {
                conversation.parked = None;
                continue;
            };
            let waiting = plugin.waiting();
            conversation.parked = match conversation.parked {
                Some((before, had, announced)) if before == since => {
                    let arrived = waiting > had;
                    conversation.unheard |= arrived && !announced && conversation.notifies;
                    Some((since, waiting, announced || arrived))
                }
                // What waits by now may have come in the turn that parked it, and then it was announced.
                _ => Some((since, waiting, waiting > 0)),
            };
        }
    }

    /// Hands requests that are due to Luup.
    pub(crate) fn send_notifications(&mut self) {
        while let Some(job) = self.schedule.poll_job(self.now) {
            let tells = !job.query.ends_with("&Event=connected");
            for conversation in &mut self.conversations {
                if names(&job, &conversation.pid) && tells {
                    conversation.unheard = false;
                }
            }
            self.jobs.push(job);
        }
    }

    /// Luup answers a request.
    pub(crate) fn answer_notification(&mut self, calm: bool) {
        if self.jobs.is_empty() {
            return;
        }
        let at = self.pick(self.jobs.len());
        let job = self.jobs.swap_remove(at);
        let outcome = match self.pick(6) {
            0 if self.luup_fails && !calm => NotifyOutcome::Unreachable,
            1 if self.luup_fails && !calm => NotifyOutcome::TimedOut,
            2 if self.luup_fails && !calm => NotifyOutcome::ServerError(503),
            _ => NotifyOutcome::Delivered,
        };
        let delivered = outcome == NotifyOutcome::Delivered;
        for conversation in self.conversations.iter_mut().filter(|conversation| names(&job, &conversation.pid)) {
            conversation.unheard |= !delivered && !job.query.ends_with("&Event=connected");
            conversation.closing_notifications += usize::from(delivered && job.query.ends_with("&Event=closed"));
        }
        self.schedule.handle_outcome(job.id, outcome, self.now);
        if delivered {
            self.delivered.push(job.query);
        }
        self.send_notifications();
    }

    /// What holds whenever no session wants a turn.
    pub(crate) fn check(&mut self) {
        assert!(self.queue.is_empty());
        for conversation in &mut self.conversations {
            conversation.remote.process(self.now);
            conversation.check_heard();
        }
        let held: usize = self.slots.values().map(|slot| slot.session.held()).sum();
        assert_eq!(self.budget.held(), held, "what sessions hold is what is counted");
        let spare = |slot: &Slot| match self.conversations[slot.conversation].remote.kind {
            // Each direction, a kept plugin's buffer, and what was sent behind CONN.
            RemoteKind::Tcp => 3 * RESERVE + 400,
            _ => 8 * RESERVE + SCRATCH_SIZE + MESSAGE,
        };
        let spare: usize = self.slots.values().map(spare).sum();
        assert!(held <= self.config.limits.buffers + spare, "{held} bytes are held");
        assert!(
            self.budget.history() <= self.config.limits.buffers / 2 + spare,
            "{} bytes are kept",
            self.budget.history()
        );
        for slot in self.slots.values() {
            if let Some(due) = slot.session.deadline(&self.config) {
                assert!(due > self.now, "a deadline lies in the past: {:?}", slot.session.stage);
            }
        }
    }

    fn is_memory_ample(&self) -> bool {
        self.config.limits.buffers > 10_000
    }

    /// What moves bytes in a session: all counts that a turn may change. Nothing where memory is short: a kept plugin's
    /// buffer may grow there whenever other sessions have given memory back.
    fn moved(&self) -> Vec<(usize, usize, bool)> {
        if !self.is_memory_ample() {
            return Vec::new();
        }
        let of = |peer: &SimPeer| (peer.wire().read, peer.wire().written(), peer.wire().is_told());
        let conversations = self.conversations.iter().flat_map(|conversation| {
            let plugins = conversation.connections.iter().map(|connection| &connection.peer);
            let remotes = conversation.remote.peer.iter();
            let datagrams = conversation.remote.mailbox.iter().map(|mailbox| (mailbox.unread(), mailbox.room(), true));
            plugins.chain(remotes).map(of).chain(datagrams).collect::<Vec<_>>()
        });
        conversations.collect()
    }

    /// Checks that nothing more can move: every event was delivered, and another turn does nothing, whether or not it
    /// looks at the sockets. A connection with room takes what the other side has sent.
    pub(crate) fn check_rest(&mut self) {
        let before = self.moved();
        let keys: Vec<Key> = self.slots.keys().copied().collect();
        for looks in [false, true] {
            for &key in &keys {
                if looks {
                    self.with_session(key, |session, _| session.assume_readable());
                }
                let mut result = self.turn(key);
                while result == TurnResult::Again && !self.is_memory_ample() {
                    result = self.turn(key);
                }
                assert!(
                    matches!(result, TurnResult::Wait),
                    "{result:?} without an event (looks: {looks}): {:?}",
                    self.slots[&key].session.stage
                );
                assert_eq!(self.moved(), before, "bytes move without an event: {:?}", self.slots[&key].session.stage);
            }
        }
        for (&key, slot) in &self.slots {
            let Stage::Relaying(relaying) = &slot.session.stage else { continue };
            if self.budget.is_waiting(key) {
                continue;
            }
            let conversation = &self.conversations[slot.conversation];
            if let (Some(mailbox), true) =
                (&conversation.remote.mailbox, slot.session.kept_state() == KeptState::Parked)
            {
                assert_eq!(mailbox.unread(), 0, "datagrams wait for a parked plugin's buffer, which drops the oldest");
            }
            let Some(connection) = conversation.connections.last() else { continue };
            let attached = connection.phase == PluginPhase::Echo && !connection.gone && !connection.peer.is_dropped();
            let (plugin, remote) = (connection.peer.wire(), conversation.remote.peer.as_ref());
            let disturbed = conversation.disturbed || conversation.shares_pid;
            let disturbed = disturbed || plugin.is_closed() || plugin.is_broken() || connection.ended;
            if !attached || disturbed || conversation.timed || !relaying.is_connect_reply_sent() {
                continue;
            }
            if let Some(kept) = slot.session.plugin.kept() {
                assert!(plugin.room == 0 || !kept.is_behind(), "bytes wait for a plugin that has room");
            }
            let Some(remote) = remote else { continue };
            let remote = remote.wire();
            if conversation.remote.ended || conversation.remote.heard_end || remote.is_closed() || remote.is_broken() {
                continue;
            }
            assert!(plugin.room == 0 || remote.unread() == 0, "the remote's bytes wait for a plugin that has room");
            assert!(remote.room == 0 || plugin.unread() == 0, "the plugin's bytes wait for a remote that has room");
            if conversation.remote.kind == RemoteKind::Tcp {
                assert!(
                    plugin.room == 0 || remote.room == 0 || relaying.relay().held() == 0,
                    "bytes are held for peers with room"
                );
            }
        }
    }
}

fn names(job: &NotifyJob, pid: &str) -> bool {
    job.query.split('&').any(|part| part.strip_prefix("Pid=") == Some(pid))
}
