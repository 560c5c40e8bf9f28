//! Tests of the closing handshake from either end, and of its timeouts.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn open(role: Role) -> (Connection, Instant) {
    let now = Instant::now();
    (Connection::new(WebSocketSettings { mask: false, ..settings(role) }, now), now)
}

fn events_of(connection: &mut Connection, input: &[u8], now: Instant) -> Vec<OwnedEvent> {
    let mut events = Vec::new();
    feed(connection, input, now, &mut events);
    events
}

fn closed(code: u16, reason: &str) -> OwnedEvent {
    OwnedEvent::Closed(code, reason.to_owned())
}

fn assert_sends_nothing(connection: &mut Connection) {
    let entropy = &mut Counting::default();
    assert_eq!(connection.send(Kind::Text, b"late", true, entropy), Err(ClosingError));
    assert_eq!(connection.send_ping(b"", entropy), Err(ControlFrameError::Closing));
    assert_eq!(connection.send_pong(b"", entropy), Err(ControlFrameError::Closing));
}

#[test]
fn rfc6455_5_5_1_a_close_frame_is_answered_with_its_code_and_is_the_last_event() {
    for (payload, code, reason, answer) in [
        (&b""[..], 1005, "", &b""[..]),
        (b"\x03\xe8", 1000, "", b"\x03\xe8"),
        (b"\x0f\xa0going, g\xc3\xb6ing", 4000, "going, göing", b"\x0f\xa0"),
    ] {
        let input = [frame(0x88, payload), frame(0x81, b"too late")].concat();
        assert_eq!(at_every_split(&client(), &input), [closed(code, reason)]);
        let (mut connection, now) = open(Role::Client);
        events_of(&mut connection, &input, now);
        assert_sends_nothing(&mut connection);
        assert!(!connection.is_over());
        assert_eq!(drain(&mut connection), frame(0x88, answer));
    }
}

#[test]
fn rfc6455_5_5_1_a_reason_of_123_bytes_is_reported() {
    let payload = [&b"\x03\xe8"[..], &[b'r'; 123]].concat();
    assert_eq!(at_every_split(&client(), &frame(0x88, &payload)), [closed(1000, &"r".repeat(123))]);
}

#[test]
fn rfc6455_7_4_invalid_codes_fail() {
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let payload = [&code.to_be_bytes(), &b"why\xff"[..]].concat();
        for reason in [&b""[..], b"why", b"why\xff"] {
            let input = [frame(0x88, &payload[..2 + reason.len()]), frame(0x81, b"too late")].concat();
            assert_eq!(at_every_split(&client(), &input), [OwnedEvent::InvalidClose(1002, code, reason.to_vec())]);
        }
        let (mut connection, now) = open(Role::Client);
        events_of(&mut connection, &frame(0x88, &payload), now);
        assert_sends_nothing(&mut connection);
        assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xeainvalid close code"));
    }
    for code in [1000u16, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(at_every_split(&client(), &frame(0x88, &code.to_be_bytes())), [closed(code, "")]);
    }
    assert_fails(&client(), &frame(0x88, b"\x03"), 1002);
    let not_utf8 = OwnedEvent::InvalidClose(1007, 1000, b"\xff".to_vec());
    assert_eq!(at_every_split(&client(), &frame(0x88, b"\x03\xe8\xff")), [not_utf8]);
}

#[test]
fn rfc6455_7_1_1_the_server_closes_the_transport_first() {
    let (mut connection, now) = open(Role::Client);
    events_of(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    drain(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
    assert!(connection.handle_eof());
    assert!(connection.is_over() && connection.poll_timeout().is_none());

    let (mut connection, now) = open(Role::Client);
    events_of(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    assert_eq!(connection.handle_timeout(now + 4 * SECOND), None);
    assert_eq!(connection.handle_timeout(now + 5 * SECOND), Some(ConnectionLost::NotClosed));
    assert!(connection.is_over());
    assert!(connection.handle_eof(), "the plugin has seen the end");

    let (mut connection, now) = open(Role::Server);
    events_of(&mut connection, &masked(0x88, b"\x03\xe8"), now);
    assert!(!connection.is_over());
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe8"));
    assert!(connection.is_over() && connection.poll_timeout().is_none());
}

#[test]
fn the_close_frame_is_written_after_the_peers_eof() {
    let (mut connection, now) = open(Role::Client);
    events_of(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    assert!(connection.handle_eof());
    assert!(!connection.is_over());
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe8"));
    assert!(connection.is_over());
}

#[test]
fn rfc6455_5_5_1_after_our_close_frame_nothing_is_sent_and_messages_are_received() {
    let (mut connection, now) = open(Role::Client);
    let entropy = &mut Counting::default();
    events_of(&mut connection, &frame(0x89, b"unanswered"), now);
    connection.close(1001, "bye", now, entropy);
    connection.close(1000, "again", now, entropy);
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe9bye"));
    assert_sends_nothing(&mut connection);
    let now = now + SECOND;
    let input = [frame(0x81, b"late"), frame(0x89, b"?"), frame(0x88, b"\x03\xe9")].concat();
    let expected = [text("late"), vec![OwnedEvent::Ping(b"?".to_vec()), closed(1001, "")]].concat();
    assert_eq!(events_of(&mut connection, &input, now), expected);
    assert_eq!(drain(&mut connection), b"", "both close frames are done");
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
}

#[test]
fn an_unanswered_close_frame_times_out() {
    let (mut connection, now) = open(Role::Server);
    connection.close(1000, "", now, &mut Counting::default());
    drain(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
    assert_eq!(connection.handle_timeout(now + 5 * SECOND), Some(ConnectionLost::NoCloseFrame));
    assert!(connection.is_over());
    assert_eq!(events_of(&mut connection, &masked(0x81, b"a"), now), []);
}

#[test]
fn invalid_codes_send_a_close_frame_without_a_code() {
    for code in [1005, 1006, 1015, 0, 999] {
        let (mut connection, now) = open(Role::Client);
        connection.close(code, "reason", now, &mut Counting::default());
        assert_eq!(drain(&mut connection), frame(0x88, b""), "{code}");
    }
}

#[test]
fn eof_without_a_close_frame_is_reported() {
    let (mut connection, now) = open(Role::Client);
    assert_eq!(
        events_of(&mut connection, &frame(0x81, b"all")[..3], now),
        [OwnedEvent::Start(Kind::Text), OwnedEvent::Data(b"a".to_vec())]
    );
    assert!(!connection.handle_eof());
    assert!(connection.is_over());
    let (mut connection, now) = open(Role::Client);
    connection.close(1000, "", now, &mut Counting::default());
    assert!(!connection.handle_eof());
    assert!(connection.is_over());
}

#[test]
fn rfc6455_7_1_7_a_protocol_error_is_sent_to_the_peer() {
    let (mut connection, now) = open(Role::Client);
    let input = [frame(0x89, b"?"), frame(0x83, b""), frame(0x81, b"ignored")].concat();
    assert_eq!(events_of(&mut connection, &input, now), [OwnedEvent::Ping(b"?".to_vec()), OwnedEvent::Failed(1002)]);
    assert_sends_nothing(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + SECOND));
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xeaunknown opcode"));
    assert!(!connection.is_over(), "the peer has not read the reason yet");
    assert_eq!(connection.poll_timeout(), Some(now + SECOND));
    assert!(connection.handle_eof());
    assert!(connection.is_over() && connection.poll_timeout().is_none());

    for is_read in [false, true] {
        let (mut connection, now) = open(Role::Client);
        events_of(&mut connection, &input, now);
        if is_read {
            drain(&mut connection);
        }
        assert_eq!(connection.handle_timeout(now + SECOND / 2), None);
        assert_eq!(connection.handle_timeout(now + SECOND), Some(ConnectionLost::NotClosed), "the peer does not close");
        assert!(connection.is_over() && connection.poll_timeout().is_none());
    }

    // Our close frame has been sent before the error.
    let (mut connection, now) = open(Role::Client);
    connection.close(1000, "", now, &mut Counting::default());
    drain(&mut connection);
    assert_eq!(events_of(&mut connection, &frame(0x83, b""), now), [OwnedEvent::Failed(1002)]);
    assert_eq!(drain(&mut connection), b"");
    assert!(connection.handle_eof() && connection.is_over());
}
