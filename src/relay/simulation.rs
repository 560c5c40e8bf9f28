//! A seeded simulation of the stream relay: short reads and writes, stalls, resets, jumps of the clock.
//!
//! After each step the invariants hold; in the end every byte that was accepted has arrived, in order, or its loss is
//! one that a reset explains.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lab::random::Random;

use super::buffers::Buffers;
use super::pipes::Pipes;
use super::stream::StreamRelay;
use super::{End, Env, Ready, Relay, Timing};
use crate::net::random::Randomness;
use crate::net::socket::Stream;

/// A number below `below`.
fn pick(random: &mut Random, below: usize) -> usize {
    random.below(below as u64) as usize
}

/// The kernel's end of a connection, and the peer behind it.
#[derive(Debug, Default)]
struct Peer {
    /// Sent by the peer, not yet read by the relay.
    inbound: VecDeque<u8>,
    /// The peer sends no more.
    closed: bool,
    /// The connection broke.
    reset: bool,
    /// Written by the relay and taken by the peer.
    outbound: Vec<u8>,
    /// How much the relay may write now.
    window: usize,
    /// How much the stream takes in beyond that, as one that encrypts does.
    pouch: usize,
    /// Taken in, and not yet pushed out to the peer.
    withheld: Vec<u8>,
    /// The relay said that it sends no more.
    told: bool,
    /// All that the peer ever sent.
    sent: Vec<u8>,
    next: u8,
}

impl Peer {
    fn say(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.inbound.push_back(self.next);
            self.sent.push(self.next);
            self.next = self.next.wrapping_mul(31).wrapping_add(7);
        }
    }

    fn push_out(&mut self) {
        let length = self.withheld.len().min(self.window);
        self.window -= length;
        self.outbound.extend(self.withheld.drain(..length));
    }

    /// What the relay has written, wherever it is now.
    fn taken(&self) -> Vec<u8> {
        [&self.outbound[..], &self.withheld].concat()
    }
}

struct Mock {
    peer: Rc<RefCell<Peer>>,
    random: Rc<RefCell<Random>>,
}

impl Stream for Mock {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut peer = self.peer.borrow_mut();
        if pick(&mut self.random.borrow_mut(), 20) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if !peer.inbound.is_empty() {
            let length = peer.inbound.len().min(buffer.len());
            for (place, byte) in buffer.iter_mut().zip(peer.inbound.drain(..length)) {
                *place = byte;
            }
            return Ok(length);
        }
        if peer.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if peer.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut peer = self.peer.borrow_mut();
        assert!(!peer.told, "bytes behind the end");
        if peer.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        peer.push_out();
        let length = bytes.len().min(peer.window + peer.pouch - peer.withheld.len());
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        peer.withheld.extend_from_slice(&bytes[..length]);
        peer.push_out();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut peer = self.peer.borrow_mut();
        if peer.reset && !peer.withheld.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        peer.push_out();
        match pick(&mut self.random.borrow_mut(), 20) {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1..9 if !peer.withheld.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(peer.withheld.is_empty()),
        }
    }

    fn shutdown_write(&mut self) {
        let mut peer = self.peer.borrow_mut();
        assert!(!peer.told, "the end is told twice");
        peer.told = true;
    }
}

const TIMING: Timing =
    Timing { receive: None, idle: None, half_close: Duration::from_secs(5), stall: Duration::from_secs(300) };

struct World {
    random: Rc<RefCell<Random>>,
    now: Instant,
    plugin: Mock,
    remote: Mock,
    relay: StreamRelay,
    buffers: Buffers,
    pipes: Pipes,
    scratch: Vec<u8>,
    end: Option<End>,
    block: Option<usize>,
    told_plugin: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = Rc::new(RefCell::new(Random::new(seed)));
        let now = Instant::now();
        let mut buffers = Buffers::new(8192, 4096);
        let ahead = pick(&mut random.borrow_mut(), 3) * 100;
        let plugin = Peer { next: 1, ..Peer::default() };
        let mock = |peer| Mock { peer: Rc::new(RefCell::new(peer)), random: Rc::clone(&random) };
        let plugin = mock(plugin);
        plugin.peer.borrow_mut().say(ahead);
        let first: Vec<u8> = plugin.peer.borrow_mut().inbound.drain(..).collect();
        let writable = Ready::fresh();
        let block = (pick(&mut random.borrow_mut(), 3) == 0).then_some(7);
        let pouch = pick(&mut random.borrow_mut(), 2) * 300;
        let remote = mock(Peer { next: 2, pouch, ..Peer::default() });
        // Some remotes answer and end before anybody looks, in one event with the connection's success.
        let brief = pick(&mut random.borrow_mut(), 4) == 0;
        if brief {
            remote.peer.borrow_mut().say(50);
            remote.peer.borrow_mut().closed = true;
        }
        let relay = StreamRelay::new(now, first, (writable, Ready { hangup: brief, ..writable }), &mut buffers);
        plugin.peer.borrow_mut().window = 100;
        Self {
            random,
            now,
            plugin,
            remote,
            relay,
            buffers,
            pipes: Pipes::new(0),
            scratch: vec![0; 1024],
            end: None,
            block,
            told_plugin: false,
        }
    }

    fn chance(&self, of: usize) -> usize {
        pick(&mut self.random.borrow_mut(), of)
    }

    /// Something happens to one of the peers, and the kernel says so, as edge-triggered epoll would.
    fn happen(&mut self, quiet: bool) {
        let on_plugin = self.chance(2) == 0;
        let (mock, ready) = match on_plugin {
            true => (&self.plugin, self.relay.plugin_ready()),
            false => (&self.remote, self.relay.remote_ready()),
        };
        let mut random = self.random.borrow_mut();
        let mut peer = mock.peer.borrow_mut();
        match pick(&mut random, if quiet { 40 } else { 100 }) {
            0..=29 => {
                peer.window += pick(&mut random, 2000);
                ready.writable = true;
            }
            30..=34 if !peer.reset && pick(&mut random, 100) == 0 => {
                peer.closed = true;
                ready.readable = true;
                ready.hangup = true;
            }
            30..=99 if !peer.closed && !peer.reset && !quiet => {
                peer.say(pick(&mut random, 3000));
                ready.readable = true;
                if pick(&mut random, 1500) == 0 {
                    peer.reset = true;
                    ready.writable = true;
                    ready.hangup = true;
                }
            }
            _ => {}
        }
    }

    fn turn(&mut self) {
        for _ in 0..1000 {
            let mut env = Env {
                now: self.now,
                scratch: &mut self.scratch,
                buffers: &mut self.buffers,
                pipes: &mut self.pipes,
                entropy: &mut Randomness::default(),
                block: self.block,
            };
            let turn = self.relay.run(&mut self.plugin, &mut self.remote, &mut env);
            assert!(!(turn.told_end && self.told_plugin), "the end is told once");
            self.told_plugin |= turn.told_end;
            self.end = turn.end;
            if !turn.again || self.end.is_some() {
                return;
            }
        }
        panic!("a turn without end");
    }

    fn check(&self) {
        let (plugin, remote) = (self.plugin.peer.borrow(), self.remote.peer.borrow());
        assert!(plugin.sent.starts_with(&remote.taken()), "to the remote");
        assert!(remote.sent.starts_with(&plugin.outbound), "to the plugin");
        assert_eq!(self.relay.held(), self.buffers.held());
        assert!(self.relay.held() <= 2 * 4096 + 200, "held {}", self.relay.held());
        assert_eq!(self.relay.sent(), remote.taken().len() as u64);
        assert_eq!(self.relay.received(), plugin.outbound.len() as u64);
        if let Some(due) = self.relay.deadline(&TIMING) {
            assert!(due >= self.now || self.relay.handle_timeout(&TIMING, self.now).is_some());
        }
        if plugin.told && !remote.reset {
            assert_eq!(plugin.outbound.len(), remote.sent.len(), "the end was told before all was passed on");
        }
        if remote.told && !plugin.reset {
            assert_eq!(remote.taken().len(), plugin.sent.len(), "the end was told before all was passed on");
        }
        if !remote.reset && (self.end == Some(End::Done) || remote.window > 0) {
            assert_eq!(remote.withheld, b"", "the stream was not asked to push out what it holds");
        }
    }
}

fn run(seed: u64) -> End {
    let mut world = World::new(seed);
    for step in 0.. {
        world.happen(step > 2000);
        world.turn();
        world.check();
        if let Some(end) = world.end {
            world.relay.release(&mut world.buffers, &mut world.pipes);
            assert_eq!(world.buffers.held(), 0);
            return end;
        }
        // Now and then a while passes; when nothing else happens any more, the time limits must end it.
        if world.chance(if step > 2000 { 2 } else { 50 }) == 0 {
            world.now += Duration::from_millis(world.chance(1500) as u64);
        }
        if let Some(end) = world.relay.handle_timeout(&TIMING, world.now) {
            world.relay.release(&mut world.buffers, &mut world.pipes);
            assert_eq!(world.buffers.held(), 0);
            return end;
        }
        if step > 4000 {
            // Both are open and silent: they may stay so for ever.
            let closed = world.plugin.peer.borrow().closed || world.remote.peer.borrow().closed;
            assert!(!closed || step < 100_000, "it never ends");
            if !closed {
                return End::Idle;
            }
        }
    }
    unreachable!()
}

#[test]
fn last_words_that_the_stream_itself_holds_are_pushed_out() {
    for comes_room in [true, false] {
        let mut world = World::new(1);
        world.plugin.peer.borrow_mut().window = 10_000;
        world.plugin.peer.borrow_mut().say(100);
        *world.remote.peer.borrow_mut() = Peer { pouch: 1000, closed: true, ..Peer::default() };
        world.relay.plugin_ready().readable = true;
        world.relay.remote_ready().readable = true;
        world.turn();
        world.now += Duration::from_secs(60);
        world.plugin.peer.borrow_mut().closed = true;
        world.relay.plugin_ready().readable = true;
        world.turn();
        assert!(world.remote.peer.borrow().told && world.plugin.peer.borrow().told);
        assert_eq!(world.end, None, "the remote has yet to take what the stream holds");
        assert_eq!(world.relay.deadline(&TIMING), Some(world.now + TIMING.half_close));
        if comes_room {
            world.remote.peer.borrow_mut().window = 10_000;
            world.relay.remote_ready().writable = true;
            world.turn();
            assert_eq!(world.end, Some(End::Done));
            world.check();
        } else {
            world.now += TIMING.half_close;
            assert_eq!(world.relay.handle_timeout(&TIMING, world.now), Some(End::Stalled));
        }
    }
}

#[test]
fn bytes_arrive_in_order_whatever_the_sockets_do() {
    let mut ends = std::collections::HashMap::new();
    for seed in 0..80 {
        let end = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        *ends.entry(end.to_string()).or_insert(0) += 1;
    }
    // The simulation is worth something only if it sees every kind of end.
    for end in [End::Done, End::PluginLost, End::RemoteLost, End::HalfClosed, End::Stalled] {
        assert!(ends.contains_key(&end.to_string()), "{end} never happened: {ends:?}");
    }
}
