//! The relay of streams: whatever the sockets do, bytes arrive in order and whole, ends are passed on, nothing that is
//! ready is forgotten, and no turn is long.
//!
//! Input: the sizes, then an operation a byte, each followed by its argument. The sockets are modelled as the kernel
//! has them under edge-triggered epoll: what has been said once is not said again.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use sockproxyd::net::random::Randomness;
use sockproxyd::net::socket::Stream;
use sockproxyd::relay::buffers::{Buffers, RESERVE};
use sockproxyd::relay::pipes::Pipes;
use sockproxyd::relay::stream::StreamRelay;
use sockproxyd::relay::{End, Env, Ready, Relay, Timing};

use super::input::Input;

/// Calls to sockets that one turn may make, both ways together: others wait meanwhile.
const MOST_CALLS: usize = 600;
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 400;
/// Largest chunk in one operation.
const CHUNK: usize = 512;

const TIMING: Timing = Timing {
    receive: Some(Duration::from_secs(20)),
    idle: None,
    half_close: Duration::from_secs(5),
    stall: Duration::from_secs(60),
};

/// A peer and the kernel's end of the connection to it. Byte `n` of what it says is [`byte`] of `n`.
#[derive(Default)]
struct Peer {
    salt: u8,
    /// Said by the peer, and read by the relay.
    said: usize,
    read: usize,
    /// Written by the relay, and room for more.
    written: usize,
    room: usize,
    /// The peer says no more; the relay says no more; the connection broke.
    closed: bool,
    told: bool,
    reset: bool,
    /// The relay has met a full socket: room is worth an event.
    wants_room: bool,
    /// What an event has yet to say.
    news: Ready,
}

fn byte(salt: u8, at: usize) -> u8 {
    (at as u8).wrapping_mul(167) ^ (at >> 8) as u8 ^ salt
}

/// The relay's end.
struct Socket<'a> {
    peer: &'a RefCell<Peer>,
    /// Whose bytes it is given to write.
    source: &'a RefCell<Peer>,
    calls: &'a Cell<usize>,
}

impl Stream for Socket<'_> {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        assert!(!buffer.is_empty(), "a read of nothing looks like the end");
        let mut peer = self.peer.borrow_mut();
        let length = buffer.len().min(peer.said - peer.read);
        if length > 0 {
            let at = peer.read;
            buffer[..length].iter_mut().enumerate().for_each(|(n, place)| *place = byte(peer.salt, at + n));
            peer.read += length;
            return Ok(length);
        }
        match *peer {
            Peer { reset: true, .. } => Err(io::ErrorKind::ConnectionReset.into()),
            Peer { closed: true, .. } => Ok(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        let mut peer = self.peer.borrow_mut();
        assert!(!bytes.is_empty() && !peer.told, "nothing is said behind the end");
        if peer.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = bytes.len().min(peer.room);
        peer.wants_room |= length < bytes.len();
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (salt, at) = (self.source.borrow().salt, peer.written);
        assert!(bytes[..length].iter().enumerate().all(|(n, &said)| said == byte(salt, at + n)), "other bytes");
        peer.written += length;
        peer.room -= length;
        Ok(length)
    }

    fn shutdown_write(&mut self) {
        let mut peer = self.peer.borrow_mut();
        assert!(!peer.told, "the end is told twice");
        peer.told = true;
    }
}

struct World {
    now: Instant,
    plugin: RefCell<Peer>,
    remote: RefCell<Peer>,
    relay: StreamRelay,
    buffers: Buffers,
    pipes: Pipes,
    scratch: Vec<u8>,
    block: Option<usize>,
    each: usize,
    end: Option<End>,
}

/// The target's body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let each = RESERVE + 16 * input.below(256);
    let mut world = World::new(&mut input, each);
    for _ in 0..MOST_STEPS {
        if input.is_empty() || world.end.is_some() {
            break;
        }
        world.happen(&mut input);
        world.turn();
        world.check();
    }
    world.settle();
    world.relay.release(&mut world.buffers, &mut world.pipes);
    assert_eq!(world.buffers.held(), 0, "memory is accounted for to the end");
}

impl World {
    fn new(input: &mut Input<'_>, each: usize) -> Self {
        let now = Instant::now();
        let mut buffers = Buffers::new(each + 100, each);
        let ahead = input.below(200);
        let block = Some(input.below(64)).filter(|&block| block > 0);
        let plugin = Peer { salt: 0x5a, said: ahead, read: ahead, ..Peer::default() };
        let first = (0..ahead).map(|at| byte(plugin.salt, at)).collect();
        let relay = StreamRelay::new(now, first, (Ready::fresh(), Ready::default()), &mut buffers);
        Self {
            now,
            plugin: RefCell::new(plugin),
            remote: RefCell::default(),
            relay,
            buffers,
            pipes: Pipes::new(0),
            scratch: vec![0; each],
            block,
            each,
            end: None,
        }
    }

    /// Something happens to one of the peers, or an event tells of what has happened.
    fn happen(&mut self, input: &mut Input<'_>) {
        let (kind, argument) = (input.byte(), usize::from(input.byte()));
        if kind >= 0xf0 {
            self.now += Duration::from_millis(argument as u64 * 100);
            if let Some(end) = self.relay.handle_timeout(&TIMING, self.now) {
                self.end = Some(end);
            }
            return;
        }
        let on_plugin = kind & 1 == 0;
        let mut peer = if on_plugin { self.plugin.borrow_mut() } else { self.remote.borrow_mut() };
        match kind >> 1 & 7 {
            0..=2 if !peer.closed && !peer.reset => {
                peer.said += argument * CHUNK / 16;
                peer.news.readable |= argument > 0;
            }
            3 => {
                peer.room += argument * CHUNK / 16;
                if peer.wants_room && peer.room > 0 {
                    (peer.wants_room, peer.news.writable) = (false, true);
                }
            }
            4 if argument > 100 && !peer.reset => {
                peer.closed = true;
                peer.news = Ready { readable: true, hangup: true, broken: peer.told || peer.news.broken, ..peer.news };
            }
            5 if argument > 200 => {
                peer.reset = true;
                peer.news = Ready { readable: true, writable: true, hangup: true, broken: true, ..peer.news };
            }
            _ => {
                drop(peer);
                self.tell(on_plugin);
            }
        }
    }

    /// An event says what has happened since the last one.
    fn tell(&mut self, on_plugin: bool) {
        let (peer, ready) = match on_plugin {
            true => (&self.plugin, self.relay.plugin_ready()),
            false => (&self.remote, self.relay.remote_ready()),
        };
        let news = std::mem::take(&mut peer.borrow_mut().news);
        ready.readable |= news.readable;
        ready.writable |= news.writable;
        ready.hangup |= news.hangup;
        ready.broken |= news.broken;
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) {
        for _ in 0..10_000 {
            if self.end.is_some() {
                return;
            }
            let calls = Cell::new(0);
            let mut plugin = Socket { peer: &self.plugin, source: &self.remote, calls: &calls };
            let mut remote = Socket { peer: &self.remote, source: &self.plugin, calls: &calls };
            let mut env = Env {
                now: self.now,
                scratch: &mut self.scratch,
                buffers: &mut self.buffers,
                pipes: &mut self.pipes,
                entropy: &mut Randomness::default(),
                block: self.block,
            };
            let turn = self.relay.run(&mut plugin, &mut remote, &mut env);
            assert!(calls.get() <= MOST_CALLS, "{} calls in a turn", calls.get());
            self.end = turn.end;
            if !turn.again {
                return;
            }
        }
        panic!("turns without end");
    }

    fn check(&self) {
        let (plugin, remote) = (self.plugin.borrow(), self.remote.borrow());
        assert_eq!(self.relay.held(), self.buffers.held());
        assert!(self.relay.held() <= 2 * self.each.max(RESERVE), "{} bytes are held", self.relay.held());
        assert_eq!((self.relay.sent(), self.relay.received()), (remote.written as u64, plugin.written as u64));
        for (told, said, written, broken) in [
            (plugin.told, remote.said, plugin.written, remote.reset),
            (remote.told, plugin.said, remote.written, plugin.reset),
        ] {
            assert!(!told || broken || said == written, "the end came before all was passed on");
        }
        let gone = plugin.closed || plugin.reset || remote.closed || remote.reset;
        let known = self.end.is_some() || plugin.news != Ready::default() || remote.news != Ready::default();
        assert!(!gone || known || self.relay.deadline(&TIMING).is_some(), "one side has gone, and nobody waits for it");
    }

    /// Both read whatever comes, and every event is told: then all that was said has arrived.
    fn settle(&mut self) {
        if self.end.is_some() {
            return;
        }
        for _ in 0..4 {
            for peer in [&self.plugin, &self.remote] {
                let mut peer = peer.borrow_mut();
                peer.room = usize::MAX / 2;
                peer.news.writable |= std::mem::take(&mut peer.wants_room);
            }
            self.tell(true);
            self.tell(false);
            self.turn();
        }
        let (plugin, remote) = (self.plugin.borrow(), self.remote.borrow());
        if !plugin.reset && !remote.reset {
            assert_eq!(remote.written, plugin.said, "to the remote");
            assert_eq!(plugin.written, remote.said, "to the plugin");
            assert_eq!((plugin.told, remote.told), (remote.closed, plugin.closed), "ends are passed on");
        } else {
            let ends = self.end.is_some() || self.relay.deadline(&TIMING).is_some();
            assert!(ends, "a connection broke, and nobody notices");
        }
    }
}
