//! Tests of permessage-deflate. zlib-rs compresses what is received, and inflates what is sent.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::*;

const NEGOTIATED: Deflate = Deflate {
    peer_window_bits: 15,
    peer_no_context_takeover: false,
    own_window_bits: 15,
    own_no_context_takeover: false,
};

fn deflate(deflate: Deflate) -> WebSocketSettings {
    WebSocketSettings { deflate: Some(deflate), ..client() }
}

fn negotiated() -> WebSocketSettings {
    deflate(NEGOTIATED)
}

fn compressor(window_bits: u8) -> Compress {
    Compress::new_with_window_bits(Compression::new(6), false, window_bits)
}

/// Compresses a message as RFC 7692 section 7.2.1 specifies.
fn compressed(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    if payload.is_empty() {
        // zlib writes nothing for an empty message; section 7.2.3.6 specifies this byte.
        return vec![0];
    }
    let mut out = Vec::with_capacity(payload.len() + 1000);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

/// Text that compresses about as well as the messages of sensors.
fn sample_text(length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut state = 1u32;
    while out.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(format!("{{\"sensor\":{},\"value\":{}}},", state >> 28, state >> 16).as_bytes());
    }
    out.truncate(length);
    out
}

#[test]
fn rfc7692_7_2_3_examples() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    // 7.2.3.1: one block, in one frame and in two.
    assert_eq!(at_every_split(&negotiated(), &frame(0xc1, &hello)), text("Hello"));
    let pieces = [frame(0x41, &hello[..3]), frame(0x80, &hello[3..])].concat();
    assert_eq!(at_every_split(&negotiated(), &pieces), text("Hello"));
    // 7.2.3.2: a reference to the previous message.
    let twice = [frame(0xc1, &hello), frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00])].concat();
    assert_eq!(at_every_split(&negotiated(), &twice), [text("Hello"), text("Hello")].concat());
    // 7.2.3.3: no compression.
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(at_every_split(&negotiated(), &frame(0xc1, &stored)), text("Hello"));
    // 7.2.3.4: a block that is marked as the last, and a message after it.
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let input = [frame(0xc1, &last), frame(0xc1, &hello), frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00])].concat();
    assert_eq!(at_every_split(&negotiated(), &input), [text("Hello"), text("Hello"), text("Hello")].concat());
    // 7.2.3.5: two blocks.
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(at_every_split(&negotiated(), &frame(0xc1, &two)), text("Hello"));
    // 7.2.3.6: an empty message.
    assert_eq!(
        at_every_split(&negotiated(), &[frame(0xc1, &[0]), frame(0xc1, &hello)].concat()),
        [text(""), text("Hello")].concat()
    );
}

#[test]
fn common_deviations_are_accepted() {
    let hello = frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    // No byte for an empty message; no byte after a last block; a last block that is empty and stored.
    for (odd, meant) in [(&[][..], ""), (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "Hello"), (&[0x01], "")] {
        let input = [frame(0xc1, odd), hello.clone(), frame(0xc1, odd)].concat();
        assert_eq!(at_every_split(&negotiated(), &input), [text(meant), text("Hello"), text(meant)].concat());
    }
}

#[test]
fn rfc7692_6_1_messages_may_be_plain_and_control_frames_are_plain() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let input = [frame(0x41, &hello[..2]), frame(0x89, b"?"), frame(0x80, &hello[2..]), frame(0x81, b"plain")].concat();
    // How much data comes before the ping depends on the inflater.
    let events = at_every_split(&negotiated(), &input);
    let (pings, messages): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|events| matches!(events, OwnedEvent::Ping(_)));
    assert_eq!(pings, [OwnedEvent::Ping(b"?".to_vec())]);
    let data = messages.iter().flat_map(|events| if let OwnedEvent::Data(data) = events { &data[..] } else { &[] });
    assert!(data.copied().eq(*b"Helloplain"));
    assert_eq!(messages.iter().filter(|events| **events == OwnedEvent::End).count(), 2);
}

#[test]
fn rfc7692_6_rsv1_only_on_the_first_frame_of_a_message() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_fails(&client(), &frame(0xc1, &hello), 1002);
    assert_fails(&negotiated(), &[frame(0x41, &hello[..2]), frame(0xc0, &hello[2..])].concat(), 1002);
    assert_fails(&negotiated(), &frame(0xc9, b""), 1002);
    assert_fails(&negotiated(), &frame(0xa1, b""), 1002);
}

#[test]
fn rfc7692_6_2_inflated_text_is_checked() {
    let mut compress = compressor(15);
    assert_fails(&negotiated(), &frame(0xc1, &compressed(&mut compress, b"no \xff UTF-8")), 1007);
    let mut compress = compressor(15);
    assert_fails(&negotiated(), &frame(0xc1, &compressed(&mut compress, b"an open end\xc3")), 1007);
}

#[test]
fn corrupt_messages_fail() {
    // A block of an unknown type; a length that does not match its complement; a message that ends within a block.
    for payload in [&[0x06][..], &[0x00, 0x05, 0x00, 0x00, 0x00, 0x00], &[0xf2, 0x48, 0xcd, 0xc9]] {
        assert_fails(&negotiated(), &frame(0xc2, payload), 1007);
    }
    let mut compress = compressor(15);
    let payload =
        [sample_text(10_000), (0..2000u32).map(|i| ((i * i) >> 3) as u8).collect(), sample_text(10_000)].concat();
    let far = frame(0xc2, &compressed(&mut compress, &payload));
    assert_eq!(events(&negotiated(), [&far[..]]), message(Kind::Binary, &payload));
    let narrow = deflate(Deflate { peer_window_bits: 9, ..NEGOTIATED });
    assert_eq!(
        events(&narrow, [&far[..]]).last(),
        Some(&OwnedEvent::Failed(1007)),
        "refers back further than negotiated"
    );
}

#[test]
fn every_window_with_and_without_takeover() {
    for bits in 8..=15 {
        for reset in [false, true] {
            let settings = deflate(Deflate { peer_window_bits: bits, peer_no_context_takeover: reset, ..NEGOTIATED });
            let mut compress = compressor(bits.max(9));
            let (mut input, mut expected) = (Vec::new(), Vec::new());
            for length in [0, 1, 100, 5000, 60_000, 100, 0, 7] {
                if reset {
                    compress.reset();
                }
                let payload = sample_text(length);
                let compressed = compressed(&mut compress, &payload);
                // Frames do not end at block boundaries.
                let (a, b) = compressed.split_at(compressed.len() / 3);
                input.extend([frame(0x42, a), frame(0x00, b""), frame(0x80, b)].concat());
                expected.extend(message(Kind::Binary, &payload));
            }
            for size in [1, 2, 3, 100, 4096, usize::MAX] {
                assert_eq!(events(&settings, input.chunks(size)), expected, "{bits} bits, reset {reset}, {size}");
            }
        }
    }
}

#[test]
fn inflation_ends_at_the_message_limit() {
    let mut compress = compressor(15);
    let bomb = frame(0xc2, &compressed(&mut compress, &vec![0; 8 << 20]));
    assert!(bomb.len() < 9000, "{} bytes", bomb.len());
    let settings = WebSocketSettings { max_message: 1 << 20, ..negotiated() };
    let now = Instant::now();
    let mut connection = Connection::new(settings, now);
    let (mut inflated, mut bytes, mut at) = (0, bomb, 0);
    loop {
        let (taken, event) = connection.handle_input(&mut bytes[at..], now);
        at += taken;
        match event {
            Some(Event::Data(piece)) => {
                // One call returns no more than the window holds.
                assert!(piece.len() <= 32_768);
                inflated += piece.len();
            }
            Some(Event::Failed(error)) => break assert_eq!(error.code, 1009),
            Some(event) => assert_eq!(event, Event::Start { kind: Kind::Binary, length: None }),
            None => panic!("the whole message was inflated"),
        }
    }
    assert!(inflated <= 1 << 20, "{inflated} bytes");
    assert!(inflated > (1 << 20) - 65_536, "{inflated} bytes");
    // A message of exactly the limit is accepted.
    let mut compress = compressor(15);
    let most = frame(0xc2, &compressed(&mut compress, &vec![0; 65_536]));
    assert_eq!(events(&negotiated(), [&most[..]]), message(Kind::Binary, &vec![0; 65_536]));
    let mut compress = compressor(15);
    let more = frame(0xc2, &compressed(&mut compress, &vec![0; 65_537]));
    assert_eq!(events(&negotiated(), [&more[..]]).last(), Some(&OwnedEvent::Failed(1009)));
}

/// What an end with `settings` sends of messages; `true` ends a message.
fn sent(settings: &WebSocketSettings, frames: &[(Kind, &[u8], bool)]) -> Vec<u8> {
    let mut connection = Connection::new(settings.clone(), Instant::now());
    for (kind, payload, fin) in frames {
        connection.send(*kind, payload, *fin, &mut Counting::default()).unwrap();
    }
    drain(&mut connection)
}

/// The settings of the peer of an end with `settings`.
fn peer(settings: &WebSocketSettings) -> WebSocketSettings {
    let deflate = settings.deflate.map(|deflate| Deflate {
        peer_window_bits: deflate.own_window_bits,
        peer_no_context_takeover: deflate.own_no_context_takeover,
        own_window_bits: deflate.peer_window_bits,
        own_no_context_takeover: deflate.peer_no_context_takeover,
    });
    let role = if settings.role == Role::Client { Role::Server } else { Role::Client };
    WebSocketSettings { role, deflate, max_message: 1 << 20, ..settings.clone() }
}

/// The first byte of a client's frame: FIN, RSV1 and the opcode.
const COMPRESSED_TEXT: u8 = 0xc1;

#[test]
fn what_is_sent_is_compressed_by_either_role_for_every_window() {
    for role in [Role::Client, Role::Server] {
        for (bits, own_no_context_takeover) in (8..=15).flat_map(|bits| [(bits, false), (bits, true)]) {
            let agreed = Deflate { own_window_bits: bits, own_no_context_takeover, ..NEGOTIATED };
            let settings = WebSocketSettings { role, ..deflate(agreed) };
            let texts = [sample_text(2000), sample_text(60_000), sample_text(511), sample_text(512), Vec::new()];
            let frames: Vec<_> = texts.iter().map(|text| (Kind::Text, &text[..], true)).collect();
            let bytes = sent(&settings, &frames);
            assert_eq!(bytes[0], COMPRESSED_TEXT);
            assert!(bytes.len() < 40_000, "{} bytes", bytes.len());
            let expected: Vec<_> = texts.iter().flat_map(|text| message(Kind::Text, text)).collect();
            assert_eq!(events(&peer(&settings), [&bytes[..]]), expected, "{role:?}, {bits} bits");
            assert_eq!(events(&peer(&settings), bytes.chunks(7)), expected, "{role:?}, {bits} bits");
        }
    }
}

#[test]
fn a_compressed_message_is_read_at_every_split() {
    let text = sample_text(600);
    let bytes = sent(&negotiated(), &[(Kind::Text, &text, true)]);
    assert_eq!(bytes[0], COMPRESSED_TEXT);
    assert_eq!(at_every_split(&peer(&negotiated()), &bytes), message(Kind::Text, &text));
}

#[test]
fn rfc7692_6_only_what_shrinks_and_is_in_one_frame_is_compressed() {
    let text = sample_text(4000);
    let first = |settings: &WebSocketSettings, frames: &[(Kind, &[u8], bool)]| sent(settings, frames)[0];
    assert_eq!(first(&negotiated(), &[(Kind::Binary, &text, true)]), 0xc2);
    assert_eq!(first(&client(), &[(Kind::Binary, &text, true)]), 0x82, "nothing was negotiated");
    assert_eq!(first(&negotiated(), &[(Kind::Text, &text[..511], true)]), 0x81, "short");
    let noise = testkit::random::Random::new(1).bytes(70_000);
    let plain = sent(&negotiated(), &[(Kind::Binary, &noise, true)]);
    assert_eq!((plain[0], plain.len()), (0x82, 14 + noise.len()));
    assert_eq!(events(&peer(&negotiated()), [&plain[..]]), message(Kind::Binary, &noise));
    // RSV1 is the first frame's: a message in several frames is plain, its last frame, too.
    let frames = [(Kind::Text, &text[..], false), (Kind::Text, &text[..], true), (Kind::Text, &text[..], true)];
    let bytes = sent(&WebSocketSettings { role: Role::Server, ..negotiated() }, &frames);
    assert_eq!([bytes[0], bytes[4 + 4000], bytes[2 * (4 + 4000)]], [0x01, 0x80, COMPRESSED_TEXT]);
    let settings = WebSocketSettings { role: Role::Server, ..negotiated() };
    let expected = [message(Kind::Text, &[&text[..], &text].concat()), message(Kind::Text, &text)].concat();
    assert_eq!(events(&peer(&settings), [&bytes[..]]), expected);
}

#[test]
fn compression_takes_no_more_memory_than_a_plain_message() {
    for payload in [sample_text(60_000), testkit::random::Random::new(1).bytes(60_000)] {
        let held = [client(), negotiated()].map(|settings| {
            let mut connection = Connection::new(settings, Instant::now());
            connection.send(Kind::Binary, &payload, true, &mut Counting::default()).unwrap();
            let most = connection.held();
            connection.shrink();
            (most, connection.held())
        });
        assert!(held[1].0 <= held[0].0 && held[1].1 <= held[0].1, "{held:?}");
    }
}

#[test]
fn flate2_reads_what_is_sent() {
    let text = sample_text(30_000);
    let bytes = sent(&WebSocketSettings { role: Role::Server, ..negotiated() }, &[(Kind::Text, &text, true)]);
    assert_eq!(bytes[..2], [COMPRESSED_TEXT, 126]);
    let mut out = Vec::with_capacity(text.len() + 1);
    let input = [&bytes[4..], &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
    assert!(out == text);
}
