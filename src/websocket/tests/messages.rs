//! Tests of messages and their fragments.

use super::*;

#[test]
fn rfc6455_5_7_examples() {
    assert_eq!(at_every_split(&client(), &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]), text("Hello"));
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(at_every_split(&server(), &hello), text("Hello"));
    let pieces = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(at_every_split(&client(), &pieces), text("Hello"));
}

#[test]
fn messages_at_the_bounds_of_each_length_encoding() {
    let mut settings = server();
    settings.max_message = 200_000;
    let payload: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    for length in [0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, 200_000] {
        let input = [masked(0x82, &payload[..length]), masked(0x81, b"next")].concat();
        let expected = [message(Kind::Binary, &payload[..length]), text("next")].concat();
        for size in [1, 2, 3, 7, 4096, 65_536, usize::MAX] {
            assert_eq!(events(&settings, input.chunks(size)), expected, "{length} bytes in pieces of {size}");
        }
    }
}

#[test]
fn rfc6455_5_4_fragments_may_be_empty_and_enclose_control_frames() {
    let input = [
        frame(0x01, b""),
        frame(0x00, b"a\xc3"),
        frame(0x89, b"?"),
        frame(0x00, b""),
        frame(0x00, b"\xa4"),
        frame(0x8a, b"!"),
        frame(0x80, b""),
        frame(0x02, b""),
        frame(0x80, b""),
    ]
    .concat();
    let expected = [
        vec![OwnedEvent::Start(Kind::Text), OwnedEvent::Data(b"a\xc3".to_vec()), OwnedEvent::Ping(b"?".to_vec())],
        vec![OwnedEvent::Data(b"\xa4".to_vec()), OwnedEvent::Pong(b"!".to_vec(), false), OwnedEvent::End],
        message(Kind::Binary, b""),
    ]
    .concat();
    assert_eq!(at_every_split(&client(), &input), expected);
}

#[test]
fn rfc6455_5_4_interleaved_messages_and_stray_continuations_fail() {
    assert_fails(&client(), &[frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002);
    assert_fails(&client(), &[frame(0x02, b"a"), frame(0x01, b"b")].concat(), 1002);
    assert_fails(&client(), &frame(0x80, b"a"), 1002);
    assert_fails(&client(), &[frame(0x81, b"a"), frame(0x00, b"b")].concat(), 1002);
}

/// PyISY#124, aiohttp#4963: devices whose text is Latin-1.
#[test]
fn text_need_not_be_utf_8_for_a_lenient_client() {
    let lenient = WebSocketSettings { leniency: Leniency { utf8: true, mask: false }, ..client() };
    let latin = b"\x81\x05Gr\xfc\xdfe";
    assert_fails(&client(), latin, 1007);
    assert_eq!(at_every_split(&lenient, latin), message(Kind::Text, b"Gr\xfc\xdfe"));
    let pieces = [frame(0x01, b"\xc3"), frame(0x80, b"")].concat();
    assert_eq!(at_every_split(&lenient, &pieces), message(Kind::Text, b"\xc3"));
    let closed = OwnedEvent::Closed(1000, "gr\u{fffd}".into());
    assert_eq!(at_every_split(&lenient, &frame(0x88, b"\x03\xe8gr\xfc")), [closed]);
    assert_fails(&lenient, &masked(0x81, b"hi"), 1002);
}

/// arduinoWebSockets#208: a server that masks.
#[test]
fn a_server_may_mask_for_a_lenient_client() {
    let lenient = WebSocketSettings { leniency: Leniency { utf8: false, mask: true }, ..client() };
    let input = [masked(0x8a, b"pong"), masked(0x01, b"a"), frame(0x80, b"b"), frame(0x81, b"plain")].concat();
    let expected = [vec![OwnedEvent::Pong(b"pong".to_vec(), false)], text("ab"), text("plain")].concat();
    assert_eq!(at_every_split(&WebSocketSettings { control: Control::Show, ..lenient.clone() }, &input), expected);
    assert_fails(&lenient, &masked(0x81, b"\xff"), 1007);
    let server = WebSocketSettings { leniency: lenient.leniency, ..server() };
    assert_fails(&server, &frame(0x81, b"a client always masks"), 1002);
}

#[test]
fn rfc6455_5_1_masked_server_frames_and_unmasked_client_frames_fail() {
    assert_fails(&client(), &masked(0x81, b"a"), 1002);
    assert_fails(&client(), &masked(0x89, b""), 1002);
    assert_fails(&server(), &frame(0x81, b"a"), 1002);
    assert_fails(&server(), &frame(0x88, b""), 1002);
}

#[test]
fn rfc6455_5_2_reserved_bits_and_opcodes_fail() {
    for first in [0xc1, 0xa1, 0x91, 0xf2, 0xc0, 0xc9, 0x83, 0x8b, 0x0f] {
        assert_fails(&client(), &frame(first, b""), 1002);
    }
}

#[test]
fn rfc6455_5_2_lengths_are_minimal_and_below_2_to_the_63() {
    assert_fails(&client(), &[0x82, 126, 0, 1, b'a'], 1002);
    assert_fails(&client(), &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, b'a'], 1002);
    let mut settings = client();
    settings.max_message = u64::MAX;
    assert_fails(&settings, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002);
    // The largest valid length, more than any memory holds. Its message begins all the same.
    let longest = [&[0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255][..], b"and so on"].concat();
    let expected = [OwnedEvent::Start(Kind::Binary), OwnedEvent::Data(b"and so on".to_vec())];
    assert_eq!(at_every_split(&settings, &longest), expected);
}

#[test]
fn messages_beyond_the_limit_fail() {
    let mut settings = client();
    settings.max_message = 10;
    assert_eq!(at_every_split(&settings, &frame(0x82, &[7; 10])), message(Kind::Binary, &[7; 10]));
    // The header is enough: no payload is needed.
    assert_eq!(at_every_split(&settings, &frame(0x82, &[7; 11])[..2]), [OwnedEvent::Failed(1009)]);
    let pieces = [frame(0x02, &[7; 10]), frame(0x00, b""), frame(0x80, b"7")].concat();
    assert_fails(&settings, &pieces, 1009);
    // Each message has its own limit, and control frames do not count.
    let two = [frame(0x02, &[7; 9]), frame(0x89, &[0; 100]), frame(0x80, &[7; 1]), frame(0x82, &[7; 10])].concat();
    assert_eq!(at_every_split(&settings, &two).iter().filter(|events| **events == OwnedEvent::End).count(), 2);
    settings.max_message = 0;
    assert_eq!(at_every_split(&settings, &frame(0x82, b"")), message(Kind::Binary, b""));
}

#[test]
fn rfc6455_8_1_text_is_utf_8_across_its_fragments() {
    let text_of = "κόσμε 🧦";
    let bytes = text_of.as_bytes();
    for split in 0..=bytes.len() {
        let input = [frame(0x01, &bytes[..split]), frame(0x80, &bytes[split..])].concat();
        assert_eq!(at_every_split(&client(), &input), text(text_of), "split at {split}");
        // A message that ends at the split is valid only at a character boundary.
        if text_of.is_char_boundary(split) {
            assert_eq!(at_every_split(&client(), &frame(0x81, &bytes[..split])), text(&text_of[..split]));
        } else {
            assert_fails(&client(), &frame(0x81, &bytes[..split]), 1007);
        }
    }
    assert_fails(&client(), &frame(0x81, b"\xed\xa0\x80"), 1007);
    assert_fails(&client(), &[frame(0x01, b"\xf4"), frame(0x00, b"\x90")].concat(), 1007);
    // An error is detected at once, not at the end of the message.
    assert_fails(&client(), &[0x81, 126, 0x10, 0x00, 0xff], 1007);
    // Binary messages are not checked.
    assert_eq!(at_every_split(&client(), &frame(0x82, b"\xff\xc3")), message(Kind::Binary, b"\xff\xc3"));
    // A text does not continue the character that the previous one left incomplete.
    assert_fails(&client(), &[frame(0x81, "ä".as_bytes()), frame(0x81, b"\xa4")].concat(), 1007);
}

#[test]
fn complete_frames_and_messages_are_counted() {
    let start = Instant::now();
    let mut connection = Connection::new(client(), start);
    let (mut events, mut now) = (Vec::new(), start);
    let mut step = |connection: &mut Connection, bytes: &[u8]| {
        now += Duration::from_secs(1);
        feed(connection, bytes, now, &mut events);
        ((connection.last_frame() - start).as_secs(), connection.messages().received)
    };
    assert_eq!(step(&mut connection, &[0x02]), (0, 0));
    assert_eq!(step(&mut connection, &[3, b'a', b'b']), (0, 0));
    assert_eq!(step(&mut connection, b"c"), (3, 0));
    assert_eq!(step(&mut connection, &[0x8a, 1]), (3, 0));
    assert_eq!(step(&mut connection, b"!"), (5, 0));
    assert_eq!(step(&mut connection, &[0x80, 0]), (6, 1));
    assert_eq!(step(&mut connection, &frame(0x81, b"x")), (7, 2));
}
