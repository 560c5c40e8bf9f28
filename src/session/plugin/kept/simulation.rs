//! A seeded simulation of a Luup that restarts at any moment, a thousand times: a remote that says numbered messages, a
//! plugin that reads in pieces, and sockets that take as much as they like.
//!
//! With SEEN every message is read once and in order. Without, exactly those are lost that the old socket had taken
//! whole and the plugin had not read; what it had taken half goes again.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use testkit::random::Random;

use super::KeptPlugin;
use crate::net::endpoint::{Endpoint, SocketEndpoint, Transfer};
use crate::net::readiness::Readiness;
use crate::net::socket::Stream;
use crate::protocol::framing::Framing;
use crate::relay::memory_budget::MemoryBudget;
use crate::testing::seeds::for_each_seed;

/// Restarts in one run.
const RESTARTS: usize = 1000;
/// Bytes of history that may be kept: more than a socket ever holds here.
const HISTORY: usize = 4096;
/// A socket takes so many bytes at most.
const SOCKET: usize = 2048;

/// The kernel's end of a plugin's connection.
#[derive(Debug, Default)]
struct Peer {
    taken: Vec<u8>,
    room: usize,
    closed: bool,
}

#[derive(Debug)]
struct Socket(Rc<RefCell<Peer>>);

impl Stream for Socket {
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.0.borrow().closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut peer = self.0.borrow_mut();
        if peer.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = bytes.len().min(peer.room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        peer.room -= length;
        peer.taken.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {
        unreachable!("the remote never ends here");
    }
}

/// A connection that was made just now.
fn fresh(peer: &Rc<RefCell<Peer>>) -> SocketEndpoint<Socket> {
    SocketEndpoint::new(Socket(Rc::clone(peer)), Readiness::FRESH)
}

struct World {
    random: Random,
    framing: Framing,
    kept: KeptPlugin<Socket>,
    budget: MemoryBudget,
    now: Instant,
    peer: Rc<RefCell<Peer>>,
    /// All that the remote has said, and where each message ends.
    said: Vec<u8>,
    ends: Vec<usize>,
    /// What of it [`KeptPlugin`] has not taken.
    unsent: Vec<u8>,
    /// What the plugin has read of this connection, and where in `said` that begins.
    read: Vec<u8>,
    start: usize,
    /// Restarts at which a message was sent in part.
    halves: usize,
    lost: usize,
}

impl World {
    fn new(seed: u64, framing: Framing) -> Self {
        let peer = Rc::new(RefCell::new(Peer::default()));
        let now = Instant::now();
        Self {
            random: Random::new(seed),
            framing,
            kept: KeptPlugin::new(fresh(&peer), framing, false, now),
            budget: MemoryBudget::new(1 << 20, 3000),
            now,
            peer,
            said: Vec::new(),
            ends: vec![0],
            unsent: Vec::new(),
            read: Vec::new(),
            start: 0,
            halves: 0,
            lost: 0,
        }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.random.below(below as u64) as usize
    }

    fn say(&mut self) {
        let number = self.ends.len();
        let filler = "x".repeat(self.pick(300));
        let message = match self.framing {
            Framing::Mesg => format!("TEXT {}\n{number}\n{filler}", number.to_string().len() + 1 + filler.len()),
            _ => format!("{number}{filler}\n"),
        };
        self.said.extend_from_slice(message.as_bytes());
        self.unsent.extend_from_slice(message.as_bytes());
        match self.framing {
            Framing::Raw => self.ends.extend(self.said.len() - message.len() + 1..=self.said.len()),
            _ => self.ends.push(self.said.len()),
        }
    }

    /// A turn of the relay.
    fn turn(&mut self) {
        self.kept.begin_turn(HISTORY, &self.budget);
        while !self.unsent.is_empty() {
            let piece = 1 + self.pick(self.unsent.len());
            match self.kept.try_write(&self.unsent[..piece]) {
                Transfer::Bytes(sent) => drop(self.unsent.drain(..sent)),
                _ => break,
            }
        }
        // Nothing is said by this plugin, but its end must be seen.
        if self.kept.is_readable() {
            self.kept.try_read(&mut [0; 16]);
        }
        self.kept.end_turn(self.now, &mut self.budget);
        let held = self.budget.held();
        assert!(held >= self.kept.waiting());
        assert!(held <= 3000 + HISTORY + SOCKET, "{held} bytes are held");
        assert!(self.budget.history() <= HISTORY + SOCKET + 400, "{} bytes are kept", self.budget.history());
    }

    /// The plugin reads some of what its socket holds.
    fn listen(&mut self) {
        let length = self.peer.borrow().taken.len();
        let length = self.pick(length + 1);
        self.read.extend(self.peer.borrow_mut().taken.drain(..length));
        assert!(self.said[self.start..].starts_with(&self.read), "what is read is what was said, in order");
        let room = self.pick(600);
        let mut peer = self.peer.borrow_mut();
        peer.room = (peer.room + room).min(SOCKET - peer.taken.len());
        drop(peer);
        self.kept.handle_event(Readiness { writable: true, ..Readiness::default() });
    }

    /// How many whole messages end in `said` at or before `at`.
    fn whole(&self, at: usize) -> usize {
        self.ends.partition_point(|&end| end <= at) - 1
    }

    /// Luup restarts: the socket goes with all that it holds. Half of a message that was read is forgotten.
    fn restart(&mut self, with_seen: bool) {
        let read = self.whole(self.start + self.read.len());
        let taken = self.start + self.read.len() + self.peer.borrow().taken.len();
        let handed = self.whole(taken);
        self.halves += usize::from(self.ends[handed] < taken);
        // The end is seen at once, or only when the next comes.
        if self.pick(2) == 0 {
            self.peer.borrow_mut().closed = true;
            let reported = self.pick(2) == 0;
            self.kept.handle_event(Readiness { readable: true, read_closed: reported, ..Readiness::default() });
            for _ in 0..self.pick(4) {
                self.say();
                self.turn();
            }
        }
        let (seen, next) = if with_seen { (Some(read), read) } else { (None, handed) };
        assert_eq!(self.kept.resume(seen.map(|seen| seen as u64)), Ok(()), "{read} of {handed} read");
        self.lost += next - read;
        self.peer = Rc::new(RefCell::new(Peer { room: self.pick(200), ..Peer::default() }));
        let reply = b"OK ATCH\n";
        self.peer.borrow_mut().room += reply.len();
        self.kept.attach(fresh(&self.peer), Vec::new(), reply.to_vec(), self.now);
        self.turn();
        let said: Vec<u8> = self.peer.borrow_mut().taken.drain(..reply.len()).collect();
        assert_eq!(said, reply, "the reply comes first");
        self.start = self.ends[next];
        self.read = Vec::new();
    }
}

fn run(seed: u64, framing: Framing, with_seen: bool) -> World {
    let mut world = World::new(seed, framing);
    let mut restarts = 0;
    while restarts < RESTARTS {
        match world.pick(10) {
            0..=2 => world.say(),
            3..=7 => world.listen(),
            8 => {
                restarts += 1;
                world.restart(with_seen);
            }
            _ => {}
        }
        world.turn();
    }
    // In the end everything is read.
    while world.start + world.read.len() < world.said.len() {
        world.listen();
        world.turn();
    }
    world
}

#[test]
fn with_seen_no_message_is_lost_and_none_comes_twice() {
    for_each_seed("session::kept::simulation::with_seen", 5, |seed| {
        for framing in [Framing::Raw, Framing::Line, Framing::Mesg] {
            let world = run(seed, framing, true);
            assert_eq!(world.lost, 0, "{framing:?}");
            assert!(framing == Framing::Raw || world.halves > 50, "half a message is rare: {}", world.halves);
        }
    });
}

#[test]
fn without_it_exactly_what_the_old_socket_held_is_lost() {
    for_each_seed("session::kept::simulation::without_it", 5, |seed| {
        for framing in [Framing::Raw, Framing::Line, Framing::Mesg] {
            let world = run(seed, framing, false);
            assert!(world.lost > 50, "the simulation loses nothing with {framing:?}: {}", world.lost);
        }
    });
}
