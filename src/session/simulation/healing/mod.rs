//! A seeded simulation of HEAL and HELO: remotes that restart, vanish, refuse, resolve elsewhere or have another certificate,
//! and a plugin that talks meanwhile, and reloads if it is kept.
//!
//! Each loss is announced once, before anything of the next connection, and so is each return. There is one attempt for
//! each delay, and delays grow as documented. A remote hears HELO first, and then what the plugin has said: in order, once,
//! and from the loss on all of it. The plugin sees whole messages only. Its connection ends for no end of a remote.

mod accepted;
mod attempts;
mod reader;
mod speech;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;

use self::accepted::Accepted;
use self::attempts::Attempts;
use self::reader::{Known, Reader};
use self::speech::Speech;
use super::conversation::Conversation;
use super::remote::{Behaviour, Remote, RemoteKind};
use super::services::{Delay, TlsWorld};
use super::world::{REMOTE, Slot, World};
use crate::buffer_pool;
use crate::protocol::framing::Framing;
use crate::session::{KeptEnd, Key, Session, Stage};
use crate::testing::network::{ConnectPlan, SimPeer, connection};
use crate::testing::wire::FaultProfile;

const PID: &str = "secret-of-healing";
const NAME: &str = "tls.test";
/// The ports of the target, and of where it redirects to. Their last digits name the conversation.
const PORTS: [u16; 2] = [8000, 9000];
/// Connections that an attempt may begin: one for each of two addresses, or over WebSocket, for each of them and of four
/// redirects.
const MOST: [usize; 2] = [2, 10];

/// The plugin's connection.
struct Plugin {
    peer: SimPeer,
    /// What it has yet to send.
    out: VecDeque<u8>,
    /// Bytes of commands that it sends first.
    commands: usize,
    /// Where in what the plugin says what it sends begins.
    start: usize,
    /// How much of what the wire has received was read.
    read: usize,
    /// For how much of that it has made room.
    granted: usize,
    /// It has read `OK`.
    is_echo: bool,
    /// It will neither read nor send again.
    gone: bool,
}

struct Scene {
    world: World,
    key: Key,
    kind: RemoteKind,
    framing: Framing,
    keep: Option<Duration>,
    is_literal: bool,
    events: bool,
    /// Luup answers everything at once.
    prompt: bool,
    pending: Vec<(SimPeer, ConnectPlan)>,
    plugin: Plugin,
    before: Vec<Plugin>,
    accepted: Vec<Accepted>,
    /// What the next connection meets.
    behaviour: Behaviour,
    speech: Speech,
    reader: Reader,
    attempts: Attempts,
    /// The session may end, and why.
    may_end: Option<&'static str>,
    /// The plugin has read `OK CONN`.
    connected: bool,
    parked_since: Option<Instant>,
}

fn address(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 0).into()
}

impl Scene {
    fn new(mut world: World) -> Self {
        // Slots name a conversation, of which nothing else is used.
        let mut conversation = Conversation::new(0, None, &mut world.random);
        (conversation.notifies, conversation.pid) = (false, "none".into());
        world.conversations.push(conversation);
        // Plugins may read nothing for long here.
        (world.config.limits.idle, world.config.limits.stall) = (None, Duration::from_secs(24 * 3600));
        if world.pick(4) > 0 {
            (world.config.limits.buffers, world.config.limits.buffer) = (1 << 20, 65_536);
            world.budget.set_limits(1 << 20, 65_536);
        }
        let kinds = [RemoteKind::Tcp, RemoteKind::Ws, RemoteKind::Ws, RemoteKind::Ws, RemoteKind::Tls, RemoteKind::Wss];
        let kind = kinds[world.pick(6)];
        let framing = match kind.is_websocket() {
            true => [Framing::Raw, Framing::Line, Framing::Mesg, Framing::Mesg][world.pick(4)],
            false => Framing::Raw,
        };
        let keep = (world.pick(2) == 0).then(|| Duration::from_secs([60, 600, 600][world.pick(3)]));
        let heal = Duration::from_secs([1, 5, 60, 3600][world.pick(4)]);
        let openings: Vec<Vec<u8>> = (0..world.pick(4))
            .map(|number| {
                let length = [1, 20, 1300][world.pick(3)];
                let mut text = format!("hello {number} ").into_bytes();
                text.resize(text.len() + length, b'+');
                text
            })
            .collect();
        let is_literal = world.pick(2) == 0;
        let events = world.pick(2) == 0;
        let prompt = !world.luup_fails;
        let host = if is_literal { "192.0.2.1" } else { NAME };
        let mut line = match kind {
            RemoteKind::Ws => format!("CONN ws://{host}:{}/", PORTS[0]),
            RemoteKind::Wss => format!("CONN wss://{host}:{} PINS={}", PORTS[0], TlsWorld::get().pin),
            RemoteKind::Tls => format!("CONN {host}:{} PRTO=tls PINS={}", PORTS[0], TlsWorld::get().pin),
            _ => format!("CONN {host}:{}", PORTS[0]),
        };
        line += &format!(" HEAL={} NTFY=5/urn:x/Act/{PID}", heal.as_secs());
        for text in &openings {
            line += &format!(" HELO={}", String::from_utf8_lossy(text).replace(' ', "%20"));
        }
        if kind.is_websocket() {
            line += &format!(" FRAM={}", framing.name());
            line += ["", "", " PNGI=20"][world.pick(3)];
        }
        if let Some(keep) = keep {
            line += &format!(" KEEP={}", keep.as_secs());
        }
        if events {
            line += " EVNT=on";
        }
        line += ["", "", " RTIM=30000", " CTIM=1000", " BLKS=7"][world.pick(5)];
        line.push('\n');
        world
            .network
            .plans
            .extend((1..=3).flat_map(|last| PORTS.map(|port| (with_port(last, port), ConnectPlan::Immediate))));
        for name in [NAME, "moved.test"] {
            world.resolver.answers.insert(name.into(), (Ok(vec![address(1)]), Delay::None));
        }
        world.budget.add_session(0);
        let (_, unused) = connection(FaultProfile::default(), 0);
        let most = if is_literal && !kind.is_websocket() { 1 } else { MOST[usize::from(kind.is_websocket())] };
        let attempts = Attempts::new(heal, most, world.now);
        let mut scene = Self {
            key: 0,
            kind,
            framing,
            keep,
            is_literal,
            events,
            prompt,
            pending: Vec::new(),
            plugin: Plugin {
                peer: unused,
                out: VecDeque::new(),
                commands: 0,
                start: 0,
                read: 0,
                granted: 0,
                is_echo: false,
                gone: true,
            },
            before: Vec::new(),
            accepted: Vec::new(),
            behaviour: Behaviour::Serve,
            speech: Speech::new(framing, openings),
            reader: Reader::new(framing),
            attempts,
            may_end: None,
            connected: false,
            parked_since: None,
            world,
        };
        scene.world.budget.remove_session(0);
        scene.key = scene.connect(line);
        scene
    }

    /// A plugin connects, and says `line`.
    fn connect(&mut self, line: String) -> Key {
        let room = [4000, 60][usize::from(self.world.pick(4) == 0)];
        let (stream, peer) = connection(FaultProfile::default(), room);
        let key = self.world.new_key();
        stream.register(Token(key));
        let pid = self.world.new_pid();
        let address: SocketAddr = "10.0.0.5:40000".parse().expect("an address");
        self.world.budget.add_session(key);
        let session = self.world.with_context(key, |cx| Session::greet(pid, stream, address, cx));
        self.world.slots.insert(key, Slot::new(session, 0));
        self.world.enqueue(key);
        let start = self.speech.begin();
        let plugin = Plugin {
            peer,
            commands: line.len(),
            out: line.into_bytes().into(),
            start,
            read: 0,
            granted: 0,
            is_echo: false,
            gone: false,
        };
        self.before.push(std::mem::replace(&mut self.plugin, plugin));
        if self.world.pick(3) == 0 {
            // Behind the newline of CONN or ATCH.
            self.say();
        }
        key
    }

    /// A plugin that is kept ends or breaks its connection.
    fn leave(&mut self) {
        let breaks = self.world.pick(2) == 0;
        let mut wire = self.plugin.peer.wire_mut();
        if breaks {
            wire.break_off();
        } else {
            wire.close();
        }
        drop(wire);
        self.plugin.gone = true;
        self.plugin.out.clear();
        self.parked_since = Some(self.world.now);
    }

    /// A plugin that was kept comes back.
    fn come_back(&mut self) {
        let line = match self.reader.seen {
            Some(seen) if self.world.pick(4) > 0 => format!("ATCH {PID} SEEN={seen}\n"),
            _ => {
                self.reader.lose();
                format!("ATCH {PID}\n")
            }
        };
        self.reader.reconnect();
        self.connect(line);
    }

    fn session(&self) -> Option<&Session<crate::testing::network::SimNetwork>> {
        self.world.slots.get(&self.key).map(|slot| &*slot.session)
    }

    /// The plugin says something for the remote.
    fn say(&mut self) {
        let amount = self.world.amount();
        let bytes = self.speech.say(amount);
        self.plugin.out.extend(bytes);
    }

    /// The plugin sends up to `amount` bytes of what it has said.
    fn send(&mut self, amount: usize) {
        let amount = amount.min(self.plugin.out.len());
        if !self.plugin.gone && amount > 0 {
            let bytes: Vec<u8> = self.plugin.out.drain(..amount).collect();
            self.plugin.peer.wire_mut().send_bytes(&bytes);
        }
    }

    /// The plugin reads up to `amount` bytes.
    fn listen(&mut self, amount: usize) {
        if self.plugin.gone {
            return;
        }
        self.read_reply();
        let plugin = &mut self.plugin;
        let fresh = {
            let wire = plugin.peer.wire();
            let end =
                if plugin.is_echo { wire.received.len().min(plugin.read.saturating_add(amount)) } else { plugin.read };
            wire.received[plugin.read..end].to_vec()
        };
        plugin.read += fresh.len();
        let granted = plugin.read - std::mem::replace(&mut plugin.granted, plugin.read);
        let mut wire = plugin.peer.wire_mut();
        wire.make_room(granted);
        if wire.room == 0 {
            wire.make_room(1 + amount.min(50));
        }
        drop(wire);
        self.reader.take(&fresh, &self.accepted);
        assert!(!self.reader.is_told_end || self.excuse().is_some(), "the plugin is told the end");
    }

    /// Reads replies up to the one that begins echo mode.
    fn read_reply(&mut self) {
        while !self.plugin.is_echo && !self.plugin.gone {
            let plugin = &mut self.plugin;
            let line = {
                let wire = plugin.peer.wire();
                let rest = &wire.received[plugin.read..];
                let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return };
                plugin.read += end + 1;
                String::from_utf8_lossy(&rest[..end]).into_owned()
            };
            self.world.seen.insert(line.split(" secret").next().unwrap_or_default().to_owned());
            if line.starts_with("OK CONN") || line.starts_with("OK ATCH") {
                (plugin.is_echo, self.connected, self.parked_since) = (true, true, None);
            } else if line == "ERR ATCH Gap" {
                self.reader.lose();
                let retry = format!("ATCH {PID}\n");
                // Nothing may stand between the two commands.
                assert!(plugin.peer.wire().read >= plugin.commands);
                plugin.commands += retry.len();
                plugin.out = retry.into_bytes().into();
                // What it has said on this connection is not sent: it has to say other things.
                plugin.start = self.speech.begin();
            } else if line.starts_with("ERR") {
                plugin.gone = true;
                self.may_end.get_or_insert("refused");
            }
        }
    }

    /// The remote that stands, if one does.
    fn current(&mut self) -> Option<(usize, &mut Accepted)> {
        self.accepted.iter_mut().enumerate().next_back().filter(|(_, accepted)| accepted.stands())
    }

    /// The remote says something for the plugin.
    fn speak(&mut self) {
        let amount = self.world.amount();
        let cut = (self.world.pick(3) == 0).then(|| self.world.pick(100));
        if let Some((_, accepted)) = self.current() {
            accepted.speak(amount, cut);
        }
    }

    /// The remote ends, in one of many ways.
    fn end_remote(&mut self) {
        let (how, within_message, now) = (self.world.pick(8), self.world.pick(4) == 0, self.world.now);
        if let Some((_, accepted)) = self.current()
            && accepted.end(how, within_message, now)
        {
            self.world.seen.insert("remote ends".into());
        }
    }

    /// What the next attempts meet.
    fn change_remote(&mut self) {
        let behaviours = [
            Behaviour::Serve,
            Behaviour::Serve,
            Behaviour::Serve,
            Behaviour::Stall,
            Behaviour::Reset,
            Behaviour::Garbage,
            Behaviour::Untrusted,
            Behaviour::Forbid,
            Behaviour::Redirect,
            Behaviour::RedirectLoop,
        ];
        self.behaviour = behaviours[self.world.pick(10)];
        let plans = [
            ConnectPlan::Immediate,
            ConnectPlan::Immediate,
            ConnectPlan::Later,
            ConnectPlan::Refused,
            ConnectPlan::Never,
            ConnectPlan::Unreachable,
        ];
        for last in 1..=3 {
            for port in PORTS {
                let plan = plans[self.world.pick(6)];
                self.world.network.plans.insert(with_port(last, port), plan);
            }
        }
        let answer = match self.world.pick(8) {
            0 => (Err("host not found"), Delay::None),
            1 => (Ok(vec![address(1)]), Delay::Forever),
            2 => (Ok(vec![address(3), address(2)]), Delay::Rounds(2)),
            3 => (Ok(vec![address(2)]), Delay::None),
            _ => (Ok(vec![address(1)]), Delay::None),
        };
        self.world.resolver.answers.insert(NAME.into(), answer);
    }

    /// Everything is as it should be again.
    fn mend(&mut self) {
        self.behaviour = Behaviour::Serve;
        self.world.network.plans.values_mut().for_each(|plan| *plan = ConnectPlan::Immediate);
        self.world.resolver.answers.insert(NAME.into(), (Ok(vec![address(2)]), Delay::None));
        self.world.handshakes.lost_every = 0;
    }

    /// Time passes: to the session's next limit, or just so.
    fn pass_time(&mut self) {
        let next = self.session().and_then(|session| session.deadline(&self.world.config));
        let hop = match (self.world.pick(3), next) {
            (0, Some(next)) => next.saturating_duration_since(self.world.now).min(Duration::from_secs(600)),
            _ => Duration::from_millis([100, 900, 1300, 5000, 11_000, 40_000][self.world.pick(6)]),
        };
        self.world.now += hop;
    }

    fn happen(&mut self) {
        match self.world.pick(26) {
            0..=3 => self.speak(),
            4..=6 => self.say(),
            7..=10 => {
                let amount = self.world.amount();
                self.send(amount);
            }
            11..=13 => {
                let amount = self.world.amount();
                self.listen(amount);
            }
            14 | 15 => {
                let amount = self.world.amount();
                if let Some((_, accepted)) = self.current()
                    && let Some(peer) = &accepted.remote.peer
                {
                    peer.wire_mut().make_room(amount);
                }
            }
            16 | 17 => self.pass_time(),
            18 | 19 => self.end_remote(),
            20 => self.change_remote(),
            21 => self.mend(),
            22 => self.finish_connecting(true),
            23 => self.world.answer_notification(false),
            24 if self.keep.is_some() && self.plugin.is_echo && !self.plugin.gone => self.leave(),
            25 if self.connected && self.plugin.gone && self.may_end.is_none() => self.come_back(),
            _ => {}
        }
    }

    /// Connections that are being made stand now, if `all`, or those that stand at once.
    fn finish_connecting(&mut self, all: bool) {
        for (peer, plan) in std::mem::take(&mut self.pending) {
            if peer.is_dropped() {
                continue;
            }
            let stands = plan == ConnectPlan::Immediate || (plan == ConnectPlan::Later && all);
            let taken = self.accepted.last().and_then(|accepted| accepted.remote.peer.as_ref());
            if !stands || taken.is_some_and(|taken| !taken.is_dropped()) {
                self.pending.push((peer, plan));
                continue;
            }
            peer.finish_connecting(true);
            peer.wire_mut().make_room(400 + self.world.random.below(5000) as usize);
            // Only the first of an attempt redirects.
            let is_redirected = self.accepted.last().is_some_and(|last| last.remote.behaviour == Behaviour::Redirect);
            let behaviour = match self.behaviour {
                Behaviour::Redirect if is_redirected => Behaviour::Serve,
                behaviour => behaviour,
            };
            let mut remote = Remote::new(self.kind, behaviour, self.framing, PORTS[1]);
            remote.accept(peer);
            self.accepted.push(Accepted::new(remote, self.accepted.len(), self.framing));
        }
    }

    /// Lets everything happen that can at this moment, as far as one round goes.
    fn step(&mut self) {
        self.world.deliver();
        let mut events = Vec::new();
        let plugins = self.before.iter().chain([&self.plugin]).map(|plugin| &plugin.peer);
        let remotes = self.accepted.iter().filter_map(|accepted| accepted.remote.peer.as_ref());
        let pending = self.pending.iter().map(|(peer, _)| peer);
        events.extend(plugins.chain(remotes).chain(pending).filter_map(SimPeer::take_event));
        for (Token(token), event) in events {
            debug_assert!(token % REMOTE > 0);
            self.world.handle_event(token, event);
        }
        self.world.run();
        while self.prompt && !self.world.jobs.is_empty() {
            self.world.answer_notification(true);
        }
        self.pending.extend(std::mem::take(&mut self.world.pending).into_iter().map(|(_, peer, plan)| (peer, plan)));
        self.finish_connecting(false);
        self.watch_attempts();
        let now = self.world.now;
        self.accepted.iter_mut().for_each(|accepted| accepted.remote.process(now));
        for accepted in &mut self.accepted {
            self.speech.check_heard(accepted);
        }
        self.check();
    }

    /// Checks that each delay is as documented, and that there is one attempt for each.
    fn watch_attempts(&mut self) {
        let now = self.world.now;
        let begun = std::mem::take(&mut self.world.begun);
        self.attempts.handle_begun(begun.len(), now);
        if self.is_literal && self.behaviour != Behaviour::RedirectLoop {
            assert!(begun.iter().all(|to| to.ip() == address(1).ip()), "{begun:?}");
        }
        match self.world.slots.get(&self.key).map(|slot| &slot.session.stage) {
            Some(Stage::Healing(healing)) => {
                let (next, losses) = (healing.next_attempt(), healing.outages().losses);
                let (is_lost, waits) = self.attempts.handle_healing(next, losses, now);
                if is_lost {
                    let taken = self.plugin.peer.wire().read.saturating_sub(self.plugin.commands);
                    self.speech.read_at_loss = Some(self.plugin.start + taken);
                }
                if waits {
                    self.world.seen.insert(format!("waits {} s", self.attempts.delay.as_secs_f64()));
                }
            }
            Some(Stage::Relaying(relaying)) => {
                self.attempts.handle_relaying(Some(relaying.connected_at()), now);
                self.accepted.iter_mut().next_back().into_iter().for_each(|accepted| accepted.relayed = true);
            }
            Some(_) => self.attempts.handle_relaying(None, now),
            None => {}
        }
    }

    /// What holds whenever no session wants a turn.
    fn check(&mut self) {
        let held: usize = self.world.slots.values().map(|slot| slot.session.held()).sum();
        assert_eq!(self.world.budget.held(), held, "what sessions hold is what is counted");
        for slot in self.world.slots.values() {
            if let Some(due) = slot.session.deadline(&self.world.config) {
                assert!(due > self.world.now, "a deadline lies in the past: {:?}", slot.session.stage);
            }
        }
        self.read_reply();
        if !self.plugin.is_echo && self.plugin.peer.is_dropped() {
            // Silent in setup mode for too long.
            self.plugin.gone = true;
        }
        let is_relaying =
            self.session().is_some_and(|session| matches!(session.stage, Stage::Relaying(_) | Stage::Healing(_)));
        if self.connected && !is_relaying && self.may_end.is_none() {
            self.may_end = self.excuse();
            let ends: Vec<_> = self.world.ended.iter().map(|ended| &ended.reason).collect();
            let stage = self.session().map(|session| &session.stage);
            assert!(self.may_end.is_some(), "the session ends: {ends:?}, {stage:?}");
        }
    }

    fn is_memory_short(&self) -> bool {
        self.world.config.limits.buffers < 10_000
    }

    /// Why the session may have ended.
    fn excuse(&self) -> Option<&'static str> {
        let keep = self.parked_since.zip(self.keep);
        match () {
            () if self.world.seen.contains("ended for memory") => Some("memory"),
            () if self.is_memory_short() => Some("memory"),
            () if keep.is_some_and(|(since, keep)| self.world.now >= since + keep) => Some("KEEP is over"),
            () => self.may_end,
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            self.step();
            let plugins = self.before.iter().chain([&self.plugin]).map(|plugin| &plugin.peer);
            let remotes = self.accepted.iter().filter_map(|accepted| accepted.remote.peer.as_ref());
            let pending = self.pending.iter().map(|(peer, _)| peer);
            let mut peers = plugins.chain(remotes).chain(pending);
            if !peers.any(|peer| !peer.is_dropped() && peer.wire().has_news()) {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.session().map(|session| &session.stage));
    }

    /// All read and have room, until nothing moves any more.
    fn help_all(&mut self) {
        for _ in 0..20 {
            self.finish_connecting(true);
            self.send(usize::MAX);
            self.listen(usize::MAX);
            if !self.plugin.gone {
                self.plugin.peer.wire_mut().make_room(1 << 20);
            }
            for accepted in &self.accepted {
                if let Some(peer) = &accepted.remote.peer {
                    peer.wire_mut().make_room(1 << 20);
                }
            }
            self.come_to_rest();
        }
        self.listen(usize::MAX);
    }

    /// The remote is back, and the plugin: then the connection stands, and bytes pass both ways.
    fn settle(&mut self) {
        self.mend();
        if self.connected && self.plugin.gone && self.may_end.is_none() {
            self.come_back();
        }
        self.help_all();
        for _ in 0..60 {
            self.help_all();
            // One that is silent ends at last.
            let now = self.world.now;
            if let Some((_, accepted)) = self.current()
                && accepted.remote.behaviour != Behaviour::Serve
                && accepted.remote.behaviour != Behaviour::Redirect
            {
                accepted.over = true;
                accepted.remote.end(false, now);
                self.help_all();
            }
            // A record of TLS that is longer than the memory may wait for ever.
            if self.may_end.is_some() || !self.plugin.is_echo || self.is_memory_short() {
                return;
            }
            let healing = self.session().is_some_and(|session| matches!(session.stage, Stage::Healing(_)));
            if !healing && self.current().is_some() {
                break;
            }
            let next = self.session().and_then(|session| session.deadline(&self.world.config));
            self.world.now = next.map_or(self.world.now, |next| next.max(self.world.now));
        }
        self.say();
        self.speak();
        self.help_all();
        let losses = self.session().map_or(0, |session| {
            let snapshot = session.snapshot(&self.world.schedule, self.world.now);
            snapshot.and_then(|snapshot| snapshot.healing).map_or(0, |healing| healing.losses)
        });
        assert_eq!(losses, self.attempts.losses);
        let Some((number, accepted)) = self.accepted.iter().enumerate().next_back() else {
            panic!("the remote never comes back")
        };
        self.speech.check_complete(accepted);
        if self.framing == Framing::Raw {
            let place = (number, accepted.bytes.len());
            assert!(self.reader.places.contains(&place), "bytes for the plugin stall: {:?}", self.reader.places);
        } else {
            let all = Known::Up(Some((number, accepted.messages)));
            assert_eq!(self.reader.known, all, "messages for the plugin stall");
        }
        if self.framing == Framing::Mesg && self.reader.seen.is_some() {
            assert_eq!(
                self.reader.announced,
                (losses as usize, losses as usize),
                "each loss and each return is announced"
            );
        }
        self.world.check_rest();
        self.world.seen.insert(format!("settled {:?} {:?}", self.kind, self.framing));
        if losses > 0 {
            self.world.seen.insert(format!("healed {:?}", self.kind));
        }
        self.check_notifications(losses as usize);
    }

    /// Checks what Luup was told.
    fn check_notifications(&mut self, losses: usize) {
        if !self.events {
            return;
        }
        for _ in 0..1000 {
            self.world.send_notifications();
            if !self.world.jobs.is_empty() {
                self.world.answer_notification(true);
            } else if let Some(due) = self.world.schedule.poll_timeout() {
                self.world.now = self.world.now.max(due);
            } else {
                break;
            }
        }
        let event = |query: &String| query.rsplit_once("&Event=").map(|(_, event)| event.to_owned());
        let told: Vec<String> = self.world.delivered.iter().filter_map(event).filter(|event| event != "data").collect();
        assert_eq!(told.first().map(String::as_str), Some("connected"), "{told:?}");
        let count = |what: &str| told.iter().filter(|event| *event == what).count();
        assert_eq!(count("connected"), 1);
        assert!(count("lost") <= losses && count("back") <= count("lost"), "{told:?}");
        assert!(!self.prompt || count("lost") == losses, "{losses} losses: {told:?}");
        let last = if losses == 0 { "connected" } else { "back" };
        assert_eq!(told.last().map(String::as_str), Some(last), "{told:?}");
        for pair in told.windows(2) {
            assert!(pair[0] != "back" || pair[1] == "lost", "{told:?}");
        }
        self.world.seen.insert("told by notifications".into());
    }

    /// The plugin ends the connection, or DROP does; then all memory is given back.
    fn finish(mut self) -> (BTreeSet<String>, u32) {
        self.may_end.get_or_insert("the end");
        let how = self.world.pick(3);
        let key = self.key;
        if how == 0 && self.keep.is_some() && self.session().is_some_and(|session| session.kept_pid().is_some()) {
            self.world.with_session(key, |session, cx| session.end_kept(KeptEnd::Dropped, cx));
            self.world.enqueue(key);
        }
        for plugin in self.before.iter_mut().chain([&mut self.plugin]) {
            let mut wire = plugin.peer.wire_mut();
            if !wire.is_broken() && !wire.is_closed() {
                if how == 1 { wire.close() } else { wire.break_off() }
            }
            drop(wire);
            plugin.gone = true;
        }
        for _ in 0..1000 {
            self.come_to_rest();
            let next = self.world.slots.values().filter_map(|slot| slot.session.deadline(&self.world.config)).min();
            let Some(next) = next else { break };
            self.world.now = self.world.now.max(next);
        }
        let left: Vec<_> = self.world.slots.values().map(|slot| &slot.session.stage).collect();
        assert!(left.is_empty(), "sessions never end: {left:?}");
        assert_eq!((self.world.budget.held(), self.world.budget.history()), (0, 0), "all memory is given back");
        self.world.seen.extend(self.reader.reasons);
        (self.world.seen, self.attempts.losses)
    }
}

fn with_port(last: u8, port: u16) -> SocketAddr {
    ([192, 0, 2, last], port).into()
}

/// Lets things happen until the choices end. Returns what has occurred, and how often the remote was lost.
pub(super) fn run(world: World) -> (BTreeSet<String>, u32) {
    buffer_pool::clear();
    let mut scene = Scene::new(world);
    for _ in 0..6 {
        scene.send(usize::MAX);
        scene.step();
    }
    for _ in 0..100 + scene.world.pick(300) {
        if scene.world.random.is_exhausted() {
            break;
        }
        scene.happen();
        if scene.world.pick(4) > 0 {
            scene.step();
        }
    }
    scene.come_to_rest();
    scene.settle();
    scene.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeds::for_each_seed;

    const SEEDS: u64 = 600;
    /// Losses that so many seeds must show at least.
    const LOSSES: u32 = 2000;

    #[test]
    fn losses_are_healed_in_order_once_and_in_time_whatever_remotes_and_plugins_do() {
        let mut seen = BTreeSet::new();
        let (mut seeds, mut losses) = (0, 0);
        for_each_seed("session::simulation::healing", SEEDS, |seed| {
            let (occurred, lost) = run(World::new(seed));
            seen.extend(occurred);
            (seeds, losses) = (seeds + 1, losses + lost);
        });
        println!("{losses} losses of {seeds} seeds");
        if seeds < SEEDS {
            return;
        }
        assert!(losses >= LOSSES, "{losses} losses");
        for what in [
            "healed Tcp",
            "healed Tls",
            "healed Ws",
            "healed Wss",
            "settled Ws Raw",
            "settled Ws Line",
            "settled Ws Mesg",
            "lost closed without a close frame",
            "lost connection reset",
            "lost closed without close_notify",
            "lost silent for too long",
            "lost unknown opcode",
            "OK ATCH",
            "ERR ATCH Gap",
            "ERR ATCH No such pid",
            "ended for memory",
            "parked",
            "waits 1 s",
            "waits 5 s",
            "waits 60 s",
            "waits 1024 s",
            "told by notifications",
        ] {
            assert!(seen.contains(what), "never happened: {what}");
        }
    }
}
