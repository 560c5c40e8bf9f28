//! A seeded simulation of whole sessions of `[serve]`: a browser that sends its request and its messages in pieces, a target
//! of bytes or of messages, and sockets that take as much as they like.
//!
//! What one side has said the other hears, once and in order. Each side is told the end once, the browser by one close frame.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::relay::SCRATCH_SIZE;
use crate::relay::memory_budget::RESERVE;
use crate::session::context::TurnResult;
use crate::session::pid::PidSource;
use crate::session::simulation::world::{SimSession, World};
use crate::session::{Session, Stage};
use crate::testing::TestEntropy;
use crate::testing::network::{ConnectPlan, SimPeer, connection};
use crate::testing::seeds::for_each_seed;
use crate::testing::wire::FaultProfile;
use crate::websocket::handshake::{AcceptOptions, RequestProgress, ServerHandshake};
use crate::websocket::{Connection, Control, Event, Kind, Leniency, Role, WebSocketSettings};

const KEY: usize = 1;
const TARGET: &str = "192.0.2.1:8000";
const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Neither side says much more than this.
const MAX_SAID: usize = 200_000;

type Message = (Kind, Vec<u8>);

/// One end of a WebSocket that a test has.
struct Codec {
    connection: Connection,
    entropy: TestEntropy,
    heard: Vec<Message>,
    partial: Option<Message>,
    /// The bytes of all messages.
    bytes: Vec<u8>,
    /// Codes of the close frames that have come.
    closes: Vec<u16>,
}

impl Codec {
    fn new(role: Role, now: std::time::Instant) -> Self {
        let settings = WebSocketSettings {
            role,
            mask: true,
            control: Control::Auto,
            max_message: u64::MAX,
            leniency: Leniency::default(),
            deflate: None,
            ping_interval: None,
        };
        let (connection, entropy) = (Connection::new(settings, now), TestEntropy::default());
        Self { connection, entropy, heard: Vec::new(), partial: None, bytes: Vec::new(), closes: Vec::new() }
    }

    /// Encodes a message, in fragments of `piece` bytes.
    fn say(&mut self, (kind, payload): &Message, piece: usize) {
        let mut pieces = payload.chunks(piece.max(1)).peekable();
        if payload.is_empty() {
            self.connection.send(*kind, b"", true, &mut self.entropy).ok();
        }
        while let Some(bytes) = pieces.next() {
            self.connection.send(*kind, bytes, pieces.peek().is_none(), &mut self.entropy).ok();
        }
    }

    fn hear(&mut self, mut bytes: Vec<u8>, now: std::time::Instant) {
        assert!(self.closes.is_empty() || bytes.is_empty(), "something comes behind the close frame");
        let mut at = 0;
        loop {
            let (used, event) = self.connection.handle_input(&mut bytes[at..], now);
            at += used;
            match event {
                None if used == 0 => break,
                Some(Event::Start { kind, .. }) => self.partial = Some((kind, Vec::new())),
                Some(Event::Data(piece)) => {
                    self.bytes.extend_from_slice(piece);
                    self.partial.as_mut().unwrap().1.extend_from_slice(piece);
                }
                Some(Event::End) => self.heard.push(self.partial.take().unwrap()),
                Some(Event::Closed { code, .. }) => self.closes.push(code),
                Some(Event::Failed(error) | Event::InvalidClose { error, .. }) => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// What it has to send.
    fn transmit(&mut self) -> Vec<u8> {
        let bytes = self.connection.poll_transmit(&mut self.entropy).to_vec();
        self.connection.handle_transmitted(bytes.len());
        bytes
    }
}

/// What the target speaks.
enum Target {
    Bytes { said: Vec<u8>, heard: Vec<u8> },
    Upgrading(ServerHandshake),
    Messages(Box<Codec>),
}

struct Scene {
    world: World,
    session: Option<Box<SimSession>>,
    browser: SimPeer,
    /// What the browser has yet to send, and the response as far as it has come.
    out: Vec<u8>,
    response: Vec<u8>,
    codec: Option<Codec>,
    fed: usize,
    said: Vec<Message>,
    said_bytes: Vec<u8>,
    target: Target,
    remote: Option<SimPeer>,
    remote_fed: usize,
    remote_said: Vec<Message>,
    /// A side has ended, or broken off.
    disturbed: bool,
    closing: bool,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let with_messages = world.pick(3) == 0;
        Self::with(world, with_messages)
    }

    /// A browser, and a target that speaks WebSocket if `with_messages`.
    fn with(mut world: World, with_messages: bool) -> Self {
        let target = if with_messages { format!("ws://{TARGET}/") } else { TARGET.into() };
        let line = format!("[serve]\n80=/a PNGI=20 CONN {target}\n");
        world.config.apply_text("test", line.as_bytes()).unwrap();
        let to: SocketAddr = TARGET.parse().unwrap();
        world.network.plans.insert(to, ConnectPlan::Immediate);
        let faults = |world: &mut World| FaultProfile { eintr_every: [0, 7][world.pick(2)], ..FaultProfile::default() };
        world.network.profile = (faults(&mut world), 300);
        let (stream, browser) = connection(faults(&mut world), 300);
        let pid = PidSource::default().next(SystemTime::UNIX_EPOCH, true);
        let address: SocketAddr = "10.0.0.5:40000".parse().unwrap();
        world.budget.add_session(KEY);
        let session = world.with_context(KEY, |cx| Session::served(pid, stream, address, 80, None, cx));
        let target = match with_messages {
            true => Target::Upgrading(ServerHandshake::new()),
            false => Target::Bytes { said: Vec::new(), heard: Vec::new() },
        };
        Self {
            world,
            session: Some(Box::new(session)),
            browser,
            out: REQUEST.to_vec(),
            response: Vec::new(),
            codec: None,
            fed: 0,
            said: Vec::new(),
            said_bytes: Vec::new(),
            target,
            remote: None,
            remote_fed: 0,
            remote_said: Vec::new(),
            disturbed: false,
            closing: false,
        }
    }

    fn message(&mut self, number: usize) -> Message {
        // What must be put together fits into the memory that is always there.
        let longest = match self.target {
            Target::Bytes { .. } => 100_000,
            _ if self.world.config.limits.buffers < 100_000 => 300,
            _ => 60_000,
        };
        let length = self.world.amount().min(longest);
        let kind = if self.world.pick(2) == 0 { Kind::Text } else { Kind::Binary };
        (kind, (0..length).map(|at| b'a' + ((at + number) % 23) as u8).collect())
    }

    fn browser_says(&mut self) {
        if self.closing || self.said_bytes.len() > MAX_SAID {
            return;
        }
        let message = self.message(self.said.len());
        let piece = [usize::MAX, message.1.len() / 3 + 1][self.world.pick(2)];
        let Some(codec) = &mut self.codec else { return };
        codec.say(&message, piece);
        if self.world.random.below(4) == 0 {
            codec.connection.send_ping(b"p", &mut codec.entropy).ok();
        }
        self.out.extend(codec.transmit());
        self.said_bytes.extend_from_slice(&message.1);
        self.said.push(message);
    }

    fn browser_sends(&mut self, amount: usize) {
        if self.browser.wire().is_closed() || self.browser.wire().is_broken() {
            return;
        }
        let amount = amount.min(self.out.len());
        self.browser.wire_mut().send_bytes(&self.out[..amount]);
        self.out.drain(..amount);
    }

    fn target_says(&mut self) {
        let message = self.message(7 * self.remote_said.len());
        let Some(remote) = &self.remote else { return };
        if remote.wire().is_closed() || remote.wire().is_broken() || remote.wire().sent.len() > MAX_SAID {
            return;
        }
        match &mut self.target {
            Target::Bytes { said, .. } => {
                said.extend_from_slice(&message.1);
                remote.wire_mut().send_bytes(&message.1);
            }
            Target::Upgrading(_) => return,
            Target::Messages(codec) if !codec.closes.is_empty() => return,
            Target::Messages(codec) => {
                codec.say(&message, usize::MAX);
                let bytes = codec.transmit();
                remote.wire_mut().send_bytes(&bytes);
            }
        }
        self.remote_said.push(message);
    }

    /// The browser and the target read what has come.
    fn listen(&mut self) {
        let now = self.world.now;
        let mut bytes = self.browser.wire().received[self.fed..].to_vec();
        self.fed += bytes.len();
        if self.codec.is_none() {
            self.response.extend(std::mem::take(&mut bytes));
            let end = self.response.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end.filter(|_| self.response.starts_with(b"HTTP/1.1 101 ")) {
                self.codec = Some(Codec::new(Role::Client, now));
                bytes = self.response.split_off(end + 4);
            }
        }
        if let Some(codec) = &mut self.codec {
            codec.hear(bytes, now);
            self.out.extend(codec.transmit());
        }
        if let Some((_, peer)) = self.world.network.begun.pop() {
            self.remote = Some(peer);
        }
        let Some(remote) = &self.remote else { return };
        let bytes = remote.wire().received[self.remote_fed..].to_vec();
        self.remote_fed += bytes.len();
        match &mut self.target {
            Target::Bytes { heard, .. } => heard.extend(bytes),
            Target::Upgrading(handshake) => {
                if let RequestProgress::Received(request) = handshake.handle_input(&bytes) {
                    handshake.accept(&request, &AcceptOptions::default()).unwrap();
                    remote.wire_mut().send_bytes(handshake.transmit());
                    self.target = Target::Messages(Box::new(Codec::new(Role::Server, now)));
                }
            }
            Target::Messages(codec) => {
                codec.hear(bytes, now);
                let answer = codec.transmit();
                if !remote.wire().is_closed() && !remote.wire().is_broken() {
                    remote.wire_mut().send_bytes(&answer);
                    if codec.connection.is_over() {
                        remote.wire_mut().close();
                    }
                }
            }
        }
    }

    /// A side ends or breaks off.
    fn disturb(&mut self) {
        let choice = self.world.pick(6);
        let (now, remote_is_open) =
            (self.world.now, self.remote.as_ref().is_some_and(|remote| !remote.wire().is_closed()));
        self.disturbed = true;
        match (choice, &self.remote) {
            (0 | 1, _) if self.codec.is_some() && !self.closing => {
                self.closing = true;
                if let Some(codec) = &mut self.codec {
                    codec.connection.close(1000, "bye", now, &mut codec.entropy);
                    self.out.extend(codec.transmit());
                }
            }
            (2, _) if !self.browser.wire().is_closed() => self.browser.wire_mut().close(),
            (3, _) => self.browser.wire_mut().break_off(),
            (4, Some(remote)) if remote_is_open && !remote.wire().is_broken() => remote.wire_mut().close(),
            (5, Some(remote)) => remote.wire_mut().break_off(),
            _ => {}
        }
    }

    /// As the daemon does it.
    fn run(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        session.handle_plugin_event(self.browser.wire_mut().take_event());
        if let Some(remote) = &self.remote {
            session.handle_remote_event(remote.wire_mut().take_event());
        }
        for turns in 0.. {
            assert!(turns < 10_000, "turns without end");
            let result = self.world.with_context(KEY, |cx| {
                let mut result = session.turn(cx);
                for attempt in 0..3 {
                    let is_late = session.deadline(cx.config).is_some_and(|due| due <= cx.now);
                    if result != TurnResult::Wait || !is_late {
                        break;
                    }
                    match attempt {
                        0 => session.assume_readable(),
                        _ => session.handle_timeout(cx),
                    }
                    result = session.turn(cx);
                }
                result
            });
            let actions = self.world.budget.poll_shortage(self.world.now);
            if !actions.end.is_empty() {
                self.disturbed = true;
                self.world.with_context(KEY, |cx| session.end_for_memory(cx));
                continue;
            }
            match result {
                TurnResult::Wait if actions.wake.is_empty() => break,
                TurnResult::Again | TurnResult::Wait => {}
                TurnResult::Closed => {
                    assert_eq!(session.held(), 0, "a session that is over holds memory");
                    self.world.budget.remove_session(KEY);
                    drop(session);
                    assert_eq!(self.world.budget.held(), 0);
                    return;
                }
                TurnResult::Request(_) => panic!("it asks for something"),
            }
        }
        assert_eq!(self.world.budget.held(), session.held(), "what is held is what is counted");
        let bound = self.world.config.limits.buffers + 12 * RESERVE + 2 * SCRATCH_SIZE;
        assert!(session.held() <= bound, "{} bytes are held", session.held());
        if let Some(due) = session.deadline(&self.world.config) {
            assert!(due > self.world.now, "a deadline lies in the past");
        }
        self.session = Some(session);
    }

    fn step(&mut self) {
        let before = (self.fed, self.remote_fed);
        self.listen();
        self.run();
        self.listen();
        if before != (self.fed, self.remote_fed) {
            self.check();
        }
    }

    /// What was heard is the beginning of what was said.
    fn check(&self) {
        let Some(codec) = &self.codec else { return };
        assert!(codec.closes.len() <= 1, "{:?}", codec.closes);
        match &self.target {
            Target::Bytes { said, heard } => {
                assert!(said.starts_with(&codec.bytes), "the browser hears other bytes");
                assert!(codec.heard.iter().all(|(kind, _)| *kind == Kind::Binary));
                assert!(self.said_bytes.starts_with(heard), "the target hears other bytes");
            }
            Target::Upgrading(_) => {}
            Target::Messages(remote) => {
                assert!(self.remote_said.starts_with(&codec.heard), "the browser hears other messages");
                assert!(self.said.starts_with(&remote.heard), "the target hears other messages");
                assert!(remote.closes.len() <= 1, "{:?}", remote.closes);
            }
        }
    }

    /// Everyone sends and has room, until nothing moves any more.
    fn help_all(&mut self) {
        for _ in 0..60 {
            self.browser_sends(usize::MAX);
            self.browser.wire_mut().make_room(1_000_000);
            if let Some(remote) = &self.remote {
                remote.wire_mut().make_room(1_000_000);
            }
            self.step();
        }
    }

    /// Everything that was said is heard by the browser, or by the target.
    fn is_heard(&self, by_browser: bool) -> bool {
        let Some(codec) = &self.codec else { return false };
        match &self.target {
            Target::Bytes { said, .. } if by_browser => codec.bytes == *said,
            Target::Bytes { heard, .. } => self.said_bytes == *heard,
            Target::Messages(_) if by_browser => codec.heard == self.remote_said,
            Target::Messages(remote) => remote.heard == self.said,
            Target::Upgrading(_) => false,
        }
    }

    fn happen(&mut self) {
        let amount = self.world.amount();
        match self.world.pick(10) {
            0 | 1 => self.browser_says(),
            2 | 3 => self.browser_sends(amount),
            4 => self.target_says(),
            5 | 6 => self.browser.wire_mut().make_room(amount),
            7 => drop(self.remote.as_ref().map(|remote| remote.wire_mut().make_room(amount))),
            8 => self.world.now += Duration::from_millis(self.world.random.below(3000)),
            _ => {}
        }
    }

    /// Lets time pass until the session is over.
    fn wait_for_end(&mut self) {
        for _ in 0..2000 {
            self.help_all_once();
            let Some(session) = &self.session else { return };
            let due = session.deadline(&self.world.config).unwrap_or(self.world.now);
            self.world.now = due.max(self.world.now);
        }
        panic!("it never ends: {:?}", self.session.as_ref().map(|session| &session.stage));
    }

    fn help_all_once(&mut self) {
        self.browser_sends(usize::MAX);
        self.browser.wire_mut().make_room(1_000_000);
        if let Some(remote) = &self.remote {
            remote.wire_mut().make_room(1_000_000);
        }
        self.step();
    }
}

#[test]
fn bytes_and_messages_pass_in_order_and_each_end_is_told_once() {
    let (mut seeds, mut relayed) = (0, 0);
    for_each_seed("session::served::tests::bytes_and_messages", 100, |seed| {
        seeds += 1;
        let mut scene = Scene::new(seed);
        for _ in 0..scene.world.pick(400) {
            scene.happen();
            scene.step();
            if scene.session.is_none() {
                break;
            }
        }
        scene.help_all();
        if scene.session.is_some() && !scene.disturbed {
            // The request may come too late, and the browser may be lost for its silence.
            if let Some(Stage::Relaying(_)) = scene.session.as_ref().map(|session| &session.stage) {
                relayed += 1;
                assert!(scene.is_heard(true) && scene.is_heard(false), "something is missing");
            } else {
                scene.disturbed = true;
            }
        }
        // One side ends with something under way.
        scene.browser_says();
        scene.target_says();
        let (told, ways) = (scene.disturbed, scene.world.pick(2));
        scene.disturb();
        let polite = !told && scene.session.is_some() && ways == 0;
        let closes_now = scene.closing;
        let target_ends = scene.remote.as_ref().is_some_and(|remote| remote.wire().is_closed());
        let broken = scene.browser.wire().is_broken()
            || scene.browser.wire().is_closed()
            || scene.remote.as_ref().is_some_and(|remote| remote.wire().is_broken());
        if polite && closes_now && !broken {
            scene.help_all();
            assert!(scene.is_heard(false), "the target misses something from before the close frame");
        }
        if polite && target_ends && !broken && matches!(scene.target, Target::Bytes { .. }) {
            scene.help_all();
            assert!(scene.is_heard(true), "the browser misses something from before the target's end");
            assert_eq!(scene.codec.as_ref().unwrap().closes, [1000]);
        }
        scene.disturb();
        if scene.session.is_some() {
            scene.browser.wire_mut().break_off();
        }
        scene.wait_for_end();
        assert!(scene.browser.is_dropped() && scene.remote.as_ref().is_none_or(SimPeer::is_dropped));
    });
    assert!(relayed * 2 > seeds, "few of {seeds} sessions relay: {relayed}");
}

#[test]
fn the_end_of_the_daemon_is_told_by_1001() {
    for_each_seed("session::served::tests::the_end_of_the_daemon", 20, |seed| {
        let mut scene = Scene::new(seed);
        scene.help_all();
        let mut session = scene.session.take().unwrap();
        scene.world.with_context(KEY, |cx| session.shut_down(cx));
        scene.session = Some(session);
        scene.help_all();
        assert_eq!(scene.codec.as_ref().unwrap().closes, [1001]);
        scene.wait_for_end();
    });
}

/// Regression: what was not encoded yet when the target had said its last was dropped, its close code with it.
#[test]
fn messages_of_a_target_that_closes_reach_a_browser_that_reads_slowly() {
    for (count, length, room) in [(40, 1000, 300), (5000, 1, 300), (5000, 1, 1_000_000), (3, 100, 0)] {
        for closes in [false, true] {
            let mut scene = Scene::with(World::new(1), true);
            // Just as much as the browser's response takes.
            while scene.codec.is_none() {
                scene.browser_sends(usize::MAX);
                scene.browser.wire_mut().make_room(1);
                if let Some(remote) = &scene.remote {
                    remote.wire_mut().make_room(1000);
                }
                scene.step();
            }
            let Target::Messages(codec) = &mut scene.target else { panic!("no WebSocket") };
            for _ in 0..count {
                let message = (Kind::Binary, vec![7; length]);
                codec.say(&message, usize::MAX);
                scene.remote_said.push(message);
            }
            if closes {
                codec.connection.close(4001, "over", scene.world.now, &mut codec.entropy);
            }
            let bytes = codec.transmit();
            scene.browser.wire_mut().make_room(room);
            scene.remote.as_ref().unwrap().wire_mut().send_bytes(&bytes);
            scene.step();
            assert!(room < 1_000_000 || scene.is_heard(true), "nothing else is needed");
            scene.help_all();
            assert!(scene.is_heard(true), "{count} messages of {length} bytes, room for {room}, closes: {closes}");
            assert_eq!(scene.codec.as_ref().unwrap().closes, if closes { vec![4001] } else { vec![] });
        }
    }
}
