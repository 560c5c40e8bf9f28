//! A seeded simulation of HEAL and HELO: remotes that restart, vanish, refuse, resolve elsewhere or have another certificate,
//! and a plugin that talks meanwhile, and reloads if it is kept.
//!
//! Each loss is announced once, before anything of the next connection, and so is each return. There is one attempt for
//! each delay, and delays grow as documented. A remote hears HELO first, and then what the plugin has said: in order, once,
//! and from the loss on all of it. The plugin sees whole messages only. Its connection ends for no end of a remote.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;
use testkit::websocket::frame_of;

use super::conversation::Conversation;
use super::remote::{Behaviour, Remote, RemoteKind, numbered};
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
/// Bytes of a unit of a byte stream: [`unit`].
const UNIT: usize = 10;

/// The plugin's connection.
struct Plugin {
    peer: SimPeer,
    /// What it has yet to send.
    out: VecDeque<u8>,
    /// Bytes of commands that it sends first.
    commands: usize,
    /// Where in `said` what it sends begins, and with which message.
    start: (usize, usize),
    /// How much of what the wire has received was read.
    read: usize,
    /// For how much of that it has made room.
    granted: usize,
    /// It has read `OK`.
    is_echo: bool,
    /// It will neither read nor send again.
    gone: bool,
}

/// A connection that a remote has accepted.
struct Accepted {
    remote: Remote,
    /// What the plugin is to read of it: bytes, or how many messages.
    bytes: Vec<u8>,
    messages: usize,
    /// It has ended in a way that loses nothing of what it has said before.
    ends_whole: bool,
    /// The session was seen to relay it.
    relayed: bool,
    /// It has ended, or says nothing any more.
    over: bool,
    /// Bytes, or messages, of HELO that it has heard.
    opened: usize,
    /// It has heard something of the plugin.
    heard: bool,
}

impl Accepted {
    /// The plugin is to read all that it has said.
    fn is_whole(&self) -> bool {
        self.ends_whole && self.relayed
    }
}

/// Where in a byte stream the reader may stand.
type Places = BTreeSet<(usize, usize)>;

/// What the plugin knows of the remote, as MESG tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is there, and this message of this connection is the next one. `None`: nothing has come of it yet.
    Up(Option<(usize, usize)>),
    Lost,
}

/// What is known of the session's attempts to connect.
#[derive(Debug)]
struct Attempts {
    /// The delay before the last one.
    delay: Duration,
    retry_at: Option<Instant>,
    losses: u32,
    /// When the connection was made that stands.
    connected_at: Option<Instant>,
    /// Connections that were begun.
    begun: usize,
    /// From when on the session may begin connections. `None`: it is connected.
    may_begin: Option<Instant>,
}

struct Scene {
    world: World,
    key: Key,
    kind: RemoteKind,
    framing: Framing,
    keep: Option<Duration>,
    heal: Duration,
    /// The texts of HELO.
    openings: Vec<Vec<u8>>,
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
    /// What the plugin has said, in its framing, and where each message ends.
    said: Vec<u8>,
    ends: Vec<usize>,
    payloads: Vec<Vec<u8>>,
    /// Where later connections of the plugin begin: bytes, and messages.
    starts: Vec<(usize, usize)>,
    /// What the session had read of `said` when the remote was last lost.
    read_at_loss: usize,
    /// Where remotes may stand in `said`, and the next message.
    heard: BTreeSet<usize>,
    next_message: usize,
    /// What the plugin has read of messages since the last whole one.
    partial: Vec<u8>,
    /// Messages, or bytes, that the plugin has read since `OK CONN`. `None`: that is not known any more.
    seen: Option<usize>,
    places: Places,
    known: Known,
    /// Bytes or messages may be missing here.
    gap: bool,
    announced: (usize, usize),
    attempts: Attempts,
    /// The session may end, and why.
    may_end: Option<&'static str>,
    /// The plugin has read `OK CONN`.
    connected: bool,
    parked_since: Option<Instant>,
}

/// A number of a byte stream; `whose` is below 1000.
fn unit(whose: usize, number: usize) -> String {
    format!("{whose:03}.{number:05};")
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
        let attempts = Attempts {
            delay: Duration::ZERO,
            retry_at: None,
            losses: 0,
            connected_at: None,
            begun: 0,
            may_begin: Some(world.now),
        };
        let mut scene = Self {
            key: 0,
            kind,
            framing,
            keep,
            heal,
            openings,
            is_literal,
            events,
            prompt,
            pending: Vec::new(),
            plugin: Plugin {
                peer: unused,
                out: VecDeque::new(),
                commands: 0,
                start: (0, 0),
                read: 0,
                granted: 0,
                is_echo: false,
                gone: true,
            },
            before: Vec::new(),
            accepted: Vec::new(),
            behaviour: Behaviour::Serve,
            said: Vec::new(),
            ends: Vec::new(),
            payloads: Vec::new(),
            starts: Vec::new(),
            read_at_loss: 0,
            heard: BTreeSet::from([0]),
            next_message: 0,
            partial: Vec::new(),
            seen: Some(0),
            places: BTreeSet::new(),
            known: Known::Up(None),
            gap: false,
            announced: (0, 0),
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
        let start = (self.said.len(), self.payloads.len());
        self.starts.push(start);
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

    /// A plugin that was kept comes back.
    fn come_back(&mut self) {
        let line = match self.seen {
            Some(seen) if self.world.pick(4) > 0 => format!("ATCH {PID} SEEN={seen}\n"),
            _ => {
                // What was written to the connection before, and not read, is lost.
                (self.seen, self.gap) = (None, true);
                format!("ATCH {PID}\n")
            }
        };
        self.partial.clear();
        self.connect(line);
    }

    fn session(&self) -> Option<&Session<crate::testing::network::SimNetwork>> {
        self.world.slots.get(&self.key).map(|slot| &*slot.session)
    }

    /// The plugin says something for the remote.
    fn say(&mut self) {
        let amount = self.world.amount();
        let number = self.payloads.len();
        let bytes = match self.framing {
            Framing::Raw => unit(999, number).repeat(1 + amount / 3000).into_bytes(),
            framing => {
                let payload = numbered(number, amount.min(3000));
                let mut bytes = match framing {
                    Framing::Mesg => format!("BINA {}\n", payload.len()).into_bytes(),
                    _ => Vec::new(),
                };
                bytes.extend(&payload);
                bytes.extend((framing == Framing::Line).then_some(b'\n'));
                self.payloads.push(payload);
                bytes
            }
        };
        if self.framing == Framing::Raw {
            // Each unit has a number of its own.
            let count = bytes.len() / UNIT;
            let units: String = (number..number + count).map(|number| unit(999, number)).collect();
            self.payloads.extend(std::iter::repeat_n(Vec::new(), count));
            self.said.extend(units.bytes());
            self.plugin.out.extend(units.bytes());
        } else {
            self.said.extend(&bytes);
            self.plugin.out.extend(&bytes);
            self.ends.push(self.said.len());
        }
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
        self.take(&fresh);
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
                (self.seen, self.gap) = (None, true);
                let retry = format!("ATCH {PID}\n");
                // Nothing may stand between the two commands.
                assert!(plugin.peer.wire().read >= plugin.commands);
                plugin.commands += retry.len();
                plugin.out = retry.into_bytes().into();
                self.forget_unsent();
            } else if line.starts_with("ERR") {
                plugin.gone = true;
                self.may_end.get_or_insert("refused");
            }
        }
    }

    /// What the plugin has said on this connection will not be sent on it: it has to say other things.
    fn forget_unsent(&mut self) {
        let start = (self.said.len(), self.payloads.len());
        self.plugin.start = start;
        self.starts.push(start);
    }

    /// Takes what the plugin has read of the remote.
    fn take(&mut self, bytes: &[u8]) {
        match self.framing {
            Framing::Raw => self.take_bytes(bytes),
            framing => {
                self.partial.extend_from_slice(bytes);
                while let Some((verb, body, length)) = next_message(framing, &self.partial) {
                    self.partial.drain(..length);
                    self.seen = self.seen.map(|seen| seen + 1);
                    self.take_message(&verb, &body);
                }
            }
        }
    }

    fn take_bytes(&mut self, bytes: &[u8]) {
        self.seen = self.seen.map(|seen| seen + bytes.len());
        for &byte in bytes {
            let mut next = Places::new();
            let first = self.places.first().copied().unwrap_or((0, 0));
            if self.gap {
                // Anything that is not before what was read.
                for (number, accepted) in self.accepted.iter().enumerate().skip(first.0) {
                    let from = if number == first.0 { first.1 } else { 0 };
                    let fits = |at: &usize| accepted.bytes[*at] == byte;
                    next.extend((from..accepted.bytes.len()).filter(fits).map(|at| (number, at + 1)));
                }
                self.gap = false;
            } else {
                let from = if self.places.is_empty() { BTreeSet::from([(0, 0)]) } else { self.places.clone() };
                for (number, at) in from {
                    let mut at = at;
                    for (later, accepted) in self.accepted.iter().enumerate().skip(number) {
                        if accepted.bytes.get(at) == Some(&byte) {
                            next.insert((later, at + 1));
                        }
                        if accepted.is_whole() && at < accepted.bytes.len() {
                            break;
                        }
                        at = 0;
                    }
                }
            }
            assert!(!next.is_empty(), "the plugin reads {:?} behind {:?}", byte as char, self.places);
            self.places = next;
        }
    }

    fn take_message(&mut self, verb: &str, body: &[u8]) {
        let text = String::from_utf8_lossy(body).into_owned();
        match (verb, self.known) {
            ("EVNT", known) if text.starts_with("lost ") => {
                assert!(known != Known::Lost || self.gap, "a loss is announced twice");
                if let (Known::Up(Some((number, next))), false) = (known, self.gap) {
                    let accepted = &self.accepted[number];
                    assert!(
                        !accepted.is_whole() || accepted.messages == next,
                        "the loss comes before {next} of {number}"
                    );
                }
                self.announced.0 += 1;
                (self.known, self.gap) = (Known::Lost, false);
                let reason: String = text.chars().filter(|character| !character.is_ascii_digit()).collect();
                self.world.seen.insert(format!("EVNT {reason}"));
            }
            ("EVNT", known) => {
                assert_eq!(text, "back");
                assert!(known == Known::Lost || self.gap, "a return is announced twice");
                self.announced.1 += 1;
                (self.known, self.gap) = (Known::Up(None), false);
            }
            ("CLOS", _) => {
                assert!(self.excuse().is_some(), "the plugin is told the end: {text}");
            }
            ("TEXT" | "BINA" | "", known) => {
                let mut parts = text.split(':').map(str::parse::<usize>);
                let (Some(Ok(number)), Some(Ok(message))) = (parts.next(), parts.next()) else {
                    panic!("no message is {text:?}");
                };
                assert_eq!(payload(number, message, body.len()), body, "a message is mixed up");
                if self.gap {
                    self.gap = false;
                } else if self.framing == Framing::Line {
                    if let Known::Up(Some((before, next))) = known {
                        let follows = (number, message) == (before, next) || (number > before && message == 0);
                        assert!(follows, "message {message} of {number} follows {next} of {before}");
                        assert!(
                            number == before
                                || !self.accepted[before].is_whole()
                                || self.accepted[before].messages == next,
                            "messages are missing"
                        );
                    }
                } else {
                    match known {
                        Known::Lost => panic!("message {message} of {number} comes while the remote is lost"),
                        Known::Up(None) => assert_eq!(message, 0, "the first of {number}"),
                        Known::Up(Some(expected)) => assert_eq!((number, message), expected),
                    }
                }
                self.known = Known::Up(Some((number, message + 1)));
            }
            other => panic!("the plugin reads {other:?} {text}"),
        }
    }

    /// The remote that stands, if one does.
    fn current(&mut self) -> Option<(usize, &mut Accepted)> {
        let (number, accepted) = self.accepted.iter_mut().enumerate().next_back()?;
        let stands = accepted.remote.is_open() && accepted.remote.peer.as_ref().is_some_and(|peer| !peer.is_dropped());
        (!accepted.over && stands && !accepted.remote.is_handshaking()).then_some((number, accepted))
    }

    /// The remote says something for the plugin.
    fn speak(&mut self) {
        let amount = self.world.amount();
        let (cut, kind) = (self.world.pick(100), self.world.pick(3));
        let is_websocket = self.kind.is_websocket();
        let framing = self.framing;
        let Some((number, accepted)) = self.current() else { return };
        if accepted.remote.behaviour == Behaviour::Stall {
            return;
        }
        let payload = match framing {
            Framing::Raw => {
                let first = accepted.bytes.len() / UNIT;
                (first..=first + amount / 100).map(|at| unit(number, at)).collect::<String>().into_bytes()
            }
            _ => payload(number, accepted.messages, amount.min(3000)),
        };
        accepted.messages += 1;
        accepted.bytes.extend(&payload);
        if !is_websocket {
            return accepted.remote.write(&payload);
        }
        let opcode = if kind == 0 { 1 } else { 2 };
        if kind == 2 {
            let cut = payload.len() * cut / 100;
            accepted.remote.write(&frame_of(opcode, &payload[..cut]));
            accepted.remote.write(&frame_of(0x80, &payload[cut..]));
        } else {
            accepted.remote.write(&frame_of(0x80 | opcode, &payload));
        }
    }

    /// The remote ends, in one of many ways.
    fn end_remote(&mut self) {
        let (mut how, half) = (self.world.pick(8), self.world.pick(4));
        let (now, is_websocket, framing) = (self.world.now, self.kind.is_websocket(), self.framing);
        let Some((number, accepted)) = self.current() else { return };
        if half == 0 && is_websocket && accepted.remote.behaviour != Behaviour::Stall {
            // A part of a message, or of a frame.
            let text = if framing == Framing::Raw { unit(number, accepted.bytes.len() / UNIT) } else { "half".into() };
            accepted.bytes.extend(text.bytes());
            let frame = if how % 2 == 0 {
                frame_of(0x01, text.as_bytes())
            } else {
                frame_of(0x81, &[text.as_bytes(), b"more"].concat())
            };
            accepted.remote.write(&frame[..2 + text.len()]);
            if how % 2 == 1 {
                // What follows would belong to the frame.
                how = if how < 5 { 3 } else { 7 };
            }
        }
        accepted.over = true;
        let halves = half == 0 && framing == Framing::Raw;
        match how {
            0 | 1 => accepted.remote.end(true, now),
            2 | 3 => accepted.remote.end(false, now),
            4 => accepted.remote.violate(now),
            5 => {
                // It says nothing more, and answers nothing.
                accepted.over = false;
                accepted.remote.behaviour = Behaviour::Stall;
                return;
            }
            _ => accepted.remote.reset(),
        }
        accepted.ends_whole = how < 5 && !halves;
        self.world.seen.insert("remote ends".into());
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
            24 if self.keep.is_some() && self.plugin.is_echo => {
                if !self.plugin.gone {
                    let breaks = self.world.pick(2) == 0;
                    let mut wire = self.plugin.peer.wire_mut();
                    if breaks {
                        wire.break_off()
                    } else {
                        wire.close()
                    }
                    drop(wire);
                    self.plugin.gone = true;
                    self.plugin.out.clear();
                    self.parked_since = Some(self.world.now);
                }
            }
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
            self.accepted.push(Accepted {
                remote,
                bytes: Vec::new(),
                messages: 0,
                ends_whole: false,
                relayed: false,
                over: false,
                opened: 0,
                heard: false,
            });
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
        for number in 0..self.accepted.len() {
            self.check_heard(number);
        }
        self.check();
    }

    /// Checks that each delay is as documented, and that there is one attempt for each.
    fn watch_attempts(&mut self) {
        let now = self.world.now;
        let begun = self.world.begun.len() - std::mem::replace(&mut self.attempts.begun, self.world.begun.len());
        let fresh = &self.world.begun[self.world.begun.len() - begun..];
        let attempts = &mut self.attempts;
        assert!(
            begun == 0 || attempts.may_begin.is_some_and(|from| from <= now),
            "the proxy connects before its time: {attempts:?}"
        );
        if self.is_literal && self.behaviour != Behaviour::RedirectLoop {
            assert!(fresh.iter().all(|to| to.ip() == address(1).ip()), "{fresh:?}");
        }
        let Some(slot) = self.world.slots.get(&self.key) else { return };
        let (mut connected_at, mut state) = (None, None);
        match &slot.session.stage {
            Stage::Relaying(relaying) => connected_at = Some(relaying.connected_at()),
            Stage::Healing(healing) => state = Some((healing.next_attempt(), healing.outages().losses)),
            _ => {}
        }
        let Some((next, losses)) = state else {
            attempts.may_begin = connected_at.is_none().then_some(now);
            attempts.connected_at = connected_at;
            if let (Some(_), Some(accepted)) = (connected_at, self.accepted.last_mut()) {
                accepted.relayed = true;
            }
            return;
        };
        let is_lost = losses != attempts.losses;
        if is_lost {
            assert_eq!(losses, attempts.losses + 1, "one loss at a time");
            let lasted = attempts.connected_at.map_or(Duration::ZERO, |at| now - at);
            if lasted >= Duration::from_secs(10) {
                attempts.delay = Duration::ZERO;
            }
            attempts.losses = losses;
            let taken = self.plugin.peer.wire().read.saturating_sub(self.plugin.commands);
            self.read_at_loss = self.plugin.start.0 + taken;
        }
        attempts.connected_at = None;
        if let Some(at) = next
            && (is_lost || attempts.retry_at != next)
        {
            attempts.delay = (attempts.delay * 2).clamp(Duration::from_secs(1), self.heal.max(Duration::from_secs(1)));
            let (waits, delay) = ((at - now).as_secs_f64(), attempts.delay.as_secs_f64());
            assert!((0.79 * delay..=1.21 * delay).contains(&waits), "{waits} s, not about {delay} s");
            self.world.seen.insert(format!("waits {delay} s"));
        }
        attempts.may_begin = Some(next.unwrap_or(now));
        attempts.retry_at = next;
    }

    /// Checks what a remote has heard: HELO, then what the plugin has said.
    fn check_heard(&mut self, number: usize) {
        let accepted = &mut self.accepted[number];
        let mut bytes = std::mem::take(&mut accepted.remote.heard_bytes);
        let mut messages: VecDeque<Vec<u8>> = std::mem::take(&mut accepted.remote.heard_messages).into();
        if self.framing == Framing::Raw {
            let opening = self.openings.concat();
            let length = bytes.len().min(opening.len() - accepted.opened);
            let rest = bytes.split_off(length);
            let expected = &opening[accepted.opened..accepted.opened + length];
            assert!(bytes == expected, "the remote hears other bytes than HELO");
            accepted.opened += length;
            for byte in rest {
                self.hear_byte(number, byte);
            }
            return;
        }
        while let (Some(opening), false) = (self.openings.get(accepted.opened), messages.is_empty()) {
            assert_eq!(messages.pop_front().as_ref(), Some(opening), "the remote hears another message than HELO");
            accepted.opened += 1;
        }
        for message in messages {
            self.hear_message(number, &message);
        }
    }

    fn hear_byte(&mut self, number: usize, byte: u8) {
        let mut next = BTreeSet::new();
        let is_first = !std::mem::replace(&mut self.accepted[number].heard, true);
        let starts = self.starts.iter().map(|&(start, _)| start);
        if is_first {
            let floor = self.heard.first().copied().unwrap_or(0);
            // What the session had not read when the remote was lost is not lost.
            let latest = if self.attempts.losses == 0 { 0 } else { self.read_at_loss };
            let range = (floor..=latest.max(floor)).chain(starts.filter(|&start| start > floor));
            next.extend(range.filter(|&at| self.said.get(at) == Some(&byte)).map(|at| at + 1));
        } else {
            for &place in &self.heard {
                let later = self.starts.iter().map(|&(start, _)| start).filter(|&start| start > place);
                next.extend(
                    [place].into_iter().chain(later).filter(|&at| self.said.get(at) == Some(&byte)).map(|at| at + 1),
                );
            }
        }
        assert!(
            !next.is_empty(),
            "the remote hears {:?} behind {:?} (first: {is_first}), read at the loss: {}",
            byte as char,
            self.heard,
            self.read_at_loss
        );
        self.heard = next;
    }

    fn hear_message(&mut self, number: usize, message: &[u8]) {
        let text = String::from_utf8_lossy(message);
        let heard = text.split(':').next().and_then(|digits| digits.parse::<usize>().ok());
        let heard = heard.unwrap_or_else(|| panic!("no message is {text:?}"));
        assert_eq!(self.payloads[heard], message);
        let is_first = !std::mem::replace(&mut self.accepted[number].heard, true);
        let unread_at_loss = self.ends.partition_point(|&end| end <= self.read_at_loss);
        let may_skip = is_first && self.attempts.losses > 0 && heard <= unread_at_loss.max(self.next_message);
        let is_start = self.starts.iter().any(|&(_, start)| start == heard);
        assert!(
            heard == self.next_message || (heard > self.next_message && (may_skip || is_start)),
            "message {heard} follows {}, {unread_at_loss} was not read at the loss",
            self.next_message
        );
        self.next_message = heard + 1;
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
        let Some((number, accepted)) = self.current() else { panic!("the remote never comes back") };
        let (messages, length, opened) = (accepted.messages, accepted.bytes.len(), accepted.opened);
        match self.framing {
            Framing::Raw => {
                assert!(self.heard.contains(&self.said.len()), "bytes for the remote stall: {:?}", self.heard);
                assert!(
                    self.places.contains(&(number, length)),
                    "bytes for the plugin stall: {:?} of {number}, {length}",
                    self.places
                );
                assert_eq!(opened, self.openings.concat().len());
            }
            _ => {
                assert_eq!(self.next_message, self.payloads.len(), "messages for the remote stall");
                assert_eq!(self.known, Known::Up(Some((number, messages))), "messages for the plugin stall");
                assert_eq!(opened, self.openings.len());
            }
        }
        if self.framing == Framing::Mesg && self.seen.is_some() {
            assert_eq!(self.announced, (losses as usize, losses as usize), "each loss and each return is announced");
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
        (self.world.seen, self.attempts.losses)
    }
}

fn with_port(last: u8, port: u16) -> SocketAddr {
    ([192, 0, 2, last], port).into()
}

/// Message `message` of the connection `number`, of about `length` bytes.
fn payload(number: usize, message: usize, length: usize) -> Vec<u8> {
    let mut payload = format!("{number}:{message}:").into_bytes();
    while payload.len() < length {
        payload.push(b'a' + (payload.len() % 23) as u8);
    }
    payload
}

/// The first message of `bytes`: verb, body, and length with its framing. `None`: it is not whole.
fn next_message(framing: Framing, bytes: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    if framing == Framing::Line {
        return Some((String::new(), bytes[..end].to_vec(), end + 1));
    }
    let (verb, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no header is {line:?}"));
    let length = rest.rsplit(' ').next().and_then(|digits| digits.parse::<usize>().ok());
    let length = end + 1 + length.unwrap_or_else(|| panic!("no header is {line:?}"));
    (bytes.len() >= length).then(|| (verb.to_owned(), bytes[end + 1..length].to_vec(), length))
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

    const SEEDS: u64 = 800;
    /// Losses that so many seeds must show at least.
    const LOSSES: u32 = 2500;

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
            "EVNT lost closed without goodbye",
            "EVNT lost connection reset",
            "EVNT lost closed without close_notify",
            "EVNT lost silent for too long",
            "EVNT lost unknown opcode",
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
