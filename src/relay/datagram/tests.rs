use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::*;
use crate::net::endpoint::SocketEndpoint;
use crate::net::random::RandomSource;
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::testing::TIMING;

/// A plugin that says `said`, then ends where `ends`, and takes `room` bytes.
#[derive(Default)]
struct Plugin {
    said: Vec<u8>,
    ends: bool,
    room: usize,
    heard: Vec<u8>,
    calls: Cell<usize>,
}

impl Stream for Plugin {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        let length = buffer.len().min(self.said.len());
        if length == 0 && !self.ends {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..length].copy_from_slice(&self.said[..length]);
        self.said.drain(..length);
        Ok(length)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        let length = bytes.len().min(self.room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= length;
        self.heard.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {}
}

/// A remote whose datagrams never cease.
struct Chatty {
    datagram: Vec<u8>,
    got: Vec<Vec<u8>>,
}

impl Datagrams for Chatty {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if self.datagram.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..self.datagram.len()].copy_from_slice(&self.datagram);
        Ok((self.datagram.len(), target()))
    }

    fn send_to(&mut self, payload: &[u8], _: SocketAddr) -> io::Result<usize> {
        if payload == b"lost" {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        self.got.push(payload.to_vec());
        Ok(payload.len())
    }
}

fn target() -> SocketAddr {
    "192.0.2.1:1900".parse().unwrap()
}

struct World {
    now: Instant,
    plugin: SocketEndpoint<Plugin>,
    remote: DatagramEndpoint<Chatty>,
    relay: DatagramRelay,
    buffers: MemoryBudget,
    unsent: Vec<SocketAddr>,
    block: Option<usize>,
}

impl World {
    fn new(framing: Framing, said: &[u8], datagram: &[u8]) -> Self {
        let now = Instant::now();
        Self {
            now,
            plugin: SocketEndpoint::new(
                Plugin { said: said.to_vec(), room: usize::MAX, ..Plugin::default() },
                Readiness::FRESH,
            ),
            remote: DatagramEndpoint::new(Chatty { datagram: datagram.to_vec(), got: Vec::new() }),
            relay: DatagramRelay::new(now, target(), framing, b""),
            buffers: MemoryBudget::new(1 << 20, 1 << 16),
            unsent: Vec::new(),
            block: None,
        }
    }

    fn turn(&mut self) -> RelayTurn {
        let mut env = RelayContext {
            now: self.now,
            scratch: &mut vec![0; super::super::SCRATCH_SIZE],
            budget: &mut self.buffers,
            pipes: &mut PipePool::new(0),
            entropy: &mut RandomSource::default(),
            block: self.block,
            heals: false,
            trace: None,
        };
        let turn =
            self.relay.run(&mut self.plugin, &mut self.remote, &|_| true, &mut |to, _| self.unsent.push(to), &mut env);
        assert_eq!(self.buffers.held(), self.relay.held());
        turn
    }
}

#[test]
fn a_small_block_makes_no_long_turn() {
    let mut world = World::new(Framing::Raw, &[b'x'; 1000], &[b'y'; 60_000]);
    world.block = Some(1);
    assert!(world.turn().again);
    assert!(world.plugin.stream().calls.get() <= 3 * TURN_DATAGRAMS, "{} calls", world.plugin.stream().calls.get());
    assert!(world.remote.socket_mut().got.iter().all(|datagram| datagram == b"x"), "reads are of a block");
}

#[test]
fn a_datagram_that_the_system_does_not_send_is_reported_and_the_next_is_sent() {
    let mut world = World::new(Framing::Mesg, b"TEXT 4\nlostDGRM 4 192.0.2.2:5\nlostTEXT 3\none", b"");
    assert_eq!(world.turn().end, None);
    assert_eq!(world.unsent, [target(), "192.0.2.2:5".parse().unwrap()]);
    assert_eq!(world.remote.socket_mut().got, [b"one"]);
    assert_eq!((world.relay.sent(), world.relay.held()), (3, 0));
}

#[test]
fn the_memory_of_a_long_line_is_given_back_and_counted_until_then() {
    let mut world = World::new(Framing::Line, &[b'x'; 60_000], b"");
    world.turn();
    assert!(world.relay.held() >= 60_000);
    world.plugin.stream_mut().said = b"\ny".to_vec();
    world.plugin.handle_event(Readiness::FRESH);
    while world.turn().again {}
    assert_eq!((world.relay.sent(), world.relay.decoder.buffered()), (60_000, 1));
    assert!(world.relay.held() < 100, "{} bytes held", world.relay.held());
}

#[test]
fn nothing_follows_what_the_plugin_is_told_at_the_end() {
    let mut world = World::new(Framing::Mesg, b"nonsense\n", b"hello");
    world.plugin.stream_mut().room = 10;
    assert_eq!(world.turn().end, None);
    world.plugin.stream_mut().room = usize::MAX;
    world.plugin.handle_event(Readiness::FRESH);
    world.remote.assume_readable();
    assert_eq!(world.turn().end, Some(CloseReason::BadFraming));
    assert_eq!(world.plugin.stream().heard, b"DGRM 5 192.0.2.1:1900\nhelloCLOS 1002 18\nPARSE unknown verb");
}

#[test]
fn the_time_of_half_close_begins_with_it() {
    let mut world = World::new(Framing::Raw, b"ask", b"");
    world.turn();
    assert_eq!(world.remote.socket_mut().got, [b"ask"]);
    assert_eq!(world.relay.deadline(&TIMING), None);
    world.now += Duration::from_secs(60);
    world.plugin.stream_mut().ends = true;
    world.plugin.assume_readable();
    assert_eq!(world.turn().end, None);
    assert_eq!(world.relay.deadline(&TIMING), Some(world.now + TIMING.half_close));
    world.now += Duration::from_secs(4);
    world.remote.socket_mut().datagram = b"answer".to_vec();
    world.plugin.stream_mut().room = 6;
    world.remote.assume_readable();
    world.turn();
    assert_eq!(world.plugin.stream().heard, b"answer");
    assert_eq!(world.relay.deadline(&TIMING), Some(world.now + TIMING.half_close), "an answer is progress");
}

#[test]
fn half_a_message_is_failed_when_memory_has_run_out() {
    let (head, rest) = ([b"BINA 60000\n".as_slice(), &[b'x'; 30_000]].concat(), vec![b'x'; 30_000]);
    let mut world = World::new(Framing::Mesg, &head, b"");
    assert_eq!((world.turn().end, world.relay.held()), (None, head.len()), "what has been read is counted");
    world.plugin.stream_mut().said = rest;
    world.plugin.assume_readable();
    assert_eq!((world.turn().end, world.relay.held()), (None, 0));
    assert_eq!(world.remote.socket_mut().got, [vec![b'x'; 60_000]]);

    let mut world = World::new(Framing::Mesg, &head, b"");
    world.buffers = MemoryBudget::new(20_000, 20_000);
    assert_eq!((world.turn().end, world.relay.held()), (Some(CloseReason::BadFraming), 0));
    assert_eq!(world.plugin.stream().heard, FramingError::NoMemory.close_message());

    let mut world = World::new(Framing::Mesg, b"BINA 60000\nhello", b"");
    world.buffers = MemoryBudget::new(0, 0);
    assert_eq!(world.turn().end, None, "a little is always held");
}
