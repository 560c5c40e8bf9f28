//! Tests of the frames that a connection sends.

use super::*;

fn sent(settings: WebSocketSettings, frames: &[(Kind, &[u8], bool)]) -> Vec<u8> {
    let mut connection = Connection::new(settings, Instant::now());
    let mut entropy = Counting::default();
    for (kind, payload, fin) in frames {
        connection.send(*kind, payload, *fin, &mut entropy).unwrap();
    }
    drain(&mut connection)
}

#[test]
fn rfc6455_5_1_a_client_masks_and_a_server_does_not() {
    let hello = [(Kind::Text, &b"Hello"[..], true)];
    assert_eq!(sent(server(), &hello), frame(0x81, b"Hello"));
    assert_eq!(sent(WebSocketSettings { mask: false, ..client() }, &hello), frame(0x81, b"Hello"));
    let masked = sent(client(), &hello);
    assert_eq!(masked[..2], [0x81, 0x85]);
    assert_eq!(masked[2..6], Counting::default().mask());
    assert_eq!(events(&server(), [&masked[..]]), text("Hello"));
    assert_eq!(
        sent(WebSocketSettings { mask: true, ..server() }, &hello),
        frame(0x81, b"Hello"),
        "a server never masks"
    );
}

#[test]
fn rfc6455_5_3_each_frame_has_a_new_masking_key() {
    let out = sent(client(), &[(Kind::Binary, b"ab", true), (Kind::Binary, b"ab", true)]);
    assert_ne!(out[2..6], out[10..14]);
}

#[test]
fn rfc6455_5_4_frames_after_the_first_are_continuations() {
    let out = sent(
        server(),
        &[(Kind::Text, b"a", false), (Kind::Binary, b"", false), (Kind::Text, b"b", true), (Kind::Binary, b"c", true)],
    );
    assert_eq!(out, [frame(0x01, b"a"), frame(0x00, b""), frame(0x80, b"b"), frame(0x82, b"c")].concat());
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let mut connection = Connection::new(server(), Instant::now());
    let entropy = &mut Counting::default();
    connection.send(Kind::Text, b"a", false, entropy).unwrap();
    connection.send_ping(b"?", entropy).unwrap();
    connection.send(Kind::Text, b"b", true, entropy).unwrap();
    assert_eq!(connection.messages(), MessageCounts { received: 0, sent: 1 });
    assert_eq!(drain(&mut connection), [frame(0x01, b"a"), frame(0x89, b"?"), frame(0x80, b"b")].concat());
}

#[test]
fn a_long_plain_frame_that_is_written_in_part_at_once_is_sent_whole() {
    let payload: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
    let expected = frame(0x82, &payload);
    let splits = (0..20).chain([5000, payload.len() - 1]).chain(payload.len() + 8..=payload.len() + 10);
    for split in splits {
        let mut connection = Connection::new(server(), Instant::now());
        let mut written = Vec::new();
        let write = &mut |header: &[u8], rest: &[u8]| {
            assert!(written.is_empty(), "one call for a frame");
            written = [header, rest].concat();
            written.truncate(split);
            written.len()
        };
        connection.send_uncopied(Kind::Binary, &payload, true, write, &mut Counting::default()).unwrap();
        assert_eq!(written.len(), split);
        assert_eq!(connection.queued(), expected.len() - split);
        written.extend(drain(&mut connection));
        assert!(written == expected, "{split} bytes written at once");
        assert_eq!(connection.messages(), MessageCounts { received: 0, sent: 1 });
    }
}

#[test]
fn what_cannot_leave_as_it_lies_is_queued() {
    let deflate = crate::websocket::Deflate {
        peer_window_bits: 15,
        peer_no_context_takeover: true,
        own_window_bits: 15,
        own_no_context_takeover: true,
    };
    let compressing = WebSocketSettings { deflate: Some(deflate), ..server() };
    for (name, settings, length, is_behind) in [
        ("it is masked", client(), 70_000, false),
        ("it is short", server(), 1000, false),
        ("another frame waits", server(), 70_000, true),
        ("it is compressed", compressing, 70_000, false),
    ] {
        let mut connection = Connection::new(settings, Instant::now());
        let entropy = &mut Counting::default();
        if is_behind {
            connection.send_ping(b"?", entropy).unwrap();
        }
        let write = &mut |_: &[u8], _: &[u8]| panic!("written at once, though {name}");
        connection.send_uncopied(Kind::Binary, &vec![b'x'; length], true, write, entropy).unwrap();
        assert!(connection.queued() > 0, "{name}");
    }
}

#[test]
fn messages_of_any_size_written_in_any_pieces_arrive_unchanged() {
    let payload: Vec<u8> = (0..70_000u32).map(|i| (i % 253) as u8).collect();
    let mut connection = Connection::new(client(), Instant::now());
    let entropy = &mut Counting::default();
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    for (round, length) in [0, 1, 125, 126, 65_535, 65_536, 5, 70_000, 0].into_iter().enumerate() {
        connection.send(Kind::Binary, &payload[..length], true, entropy).unwrap();
        expected.extend(message(Kind::Binary, &payload[..length]));
        // A part is left for the next round.
        let pending = connection.poll_transmit(entropy);
        let part = pending.len() * (round % 3) / 3;
        out.extend_from_slice(&pending[..part]);
        connection.handle_transmitted(part);
    }
    assert!(connection.queued() > 0);
    out.extend(drain(&mut connection));
    assert_eq!(events(&WebSocketSettings { max_message: 70_000, ..server() }, [&out[..]]), expected);
}

#[test]
fn an_idle_connection_is_small() {
    // The documentation of the module promises a few hundred bytes.
    let size = size_of::<Connection>();
    assert!(size <= 512, "{size} bytes");
}
