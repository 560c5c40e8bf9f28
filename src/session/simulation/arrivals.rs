//! A seeded simulation of listeners: owners that come and die, arrivals over tcp, ws and wss, plugins that accept them,
//! strangers that try to, and the clock.
//!
//! Each arrival has exactly one outcome, which its client sees: it is accepted, and then what the one side says reaches the
//! other; or it is refused, over ws in words; or the client has left. In the end nothing is left.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use mio::Token;

use super::conversation::Conversation;
use super::world::{REMOTE, Slot, World};
use crate::buffer_pool;
use crate::session::{Key, Session, Stage};
use crate::testing::network::{SimPeer, connection};
use crate::testing::wire::FaultProfile;

const REQUEST: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A plugin's connection.
struct Plugin {
    peer: SimPeer,
    /// How much of what the wire has received was looked at.
    read: usize,
    /// It owns the port, or wants to.
    listens: bool,
    ended: bool,
}

/// A client of the port.
struct Client {
    peer: SimPeer,
    pid: String,
    is_websocket: bool,
    /// What it has yet to send.
    out: Vec<u8>,
    /// It has closed or broken its connection.
    left: bool,
    /// A plugin has read `OK ACPT` for it.
    accepted: bool,
}

struct Arrivals {
    world: World,
    plugins: Vec<Plugin>,
    clients: Vec<Client>,
    is_websocket: bool,
    /// Ids that an owner was told.
    told: Vec<String>,
}

impl Arrivals {
    fn new(mut world: World) -> Self {
        // Slots name a conversation, of which nothing else is used.
        let conversation = Conversation::new(0, None, &mut world.random);
        world.conversations.push(conversation);
        let is_websocket = world.pick(2) == 0;
        Self { world, plugins: Vec::new(), clients: Vec::new(), is_websocket, told: Vec::new() }
    }

    fn insert(&mut self, key: Key, session: crate::session::simulation::world::SimSession) {
        self.world.slots.insert(key, Slot::new(session, 0));
        self.world.enqueue(key);
    }

    /// A plugin connects and says `line`.
    fn connect(&mut self, address: &str, line: &str, listens: bool) {
        let room = [4000, 60][usize::from(self.world.pick(5) == 0)];
        let (stream, peer) = connection(FaultProfile::default(), room);
        let key = self.world.new_key();
        stream.register(Token(key));
        let pid = self.world.new_pid();
        let address: SocketAddr = address.parse().expect("an address");
        self.world.budget.add_session(key);
        let session = self.world.with_context(key, |cx| Session::greet(pid, stream, address, cx));
        self.insert(key, session);
        peer.wire_mut().send_bytes(line.as_bytes());
        self.plugins.push(Plugin { peer, read: 0, listens, ended: false });
    }

    /// A client connects.
    fn arrive(&mut self) {
        let Some(port) = self.world.port.take() else { return };
        let (stream, peer) = connection(FaultProfile::default(), 4000);
        let key = self.world.new_key();
        stream.register(Token(key + REMOTE));
        let pid = self.world.new_pid();
        let address = SocketAddr::from(([192, 0, 2, self.world.pick(4) as u8], 5000));
        let listener = "127.0.0.1:80".parse().expect("an address");
        self.world.budget.add_session(key);
        let session = self.world.with_context(key, |cx| Session::arrive(pid, stream, address, listener, &port, cx));
        self.world.port = Some(port);
        self.insert(key, session);
        let is_websocket = self.is_websocket;
        let out = if is_websocket { REQUEST.to_vec() } else { b"from the client".to_vec() };
        let client = Client { peer, pid: pid.to_string(), is_websocket, out, left: false, accepted: false };
        self.clients.push(client);
    }

    fn happen(&mut self) {
        let protocol = if self.is_websocket { "ws" } else { "tcp" };
        match self.world.pick(16) {
            0 => {
                let options = ["", " WAIT=1", " WAIT=300 NTFY=5/s/a/owner", " RHDR=on"][self.world.pick(4)];
                let options = if self.is_websocket { options } else { options.trim_end_matches(" RHDR=on") };
                let address = ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.9:1"][self.world.pick(3)];
                self.connect(address, &format!("LSTN 80 PRTO={protocol}{options}\n"), true);
            }
            1..=4 => self.arrive(),
            5..=7 if !self.told.is_empty() => {
                let at = self.world.pick(self.told.len());
                let address = ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.9:1", "10.0.0.5:1"][self.world.pick(4)];
                let options = ["", " EVNT=on NTFY=5/s/a", " KEEP=5 NTFY=5/s/a/secret-pid"][self.world.pick(3)];
                let framing = if self.is_websocket { " FRAM=RAW" } else { "" };
                let id = self.told[at].clone();
                self.connect(address, &format!("ACPT {id}{options}{framing}\nfrom the plugin"), false);
            }
            8 | 9 if !self.clients.is_empty() => {
                let at = self.world.pick(self.clients.len());
                let breaks = self.world.pick(2) == 0;
                self.clients[at].leave(breaks);
            }
            10 if !self.plugins.is_empty() => {
                let (at, how) = (self.world.pick(self.plugins.len()), self.world.pick(3));
                let plugin = &mut self.plugins[at];
                if !std::mem::replace(&mut plugin.ended, true) {
                    let mut wire = plugin.peer.wire_mut();
                    match how {
                        0 => wire.break_off(),
                        1 if plugin.listens => wire.send_bytes(b"QUIT\n"),
                        _ => wire.close(),
                    }
                }
            }
            11 if !self.told.is_empty() => {
                let at = self.world.pick(self.told.len());
                let line = format!("DENY {} 404 no\n", self.told[at]);
                for plugin in self.plugins.iter().filter(|plugin| plugin.listens && !plugin.ended) {
                    plugin.peer.wire_mut().send_bytes(line.as_bytes());
                }
            }
            12 => {
                let seconds = [0, 1, 1, 11][self.world.pick(4)];
                self.world.now += Duration::from_secs(seconds);
            }
            13 => self.world.answer_notification(false),
            _ => {
                let amount = self.world.amount();
                for client in &mut self.clients {
                    client.send(amount);
                }
            }
        }
    }

    /// Reads what plugins have been told.
    fn read(&mut self) {
        for plugin in &mut self.plugins {
            let mut wire = plugin.peer.wire_mut();
            if wire.room == 0 {
                wire.make_room(200);
            }
            let text = String::from_utf8_lossy(&wire.received[plugin.read..]).into_owned();
            let Some(end) = text.rfind('\n') else { continue };
            plugin.read += end + 1;
            for line in text[..end].lines() {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["INCO", id, ..] => {
                        assert!(plugin.listens, "a plugin is told that does not listen");
                        self.told.push(id.to_owned());
                    }
                    ["OK", "ACPT", id] => {
                        let client = self.clients.iter_mut().find(|client| client.pid == id).expect("an arrival");
                        assert!(!std::mem::replace(&mut client.accepted, true), "{id} is accepted twice");
                        self.world.seen.insert("OK ACPT".into());
                    }
                    ["OK", "DENY", _] | ["ERR", ..] => drop(self.world.seen.insert(line.to_owned())),
                    _ => {}
                }
            }
        }
    }

    fn step(&mut self) {
        let mut events = Vec::new();
        let plugins = self.plugins.iter().map(|plugin| &plugin.peer);
        events.extend(plugins.chain(self.clients.iter().map(|client| &client.peer)).filter_map(SimPeer::take_event));
        for (Token(token), event) in events {
            self.world.handle_event(token, event);
        }
        self.world.run();
        self.read();
        self.check();
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
        let waiting: usize = self.world.port.iter().flat_map(|port| port.owners()).map(|owner| owner.waiting()).sum();
        let is_waiting =
            |slot: &&Slot| matches!(&slot.session.stage, Stage::Arriving(arriving) if arriving.is_waiting());
        let sessions = self.world.slots.values().filter(is_waiting).count();
        assert!(waiting >= sessions, "an arrival waits for no owner");
        for client in &self.clients {
            client.check();
        }
        for owner in self.world.port.iter().flat_map(|port| port.owners()) {
            assert!(self.world.slots.contains_key(&owner.key), "an owner is gone");
            assert!(owner.waiting() <= 16);
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..100 {
            self.step();
            let plugins = self.plugins.iter().map(|plugin| &plugin.peer);
            let mut peers = plugins.chain(self.clients.iter().map(|client| &client.peer));
            if !peers.any(|peer| !peer.is_dropped() && peer.wire().has_news()) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// All sides go; then all sessions end within their limits.
    fn finish(mut self) -> BTreeSet<String> {
        for client in &mut self.clients {
            client.send(usize::MAX);
        }
        self.come_to_rest();
        // What accepted clients and their plugins have said has arrived.
        for client in self.clients.iter().filter(|client| client.accepted && !client.left) {
            let wire = client.peer.wire();
            let heard = wire.received.windows(15).any(|bytes| bytes == b"from the plugin");
            assert!(heard || wire.is_broken() || wire.is_told(), "{}: {:?}", client.pid, wire.received);
        }
        for plugin in &mut self.plugins {
            plugin.ended = true;
            let mut wire = plugin.peer.wire_mut();
            if !wire.is_closed() && !wire.is_broken() {
                wire.close();
            }
        }
        self.come_to_rest();
        assert!(self.world.port.is_none(), "the port is open without an owner");
        for client in &mut self.clients {
            client.leave(true);
        }
        self.come_to_rest();
        for _ in 0..1000 {
            let next = self.world.slots.values().filter_map(|slot| slot.session.deadline(&self.world.config)).min();
            let Some(next) = next else { break };
            self.world.now = self.world.now.max(next);
            self.come_to_rest();
        }
        let left: Vec<_> = self.world.slots.values().map(|slot| &slot.session.stage).collect();
        assert!(left.is_empty(), "sessions never end: {left:?}");
        assert_eq!((self.world.budget.held(), self.world.budget.history()), (0, 0), "all memory is given back");
        for client in &self.clients {
            client.check();
            assert!(client.peer.is_dropped(), "{}: its connection is still open", client.pid);
            let outcome = client.outcome();
            self.world.seen.insert(format!("{outcome:?} ws: {}", client.is_websocket));
        }
        self.world.seen
    }
}

/// What has become of an arrival.
#[derive(Debug, PartialEq, Eq)]
enum ArrivalFate {
    Accepted,
    Refused(String),
    Closed,
}

impl Client {
    fn send(&mut self, amount: usize) {
        let amount = amount.min(self.out.len());
        let bytes: Vec<u8> = self.out.drain(..amount).collect();
        if !self.left {
            self.peer.wire_mut().send_bytes(&bytes);
        }
    }

    fn leave(&mut self, breaks: bool) {
        if std::mem::replace(&mut self.left, true) {
            let mut wire = self.peer.wire_mut();
            if breaks && !wire.is_broken() {
                wire.break_off();
            }
            return;
        }
        let mut wire = self.peer.wire_mut();
        if breaks { wire.break_off() } else { wire.close() }
    }

    fn outcome(&self) -> ArrivalFate {
        let wire = self.peer.wire();
        let text = String::from_utf8_lossy(&wire.received);
        match text.split("\r\n").next() {
            Some(line) if line.starts_with("HTTP/1.1 ") && !line.contains(" 101 ") => {
                ArrivalFate::Refused(line[9..12].to_owned())
            }
            _ if self.accepted || text.contains(" 101 ") => ArrivalFate::Accepted,
            _ => ArrivalFate::Closed,
        }
    }

    /// It gets one answer, and what a plugin says only if that has accepted it.
    fn check(&self) {
        let wire = self.peer.wire();
        let text = String::from_utf8_lossy(&wire.received);
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "two answers: {text}");
        if self.is_websocket && !text.is_empty() {
            assert!(text.starts_with("HTTP/1.1 ") || "HTTP/1.1 ".starts_with(&*text), "{text}");
        }
        let hears = text.contains("from the plugin");
        assert!(!hears || !self.is_websocket || text.contains(" 101 "), "a refused client hears the plugin");
        if let ArrivalFate::Refused(_) = self.outcome() {
            assert!(!self.accepted, "refused and accepted");
        }
    }
}

/// Lets things happen until the choices end. Returns what has occurred.
pub(super) fn run(world: World) -> BTreeSet<String> {
    buffer_pool::clear();
    let mut arrivals = Arrivals::new(world);
    let protocol = if arrivals.is_websocket { "ws" } else { "tcp" };
    arrivals.connect("127.0.0.1:1", &format!("LSTN 80 PRTO={protocol}\n"), true);
    for _ in 0..100 + arrivals.world.pick(200) {
        if arrivals.world.random.is_exhausted() {
            break;
        }
        arrivals.happen();
        if arrivals.world.pick(4) > 0 {
            arrivals.step();
        }
    }
    arrivals.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeds::for_each_seed;

    const SEEDS: u64 = 600;

    #[test]
    fn each_arrival_has_one_outcome_whatever_owners_plugins_and_clients_do() {
        let mut seen = BTreeSet::new();
        let mut seeds = 0;
        for_each_seed("session::simulation::arrivals", SEEDS, |seed| {
            seen.extend(run(World::new(seed)));
            seeds += 1;
        });
        if seeds < SEEDS {
            return;
        }
        for what in [
            "stage listening",
            "stage arriving",
            "stage relaying",
            "stage draining",
            "parked",
            "taken over",
            "OK ACPT",
            "OK DENY",
            "ERR ACPT No such id",
            "ERR DENY No such id",
            "ERR LSTN Path in use",
            "ERR ACPT Pid in use",
            "Accepted ws: true",
            "Accepted ws: false",
            "Refused(\"404\") ws: true",
            "Refused(\"408\") ws: true",
            "Refused(\"503\") ws: true",
            "Closed ws: true",
            "Closed ws: false",
        ] {
            assert!(seen.iter().any(|line| line.contains(what)), "never happened: {what}");
        }
    }
}
