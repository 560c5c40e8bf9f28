//! What is held is in the budget, and nothing waits for memory that others hold.

use super::*;
use crate::relay::SCRATCH_SIZE;
use crate::testing::wire::deliver_event;

/// The bound on memory for all.
const LIMIT: usize = 65_536;
/// "Hello", compressed (RFC 7692 section 7.2.3.1).
const COMPRESSED: &[u8] = &[0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

impl World {
    /// A connection, while other connections hold `others` bytes.
    fn beside(framing: Framing, others: usize) -> Self {
        Self::beside_with(framing, others, None)
    }

    /// A connection whose messages may be compressed, while other connections hold `others` bytes.
    fn compressed(framing: Framing, others: usize) -> Self {
        let deflate = Deflate {
            peer_window_bits: 15,
            peer_no_context_takeover: false,
            own_window_bits: 15,
            own_no_context_takeover: false,
        };
        Self::beside_with(framing, others, Some(deflate))
    }

    fn beside_with(framing: Framing, others: usize, deflate: Option<Deflate>) -> Self {
        let mut around = TestContext::new(MemoryBudget::new(LIMIT, LIMIT), SCRATCH_SIZE);
        around.budget.hold(others);
        let options = RelayOptions { framing, max_message: 1 << 20, receive: None, whole: false };
        Self::open(around, &options, None, deflate)
    }

    /// Each side has sent these bytes.
    fn pass(&mut self, from_plugin: &[u8], from_remote: &[u8]) {
        self.plugin.stream_mut().send_bytes(from_plugin);
        self.remote.stream_mut().send_bytes(from_remote);
        deliver_event(&mut self.plugin);
        deliver_event(&mut self.remote);
        self.turn();
        assert!(self.held() >= self.relay.to_remote.buffered());
    }

    /// Bytes in the budget besides those of others.
    fn held(&self) -> usize {
        assert_eq!(self.relay.counted, self.relay.held());
        self.relay.counted
    }
}

/// The text that Home Assistant sends for `get_states` (remote_homeassistant#226, core#36583): longer than `buffers`.
#[test]
fn a_text_that_is_longer_than_the_memory_passes_while_it_comes() {
    const LENGTH: usize = 4_449_457;
    let text: Vec<u8> = "states \u{e4}\r\n".bytes().cycle().take(LENGTH - 1).chain(*b"}").collect();
    let frame = [&[0x81, 127][..], &(LENGTH as u64).to_be_bytes(), &text, b"\x89\x00"].concat();
    let line = String::from_utf8(text.clone()).unwrap().replace("\r\n", " ") + "\n";
    for (framing, expected) in [
        (Framing::Mesg, [format!("TEXT {LENGTH}\n").as_bytes(), &text].concat()),
        (Framing::Line, line.into_bytes()),
        (Framing::Raw, text.clone()),
    ] {
        for (others, room) in [(0, usize::MAX), (0, 30_000), (4 << 20, 1000)] {
            let mut around = TestContext::new(MemoryBudget::new(4 << 20, 1 << 16), SCRATCH_SIZE);
            around.budget.hold(others);
            let options = RelayOptions { framing, max_message: 10_000_000, receive: None, whole: false };
            let mut world = World::open(around, &options, None, None);
            world.plugin.stream_mut().room = 0;
            world.remote.stream_mut().send_bytes(&frame);
            deliver_event(&mut world.remote);
            while world.plugin.stream().received.len() < expected.len() {
                let before = world.plugin.stream().received.len();
                world.plugin.stream_mut().make_room(room.min(1 << 24));
                deliver_event(&mut world.plugin);
                assert_eq!(world.turn().end, None);
                assert!(world.plugin.stream().received.len() > before, "it stands still");
                let bound = if others == 0 { HIGH_WATER + 2 * SCRATCH_SIZE } else { 2 * RESERVE };
                assert!(world.held() <= bound, "{framing:?}: {} bytes are held", world.held());
            }
            assert!(world.plugin.stream().received == expected, "{framing:?}: other bytes");
            assert_eq!(world.remote.stream().received, b"\x8a\x00", "the ping behind it");
            assert_eq!((world.held(), world.relay.messages().unwrap().received), (0, 1));
        }
    }
}

#[test]
fn a_message_of_known_length_does_not_wait_for_memory_that_others_hold() {
    for (framing, header, end) in [(Framing::Mesg, "BINA 30000\n", ""), (Framing::Line, "", "\n")] {
        let mut world = World::beside(framing, LIMIT);
        // Shorter ones than this are put together where there is memory.
        world.pass(b"", &[&b"\x82\x7e\x75\x30"[..], &[7; 20_000]].concat());
        assert!(world.plugin.stream().received == [header.as_bytes(), &[7; 20_000]].concat(), "{framing:?}");
        assert!(world.held() <= 2 * RESERVE, "{framing:?}: {} bytes are held", world.held());
        world.pass(b"", &[7; 10_000]);
        let expected = [header.as_bytes(), &[7; 30_000], end.as_bytes()].concat();
        assert!(world.plugin.stream().received == expected, "{framing:?}");
        assert_eq!(world.relay.close_reason, None);
    }
}

#[test]
fn a_long_text_that_turns_out_not_to_be_utf_8_ends_the_plugins_stream() {
    for framing in [Framing::Mesg, Framing::Line] {
        let around = TestContext::new(MemoryBudget::new(4 << 20, 1 << 16), SCRATCH_SIZE);
        let options = RelayOptions { framing, max_message: 1 << 20, receive: None, whole: false };
        let mut world = World::open(around, &options, None, None);
        world.pass(b"", &[&b"\x81\x7f\0\0\0\0\0\x02\0\0"[..], &[b'x'; 100_000]].concat());
        let begun = if framing == Framing::Mesg { "TEXT 131072\n" } else { "" };
        let begun = [begun.as_bytes(), &[b'x'; 100_000]].concat();
        assert!(world.plugin.stream().received == begun);
        world.pass(b"", b"\xff");
        assert!(
            world.plugin.stream().received == begun && world.plugin.stream().is_told(),
            "its end comes in the body"
        );
        assert_eq!(world.remote.stream().received[..4], [0x88, 2 + 19, 0x03, 0xef]);
    }
}

#[test]
fn what_a_message_that_is_put_together_takes_is_counted_once() {
    // Fragments, whose length no header announces: the rest of the memory is theirs.
    let mut world = World::beside(Framing::Mesg, LIMIT - 40_000);
    world.pass(b"", b"\x02\x00");
    for _ in 0..12 {
        world.pass(b"", &[&b"\x00\x7e\x0b\xb8"[..], &[7; 3000]].concat());
    }
    assert!((36_000..=40_000).contains(&world.held()), "{}", world.held());
    world.pass(b"", &[&b"\x00\x7e\x27\x10"[..], &[7; 10_000]].concat());
    assert_eq!(world.plugin.stream().received, b"CLOS 1009 46\nno memory for the message, buffers= is used up");
    assert_eq!(world.relay.close_reason, Some(CloseReason::NoMemory));
}

#[test]
fn an_inflater_is_counted_as_long_as_it_is_there() {
    let mut world = World::compressed(Framing::Line, 0);
    world.pass(b"", b"\x81\x05plain");
    assert_eq!(world.held(), 0);
    world.pass(b"", COMPRESSED);
    assert_eq!(world.plugin.stream().received, b"plain\nHello\n");
    assert!((32_768 + 8192..32_768 + 16_384).contains(&world.held()), "{}", world.held());
    assert_eq!(world.around.budget.held(), world.held());
    world.relay.release(&mut world.around.budget, &mut world.around.pipes);
    assert_eq!(world.around.budget.held(), 0);
}

#[test]
fn without_memory_for_an_inflater_a_compressed_message_is_refused() {
    let mut world = World::compressed(Framing::Mesg, LIMIT - 32_768);
    world.pass(b"", COMPRESSED);
    assert_eq!(world.plugin.stream().received, b"CLOS 1009 46\nno memory for the message, buffers= is used up");
    assert_eq!(world.remote.stream().received[..4], [0x88, 2, 0x03, 0xf1]);
    assert_eq!(world.held(), 0, "no inflater was made");
}

#[test]
fn without_memory_streams_go_on_in_small_pieces() {
    let mut world = World::beside(Framing::Raw, LIMIT);
    let (bytes, message) = ([7; 100_000], [&b"\x82\x7e\xff\xff"[..], &[9; 65_535]].concat());
    // Neither side reads.
    (world.plugin.stream_mut().room, world.remote.stream_mut().room) = (0, 0);
    world.pass(&bytes, &message);
    assert!(world.held() <= 4 * RESERVE, "{}", world.held());
    world.plugin.stream_mut().make_room(1 << 24);
    world.remote.stream_mut().make_room(1 << 24);
    world.pass(b"", b"");
    assert_eq!(world.plugin.stream().received, [9; 65_535]);
    assert_eq!(world.plugin.stream().read, bytes.len());
    assert_eq!(world.held(), 0);
}

#[test]
fn without_memory_half_a_message_of_the_plugin_is_refused() {
    let mut world = World::beside(Framing::Mesg, LIMIT);
    world.pass(&[&b"BINA 2000\n"[..], &[7; 2000]].concat(), b"");
    assert_eq!(world.remote.stream().received.len(), 4 + 2000, "one that fits the reserve passes");
    world.pass(&[&b"BINA 9000\n"[..], &[7; 8000]].concat(), b"");
    assert_eq!(world.plugin.stream().received, b"CLOS 1009 46\nno memory for the message, buffers= is used up");
    assert!(world.held() <= 2 * (RESERVE + 4096), "{}", world.held());
}

#[test]
fn without_memory_a_message_of_the_plugin_is_compressed_all_the_same() {
    let mut world = World::compressed(Framing::Mesg, LIMIT);
    let message = [&b"BINA 2000\n"[..], &[7; 2000]].concat();
    world.pass(&message, b"");
    assert_eq!(world.remote.stream().received[..2], [0xc2, 17]);
    // Compression itself takes no memory that counts.
    assert_eq!(world.held(), 0);
    world.remote.stream_mut().room = 0;
    world.pass(&message, b"");
    assert!((19..=14 + 2000).contains(&world.held()), "more than for the plain message: {}", world.held());
    world.remote.stream_mut().make_room(1 << 24);
    world.pass(b"", b"");
    assert_eq!((world.remote.stream().received.len(), world.held()), (2 * 19, 0));
}

#[test]
fn whole_messages_that_take_the_last_memory_are_not_refused() {
    let mut world = World::beside(Framing::Mesg, LIMIT - 50_000);
    world.remote.stream_mut().room = 0;
    let messages = [&b"BINA 1000\n"[..], &[7; 1000]].concat().repeat(49);
    world.pass(&messages, b"");
    assert!(world.around.budget.is_full() || world.relay.to_remote.buffered() > RESERVE);
    world.remote.stream_mut().make_room(1 << 24);
    world.pass(b"", b"");
    assert_eq!(world.remote.stream().received.len(), 49 * 1004);
}

#[test]
fn a_few_bytes_do_not_keep_the_memory_of_many() {
    let mut world = World::beside(Framing::Mesg, 0);
    let message = [&b"BINA 40000\n"[..], &[7; 40_000]].concat();
    world.pass(&[&message[..], b"BINA 40000\nhalf"].concat(), b"");
    assert!((15..1000).contains(&world.held()), "{}", world.held());
    world.pass(&message[15..], b"");
    assert_eq!((world.remote.stream().received.len(), world.held()), (2 * 40_004, 0));
}

#[test]
fn a_part_of_a_message_is_incomplete_unless_its_reader_is_slow() {
    let mut world = World::beside(Framing::Line, 0);
    world.pass(b"", &[&b"\x01\x7e\x13\x88"[..], &[b'x'; 5000]].concat());
    assert!(world.held() >= 5000);
    assert_eq!((world.relay.incomplete(), world.relay.reads_remote()), (world.held(), true));
    world.pass(b"", &[&b"\x80\x01x"[..], &b"\x01\x7e\x13\x88"[..], &[b'x'; 5000]].concat());
    assert_eq!(world.relay.incomplete(), world.held(), "the first was passed on");
    // The plugin takes nothing: a message waits for it, and the part behind it is not read on.
    world.plugin.stream_mut().room = 0;
    world.pass(b"", &[&b"\x80\x01x"[..], &b"\x01\x7e\x13\x88"[..], &[b'x'; 5000]].concat());
    assert_eq!((world.relay.incomplete(), world.relay.reads_remote()), (0, false));
    assert!(world.held() >= 5001);

    // What the plugin sends: the end of its line is missing, or the remote is slow.
    let mut world = World::beside(Framing::Line, 0);
    world.pass(&[b'x'; 5000], b"");
    assert!(world.relay.incomplete() >= 5000);
    world.remote.stream_mut().room = 0;
    world.pass(b"\nxxx", b"");
    assert_eq!(world.relay.incomplete(), 0);
}
