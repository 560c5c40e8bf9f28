//! What a turn costs, whatever is thrown at it.

use std::io;
use std::time::Instant;

use super::*;
use crate::net::socket::Stream;
use crate::relay::{SCRATCH_SIZE, TURN_BYTES};

/// A side that gives the same bytes over and over, and takes everything.
struct Endless {
    bytes: Vec<u8>,
    at: usize,
    given: usize,
    taken: usize,
}

impl Endless {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0, given: 0, taken: 0 }
    }
}

impl Stream for Endless {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for place in buffer.iter_mut() {
            *place = self.bytes[self.at];
            self.at = (self.at + 1) % self.bytes.len();
        }
        self.given += buffer.len();
        Ok(buffer.len())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.taken += bytes.len();
        Ok(bytes.len())
    }

    fn shutdown_write(&mut self) {}
}

/// A side that says something once, takes everything, and counts the calls.
#[derive(Default)]
struct Counted {
    bytes: Vec<u8>,
    reads: usize,
    writes: usize,
}

impl Stream for Counted {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let length = self.bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes.drain(..length);
        if length == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(length) }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        Ok(bytes.len())
    }

    fn shutdown_write(&mut self) {}
}

fn fresh<S>(stream: S) -> SocketEndpoint<S> {
    SocketEndpoint::new(stream, Readiness::FRESH)
}

fn new_relay(framing: Framing, now: Instant) -> WebSocketRelay {
    let deflate = Deflate {
        peer_window_bits: 12,
        peer_no_context_takeover: true,
        own_window_bits: 15,
        own_no_context_takeover: true,
    };
    let settings = WebSocketSettings {
        role: Role::Client,
        mask: true,
        control: Control::Auto,
        max_message: 65536,
        leniency: Leniency::default(),
        deflate: Some(deflate),
        ping_interval: None,
    };
    let wishes = RelayOptions { framing, max_message: 65536, receive: None, whole: false };
    WebSocketRelay::new(now, Connection::new(settings, now), &wishes, SentAhead::default(), None)
}

fn new_surroundings() -> TestContext {
    TestContext::new(MemoryBudget::new(1 << 20, 1 << 16), SCRATCH_SIZE)
}

/// Messages received and bytes sent to the remote in one turn, with a plugin and a remote that say these things without
/// end; the turn is over before they are.
#[track_caller]
fn turn_of(framing: Framing, plugin: &[u8], remote: &[u8]) -> (u64, usize) {
    let mut around = new_surroundings();
    let mut relay = new_relay(framing, around.now);
    let (mut plugin, mut remote) = (fresh(Endless::new(plugin.to_vec())), fresh(Endless::new(remote.to_vec())));
    let turn = relay.run(&mut plugin, &mut remote, &mut around.relay());
    assert_eq!((turn.again, turn.end), (true, None));
    let first = relay.messages().unwrap().received;
    // What was read and not yet looked at is looked at in the next.
    relay.run(&mut plugin, &mut remote, &mut around.relay());
    let second = relay.messages().unwrap().received - first;
    assert!(second * 2 >= first && second <= first * 2, "{first} messages, then {second}");
    (first, remote.stream().taken)
}

/// The frame of a compressed text.
fn compressed(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut compress = flate2::Compress::new_with_window_bits(flate2::Compression::best(), false, 12);
    compress.compress_vec(text, &mut bytes, flate2::FlushCompress::Sync).unwrap();
    bytes.truncate(bytes.len() - 4);
    let length = u8::try_from(bytes.len()).ok().filter(|&length| length < 126).expect("a short frame");
    [&[0xc1, length], &bytes[..]].concat()
}

#[test]
fn bytes_that_are_inflated_to_nothing_for_the_plugin_cost_their_share() {
    // 64 KiB each. In LINE framing, the plugin reads one byte of it.
    let (messages, _) = turn_of(Framing::Line, b"", &compressed(&[b'\n'; 65536]));
    assert!((1..=TURN_BYTES as u64 / 65536).contains(&messages), "{messages} messages");
}

#[test]
fn messages_without_bytes_cost_their_share() {
    for frame in [&[0xc1, 1, 0][..], &[0x81, 0]] {
        let (messages, _) = turn_of(Framing::Line, b"", frame);
        assert!((100..=TURN_BYTES as u64 / MESSAGE_COST as u64).contains(&messages), "{messages} messages");
    }
}

/// Frames that one turn takes from a remote that sends `first` and then `again` without end.
#[track_caller]
fn frames_in_a_turn(first: &[u8], again: &[u8]) -> usize {
    let mut around = new_surroundings();
    let mut relay = new_relay(Framing::Mesg, around.now);
    let (mut plugin, mut remote) = (fresh(Counted::default()), fresh(Counted::default()));
    remote.stream_mut().bytes = first.to_vec();
    relay.run(&mut plugin, &mut remote, &mut around.relay());
    let mut remote = fresh(Endless::new(again.to_vec()));
    let turn = relay.run(&mut plugin, &mut remote, &mut around.relay());
    assert_eq!((turn.again, turn.end), (true, None));
    (remote.stream().given - relay.to_plugin.undecoded.len()) / again.len()
}

/// Regression: frames that caused no event cost nothing but their two bytes, so that a hostile server had turns of
/// 131072 of them.
#[test]
fn frames_without_an_event_cost_their_share() {
    for (first, again) in [
        (&b""[..], &[0x89, 0][..]),                    // pings
        (b"", &[0x8a, 0]),                             // unsolicited pongs
        (b"", &[0x8a, 1, b'x']),                       // longer ones
        (&[0x01, 0], &[0x00, 0]),                      // fragments
        (&[0x01, 0], &[0x00, 1, b'x']),                // fragments of a byte
        (&[0x41, 0], &[0x00, 0]),                      // compressed fragments
        (&[0x41, 0], &[0x00, 5, 0, 0, 0, 0xff, 0xff]), // empty blocks
    ] {
        let frames = frames_in_a_turn(first, again);
        assert!((100..=TURN_BYTES / MESSAGE_COST).contains(&frames), "{frames} frames of {again:x?}");
    }
}

#[test]
fn what_a_plugin_says_without_bytes_costs_its_share() {
    // Each is a frame of six bytes.
    for said in ["PING 0\n", "TEXT 0\n"] {
        let (_, sent) = turn_of(Framing::Mesg, said.as_bytes(), b"");
        assert!((600..=2 * 6 * TURN_BYTES / MESSAGE_COST).contains(&sent), "{said}: {sent} bytes in two turns");
    }
}

#[test]
fn a_message_of_64_kib_takes_one_call_a_side() {
    for framing in [Framing::Mesg, Framing::Raw] {
        let header = if framing == Framing::Mesg { "BINA 65536\n" } else { "" };
        let says = |header: &[u8]| fresh(Counted { bytes: [header, &[b'x'; 65536]].concat(), ..Counted::default() });
        let mut around = new_surroundings();
        let (mut relay, mut plugin, mut remote) =
            (new_relay(framing, around.now), says(header.as_bytes()), fresh(Counted::default()));
        relay.run(&mut plugin, &mut remote, &mut around.relay());
        assert_eq!((plugin.stream().reads, remote.stream().writes), (1, 1), "up, {framing:?}");
        let mut around = new_surroundings();
        let (mut relay, mut plugin) = (new_relay(framing, around.now), fresh(Counted::default()));
        let mut remote = says(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        relay.run(&mut plugin, &mut remote, &mut around.relay());
        assert_eq!((remote.stream().reads, plugin.stream().writes), (1, 1), "down, {framing:?}");
    }
}
