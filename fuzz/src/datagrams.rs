//! The relay of a stream and datagrams: whatever the sockets do, a plugin's messages become datagrams in order, it
//! reads every datagram that was taken, and no turn is long.
//!
//! Input: the framing and the size of a block, then an operation a byte, each followed by its argument.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sockproxyd::net::random::Randomness;
use sockproxyd::net::socket::{Datagrams, Stream};
use sockproxyd::protocol::framing::{DATAGRAM_LIMIT, Decoder, Dialect, Framing, Item, encode_datagram};
use sockproxyd::relay::buffers::Buffers;
use sockproxyd::relay::datagram::DatagramRelay;
use sockproxyd::relay::pipes::Pipes;
use sockproxyd::relay::{End, Env, Ready, Relay, SCRATCH, Timing};

use super::input::Input;

/// Calls to sockets that one turn may make: others wait meanwhile.
const MOST_CALLS: usize = 600;
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 200;

const TIMING: Timing =
    Timing { receive: None, idle: None, half_close: Duration::from_secs(5), stall: Duration::from_secs(60) };

/// What a plugin may say, whole and in part, right and wrong. The last is the longest: see [`said`].
const WORDS: [&[u8]; 16] = [
    b"TEXT 3\na\nb",
    b"BINA 0\n",
    b"FRAG 2\nxy",
    b"FRAG 0\nFRAG 0\nFRAG 0\n",
    b"DGRM 2 1.2.3.4:5\nhi",
    b"DGRM 2 9.9.9.9:5\nno",
    b"one\ntwo\r\n",
    b"\n\r\n\n\n\n\n\n\n\n\n\n\n\n",
    b"half a line",
    b"BINA 20\n",
    b"0123456789",
    b"TEXT 1\n\xff",
    b"nonsense\n",
    b"\n",
    b"CLOS 1000 2\nby",
    b"",
];

/// Words of a plugin: one of [`WORDS`], some of them many times.
fn said(argument: usize) -> Vec<u8> {
    let word = WORDS[argument % WORDS.len()];
    match argument / WORDS.len() {
        0..=7 if word.is_empty() => vec![b'x'; DATAGRAM_LIMIT],
        0..=7 => word.to_vec(),
        times => word.repeat(times * 50),
    }
}

/// The plugin's end of its connection.
#[derive(Default)]
struct Plugin {
    said: Vec<u8>,
    taken: usize,
    heard: Vec<u8>,
    room: usize,
    closed: bool,
    wants_room: bool,
    news: Ready,
}

/// Whoever answers datagrams.
#[derive(Default)]
struct Remote {
    /// Datagrams on their way to the plugin, and those that the relay has taken.
    waiting: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    got: Vec<(Vec<u8>, SocketAddr)>,
    room: usize,
    wants_room: bool,
    news: Ready,
}

struct PluginSocket<'a>(&'a mut Plugin, &'a Cell<usize>);
struct RemoteSocket<'a>(&'a mut Remote, &'a Cell<usize>);

impl Stream for PluginSocket<'_> {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        let length = buffer.len().min(self.0.said.len() - self.0.taken);
        if length == 0 {
            return if self.0.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        buffer[..length].copy_from_slice(&self.0.said[self.0.taken..][..length]);
        self.0.taken += length;
        Ok(length)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        let length = bytes.len().min(self.0.room);
        self.0.wants_room |= length < bytes.len();
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.room -= length;
        self.0.heard.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {}
}

impl Datagrams for RemoteSocket<'_> {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.1.set(self.1.get() + 1);
        if self.0.waiting.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let datagram = self.0.waiting.remove(0);
        buffer[..datagram.len()].copy_from_slice(&datagram);
        self.0.taken.push(datagram);
        Ok((self.0.taken[self.0.taken.len() - 1].len(), peer()))
    }

    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        if self.0.room == 0 {
            self.0.wants_room = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.room -= 1;
        self.0.got.push((payload.to_vec(), to));
        Ok(payload.len())
    }
}

fn peer() -> SocketAddr {
    "192.0.2.7:1900".parse().expect("an address")
}

fn may_send(to: SocketAddr) -> bool {
    to.ip().to_string() != "9.9.9.9"
}

struct World {
    now: Instant,
    framing: Framing,
    block: Option<usize>,
    plugin: Plugin,
    remote: Remote,
    relay: DatagramRelay,
    buffers: Buffers,
    pipes: Pipes,
    scratch: Vec<u8>,
    end: Option<End>,
    /// A time limit runs.
    limited: bool,
}

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let framing = [Framing::Raw, Framing::Line, Framing::Mesg][input.below(3)];
    let now = Instant::now();
    let mut world = World {
        now,
        framing,
        block: Some(input.below(64)).filter(|&block| block > 0),
        plugin: Plugin::default(),
        remote: Remote::default(),
        relay: DatagramRelay::new(now, peer(), framing, b"", Ready::fresh()),
        buffers: Buffers::new(1 << 20, 1 << 16),
        pipes: Pipes::new(0),
        scratch: vec![0; SCRATCH],
        end: None,
        limited: false,
    };
    for _ in 0..MOST_STEPS {
        if input.is_empty() || world.end.is_some() {
            break;
        }
        world.happen(&mut input);
        world.turn();
    }
    world.settle();
    world.check();
    world.relay.release(&mut world.buffers, &mut world.pipes);
    assert_eq!(world.buffers.held(), 0, "memory is accounted for to the end");
}

impl World {
    fn happen(&mut self, input: &mut Input<'_>) {
        let (kind, argument) = (input.below(8), usize::from(input.byte()));
        match kind {
            0 | 1 if !self.plugin.closed && self.plugin.said.len() < 200_000 => {
                self.plugin.said.extend(said(argument));
                self.plugin.news.readable = true;
            }
            2 => {
                self.remote.waiting.push(vec![b'\n'; argument % 4 * argument]);
                self.remote.news.readable = true;
            }
            3 => {
                self.plugin.room += argument * argument;
                self.plugin.news.writable |= self.plugin.room > 0 && std::mem::take(&mut self.plugin.wants_room);
            }
            4 => {
                self.remote.room += argument;
                self.remote.news.writable |= self.remote.room > 0 && std::mem::take(&mut self.remote.wants_room);
            }
            5 if argument > 200 => {
                self.plugin.closed = true;
                self.plugin.news = Ready { readable: true, hangup: true, ..self.plugin.news };
            }
            6 => {
                self.now += Duration::from_millis(argument as u64 * 100);
                self.end = self.relay.handle_timeout(&TIMING, self.now);
            }
            _ => self.tell(),
        }
    }

    /// An event says what has happened since the last one.
    fn tell(&mut self) {
        let news = std::mem::take(&mut self.plugin.news);
        merge(self.relay.plugin_ready(), news);
        let news = std::mem::take(&mut self.remote.news);
        merge(self.relay.remote_ready(), news);
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) {
        for _ in 0..100_000 {
            if self.end.is_some() {
                return;
            }
            let calls = Cell::new(0);
            let mut env = Env {
                now: self.now,
                scratch: &mut self.scratch,
                buffers: &mut self.buffers,
                pipes: &mut self.pipes,
                entropy: &mut Randomness::default(),
                block: self.block,
            };
            let mut plugin = PluginSocket(&mut self.plugin, &calls);
            let mut remote = RemoteSocket(&mut self.remote, &calls);
            let turn = self.relay.run(&mut plugin, &mut remote, &may_send, &mut env);
            assert!(calls.get() <= MOST_CALLS, "{} calls in a turn", calls.get());
            self.end = turn.end;
            if let (false, Some(due), None) = (self.limited, self.relay.deadline(&TIMING), turn.end) {
                assert!(due >= self.now + TIMING.half_close, "the limit began before what it limits");
                self.limited = true;
            }
            if !turn.again {
                return;
            }
        }
        panic!("turns without end");
    }

    /// There is room for everything, and every event is told: then all has arrived.
    fn settle(&mut self) {
        for _ in 0..4 {
            (self.plugin.room, self.remote.room) = (usize::MAX / 2, usize::MAX / 2);
            self.plugin.news.writable |= std::mem::take(&mut self.plugin.wants_room);
            self.remote.news.writable |= std::mem::take(&mut self.remote.wants_room);
            self.tell();
            self.turn();
        }
    }

    fn check(&self) {
        let timed_out = matches!(self.end, Some(End::HalfClosed));
        let ended = self.end.is_some();
        assert!(timed_out || ended || self.plugin.taken == self.plugin.said.len(), "the plugin is heard");
        assert!(timed_out || ended || self.remote.waiting.is_empty(), "the remote is heard");
        let mut heard = Vec::new();
        for datagram in &self.remote.taken {
            encode_datagram(self.framing, datagram, peer(), &mut heard);
        }
        let (expected, error) = self.expected();
        heard.extend(error);
        assert!(heard.starts_with(&self.plugin.heard) || timed_out, "the plugin reads something else");
        assert!(timed_out || heard.len() == self.plugin.heard.len(), "the plugin misses something");
        if self.framing == Framing::Raw {
            let flat =
                |items: &[(Vec<u8>, SocketAddr)]| items.iter().flat_map(|(payload, _)| payload.clone()).collect();
            let (got, expected): (Vec<u8>, Vec<u8>) = (flat(&self.remote.got), flat(&expected));
            assert!(expected.starts_with(&got) && (timed_out || got.len() == expected.len()), "other bytes");
        } else {
            assert!(expected.starts_with(&self.remote.got), "other datagrams");
            assert!(timed_out || self.remote.got.len() == expected.len(), "a datagram is missing");
        }
    }

    /// The datagrams that the plugin's words mean, and what it is told if it broke the rules.
    fn expected(&self) -> (Vec<(Vec<u8>, SocketAddr)>, Vec<u8>) {
        let mut decoder = Decoder::new(self.framing, Dialect::Datagrams, DATAGRAM_LIMIT);
        decoder.handle_input(&self.plugin.said[..self.plugin.taken]);
        let mut datagrams = Vec::new();
        while let Some(item) = decoder.poll_item() {
            match item {
                Ok(Item::Message { payload, to, .. }) => {
                    if to.is_none_or(may_send) {
                        datagrams.push((payload, to.unwrap_or(peer())));
                    }
                }
                Ok(Item::Close { .. } | Item::Ping(_) | Item::Pong(_)) => break,
                Err(error) if self.framing == Framing::Mesg => return (datagrams, error.close_message()),
                Err(_) => break,
            }
        }
        (datagrams, Vec::new())
    }
}

fn merge(ready: &mut Ready, news: Ready) {
    ready.readable |= news.readable;
    ready.writable |= news.writable;
    ready.hangup |= news.hangup;
}
