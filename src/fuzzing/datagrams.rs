//! The relay of a stream and datagrams: whatever the sockets do, a plugin's messages become datagrams in order, it
//! reads every datagram that was taken, and no turn is long.
//!
//! Input: the framing and the size of a block, then an operation a byte, each followed by its argument.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::endpoint::{DatagramEndpoint, SocketEndpoint};
use crate::net::readiness::Readiness;
use crate::net::socket::Datagrams;
use crate::protocol::framing::{Decoder, Framing, FramingKind, Item, MAX_DATAGRAM_LEN, encode_datagram};
use crate::relay::datagram::DatagramRelay;
use crate::relay::memory_budget::MemoryBudget;
use crate::relay::{CloseReason, Relay, SCRATCH_SIZE, Timing};
use crate::testing::TestContext;
use crate::testing::wire::{FaultProfile, Wire, WireEndpoint, deliver_event};

use super::input::Input;

/// Calls to sockets that one turn may make: others wait meanwhile.
const MOST_CALLS: usize = 600;
/// Operations: a longer story tells nothing new.
const MOST_STEPS: usize = 200;

const TIMING: Timing = Timing { stall: Duration::from_secs(60), ..crate::testing::TIMING };

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
        0..=7 if word.is_empty() => vec![b'x'; MAX_DATAGRAM_LEN],
        0..=7 => word.to_vec(),
        times => word.repeat(times * 50),
    }
}

/// The remote, which answers datagrams.
#[derive(Default)]
struct Remote {
    /// Datagrams on their way to the plugin, and those that the relay has taken.
    waiting: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    got: Vec<(Vec<u8>, SocketAddr)>,
    /// Datagrams that the system will not send, and those that it has not sent. They are among `got`.
    failing: usize,
    failed: usize,
    room: usize,
    wants_room: bool,
    news: Readiness,
    calls: usize,
}

impl Datagrams for Remote {
    fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.calls += 1;
        if self.waiting.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let datagram = self.waiting.remove(0);
        buffer[..datagram.len()].copy_from_slice(&datagram);
        self.taken.push(datagram);
        Ok((self.taken[self.taken.len() - 1].len(), peer()))
    }

    fn send_to(&mut self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.calls += 1;
        if self.room == 0 {
            self.wants_room = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= 1;
        self.got.push((payload.to_vec(), to));
        if self.failing > 0 {
            (self.failing, self.failed) = (self.failing - 1, self.failed + 1);
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
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
    around: TestContext,
    framing: Framing,
    plugin: WireEndpoint,
    remote: DatagramEndpoint<Remote>,
    relay: DatagramRelay,
    /// Datagrams of which the relay has reported that they were not sent.
    unsent: usize,
    end: Option<CloseReason>,
    /// A time limit runs.
    limited: bool,
}

/// The target's body.
pub fn run(data: &[u8]) {
    run_story(data);
}

/// Runs what `data` says. Returns how the relay ended, if it did.
pub(crate) fn run_story(data: &[u8]) -> Option<CloseReason> {
    let mut input = Input::new(data);
    let framing = [Framing::Raw, Framing::Line, Framing::Mesg][input.below(3)];
    let mut around = TestContext::new(MemoryBudget::new(1 << 20, 1 << 16), SCRATCH_SIZE);
    around.block = Some(input.below(64)).filter(|&block| block > 0);
    let mut world = World {
        framing,
        plugin: SocketEndpoint::new(Wire::new(FaultProfile::default()), Readiness::FRESH),
        remote: DatagramEndpoint::new(Remote::default()),
        relay: DatagramRelay::new(around.now, peer(), framing, b""),
        around,
        unsent: 0,
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
    world.relay.release(&mut world.around.budget, &mut world.around.pipes);
    assert_eq!(world.around.budget.held(), 0, "memory is accounted for to the end");
    world.end
}

impl World {
    fn happen(&mut self, input: &mut Input<'_>) {
        let (kind, argument) = (input.below(8), usize::from(input.byte()));
        match kind {
            0 | 1 if !self.plugin.stream().is_closed() && self.plugin.stream().sent.len() < 200_000 => {
                self.plugin.stream_mut().send_bytes(&said(argument));
            }
            2 => {
                self.remote.socket_mut().waiting.push(vec![b'\n'; argument % 4 * argument]);
                self.remote.socket_mut().news.readable = true;
            }
            3 => self.plugin.stream_mut().make_room(argument * argument),
            4 => {
                let remote = self.remote.socket_mut();
                remote.room += argument;
                remote.news.writable |= remote.room > 0 && std::mem::take(&mut remote.wants_room);
            }
            5 if argument > 200 => self.plugin.stream_mut().close(),
            5 if argument < 8 => self.remote.socket_mut().failing = argument,
            6 => {
                self.around.now += Duration::from_millis(argument as u64 * 100);
                self.end = self.relay.handle_timeout(&TIMING, self.around.now);
            }
            _ => self.tell(),
        }
    }

    /// An event says what has happened since the last one.
    fn tell(&mut self) {
        deliver_event(&mut self.plugin);
        let event = std::mem::take(&mut self.remote.socket_mut().news);
        self.remote.handle_event(event);
    }

    /// One turn, and those that it asks for.
    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let Self { around, plugin, remote, relay, limited, unsent, .. } = self;
        let turn = around.turns(|cx| {
            let now = cx.now;
            let turn = relay.run(plugin, remote, &may_send, &mut |_, _| *unsent += 1, cx);
            let calls = plugin.stream_mut().take_calls() + std::mem::take(&mut remote.socket_mut().calls);
            assert!(calls <= MOST_CALLS, "{calls} calls in a turn");
            if let (false, Some(due), None) = (*limited, relay.deadline(&TIMING), turn.end) {
                assert!(due >= now + TIMING.half_close, "the limit began before what it limits");
                *limited = true;
            }
            turn
        });
        self.end = turn.end;
    }

    /// There is room for everything, and every event is told: then all has arrived.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.plugin.stream_mut().make_room(usize::MAX / 8);
            self.remote.socket_mut().room = usize::MAX / 2;
            let remote = self.remote.socket_mut();
            remote.news.writable |= std::mem::take(&mut remote.wants_room);
            self.tell();
            self.turn();
        }
    }

    fn check(&mut self) {
        assert_eq!(self.unsent, self.remote.socket().failed, "what is not sent is reported");
        let timed_out = matches!(self.end, Some(CloseReason::HalfClosed));
        let ended = self.end.is_some();
        assert!(timed_out || ended || self.plugin.stream().unread() == 0, "the plugin is heard");
        assert!(timed_out || ended || self.remote.socket().waiting.is_empty(), "the remote is heard");
        let mut heard = Vec::new();
        for datagram in &self.remote.socket().taken {
            encode_datagram(self.framing, datagram, peer(), &mut heard);
        }
        let (expected, error) = self.expected();
        heard.extend(error);
        assert!(heard.starts_with(&self.plugin.stream().received) || timed_out, "the plugin reads something else");
        assert!(timed_out || heard.len() == self.plugin.stream().received.len(), "the plugin misses something");
        if self.framing == Framing::Raw {
            let flat =
                |items: &[(Vec<u8>, SocketAddr)]| items.iter().flat_map(|(payload, _)| payload.clone()).collect();
            let (got, expected): (Vec<u8>, Vec<u8>) = (flat(&self.remote.socket().got), flat(&expected));
            assert!(expected.starts_with(&got) && (timed_out || got.len() == expected.len()), "other bytes");
        } else {
            assert!(expected.starts_with(&self.remote.socket().got), "other datagrams");
            assert!(timed_out || self.remote.socket().got.len() == expected.len(), "a datagram is missing");
        }
    }

    /// The datagrams that the plugin's words mean, and what it is told if it broke the rules.
    fn expected(&self) -> (Vec<(Vec<u8>, SocketAddr)>, Vec<u8>) {
        let mut decoder = Decoder::new(self.framing, FramingKind::Datagrams, MAX_DATAGRAM_LEN);
        decoder.handle_input(&self.plugin.stream().sent[..self.plugin.stream().read]);
        let mut datagrams = Vec::new();
        while let Some(item) = decoder.poll_item() {
            match item {
                Ok(Item::Message { payload, to, .. }) => {
                    if to.is_none_or(may_send) {
                        datagrams.push((payload.to_vec(), to.unwrap_or(peer())));
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
