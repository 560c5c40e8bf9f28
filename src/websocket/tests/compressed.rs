//! permessage-deflate, from outside. Compressed by zlib-rs.

use flate2::{Compress, Compression, FlushCompress};

use super::*;

const AGREED: Deflate = Deflate {
    peer_window_bits: 15,
    peer_no_context_takeover: false,
    own_window_bits: 15,
    own_no_context_takeover: false,
};

fn deflate(deflate: Deflate) -> Settings {
    Settings { deflate: Some(deflate), ..client() }
}

fn agreed() -> Settings {
    deflate(AGREED)
}

fn compressor(window_bits: u8) -> Compress {
    Compress::new_with_window_bits(Compression::new(6), false, window_bits)
}

/// Compresses a message as section 7.2.1 says.
fn squeezed(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    if payload.is_empty() {
        // zlib says nothing where nothing is new; section 7.2.3.6 says this.
        return vec![0];
    }
    let mut out = Vec::with_capacity(payload.len() + 1000);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

/// Text that compresses about as sensors' messages do.
fn prose(length: usize) -> Vec<u8> {
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
    assert_eq!(at_every_split(&agreed(), &frame(0xc1, &hello)), text("Hello"));
    let pieces = [frame(0x41, &hello[..3]), frame(0x80, &hello[3..])].concat();
    assert_eq!(at_every_split(&agreed(), &pieces), text("Hello"));
    // 7.2.3.2: what came before is referred to.
    let twice = [frame(0xc1, &hello), frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00])].concat();
    assert_eq!(at_every_split(&agreed(), &twice), [text("Hello"), text("Hello")].concat());
    // 7.2.3.3: no compression.
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(at_every_split(&agreed(), &frame(0xc1, &stored)), text("Hello"));
    // 7.2.3.4: a block that says it is the last, and what comes after it.
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let input = [frame(0xc1, &last), frame(0xc1, &hello), frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00])].concat();
    assert_eq!(at_every_split(&agreed(), &input), [text("Hello"), text("Hello"), text("Hello")].concat());
    // 7.2.3.5: two blocks.
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(at_every_split(&agreed(), &frame(0xc1, &two)), text("Hello"));
    // 7.2.3.6: nothing.
    assert_eq!(
        at_every_split(&agreed(), &[frame(0xc1, &[0]), frame(0xc1, &hello)].concat()),
        [text(""), text("Hello")].concat()
    );
}

#[test]
fn what_is_not_quite_right_and_means_the_same() {
    let hello = frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    // No byte at all for an empty message; none behind a last block; a last block that is empty and stored.
    for (odd, meant) in [(&[][..], ""), (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "Hello"), (&[0x01], "")] {
        let input = [frame(0xc1, odd), hello.clone(), frame(0xc1, odd)].concat();
        assert_eq!(at_every_split(&agreed(), &input), [text(meant), text("Hello"), text(meant)].concat());
    }
}

#[test]
fn rfc7692_6_1_any_message_may_be_plain_and_control_frames_are() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let input = [frame(0x41, &hello[..2]), frame(0x89, b"?"), frame(0x80, &hello[2..]), frame(0x81, b"plain")].concat();
    // How much comes before the ping is for the inflater to say.
    let seen = at_every_split(&agreed(), &input);
    let (pings, messages): (Vec<_>, Vec<_>) = seen.into_iter().partition(|seen| matches!(seen, Seen::Ping(_)));
    assert_eq!(pings, [Seen::Ping(b"?".to_vec())]);
    let data = messages.iter().flat_map(|seen| if let Seen::Data(data) = seen { &data[..] } else { &[] });
    assert!(data.copied().eq(*b"Helloplain"));
    assert_eq!(messages.iter().filter(|seen| **seen == Seen::End).count(), 2);
}

#[test]
fn rfc7692_6_rsv1_only_where_it_may_be() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_fails(&client(), &frame(0xc1, &hello), 1002);
    assert_fails(&agreed(), &[frame(0x41, &hello[..2]), frame(0xc0, &hello[2..])].concat(), 1002);
    assert_fails(&agreed(), &frame(0xc9, b""), 1002);
    assert_fails(&agreed(), &frame(0xa1, b""), 1002);
}

#[test]
fn rfc7692_6_2_what_is_inflated_is_checked() {
    let mut compress = compressor(15);
    assert_fails(&agreed(), &frame(0xc1, &squeezed(&mut compress, b"no \xff UTF-8")), 1007);
    let mut compress = compressor(15);
    assert_fails(&agreed(), &frame(0xc1, &squeezed(&mut compress, b"an open end\xc3")), 1007);
}

#[test]
fn corrupt_messages() {
    // A block of no known type; a length that does not match; a reference to nowhere; an end inside a block.
    for payload in [&[0x06][..], &[0x00, 0x05, 0x00, 0x00, 0x00, 0x00], &[0xf2, 0x48, 0xcd, 0xc9]] {
        assert_fails(&agreed(), &frame(0xc2, payload), 1007);
    }
    let mut compress = compressor(15);
    let payload = [prose(10_000), (0..2000u32).map(|i| ((i * i) >> 3) as u8).collect(), prose(10_000)].concat();
    let far = frame(0xc2, &squeezed(&mut compress, &payload));
    assert_eq!(events(&agreed(), [&far[..]]), message(Kind::Binary, &payload));
    let narrow = deflate(Deflate { peer_window_bits: 9, ..AGREED });
    assert_eq!(events(&narrow, [&far[..]]).last(), Some(&Seen::Failed(1007)), "refers back further than agreed");
}

#[test]
fn every_window_with_and_without_takeover() {
    for bits in 8..=15 {
        for reset in [false, true] {
            let settings = deflate(Deflate { peer_window_bits: bits, peer_no_context_takeover: reset, ..AGREED });
            let mut compress = compressor(bits.max(9));
            let (mut input, mut expected) = (Vec::new(), Vec::new());
            for length in [0, 1, 100, 5000, 60_000, 100, 0, 7] {
                if reset {
                    compress.reset();
                }
                let payload = prose(length);
                let squeezed = squeezed(&mut compress, &payload);
                // In frames that know nothing of blocks.
                let (a, b) = squeezed.split_at(squeezed.len() / 3);
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
fn bombs_end_at_the_limit() {
    let mut compress = compressor(15);
    let bomb = frame(0xc2, &squeezed(&mut compress, &vec![0; 8 << 20]));
    assert!(bomb.len() < 9000, "{} bytes", bomb.len());
    let settings = Settings { max_message: 1 << 20, ..agreed() };
    let now = Instant::now();
    let mut connection = Connection::new(settings, now);
    let (mut given, mut bytes, mut at) = (0, bomb, 0);
    loop {
        let (taken, event) = connection.handle_input(&mut bytes[at..], now);
        at += taken;
        match event {
            Some(Event::Data(piece)) => {
                // A call gives no more than the window holds.
                assert!(piece.len() <= 32_768);
                given += piece.len();
            }
            Some(Event::Failed(failure)) => break assert_eq!(failure.code, 1009),
            Some(event) => assert_eq!(event, Event::Start(Kind::Binary)),
            None => panic!("it goes off"),
        }
    }
    assert!(given <= 1 << 20, "{given} bytes");
    assert!(given > (1 << 20) - 65_536, "{given} bytes");
    // Exactly the limit is within it.
    let mut compress = compressor(15);
    let most = frame(0xc2, &squeezed(&mut compress, &vec![0; 65_536]));
    assert_eq!(events(&agreed(), [&most[..]]), message(Kind::Binary, &vec![0; 65_536]));
    let mut compress = compressor(15);
    let more = frame(0xc2, &squeezed(&mut compress, &vec![0; 65_537]));
    assert_eq!(events(&agreed(), [&more[..]]).last(), Some(&Seen::Failed(1009)));
}
