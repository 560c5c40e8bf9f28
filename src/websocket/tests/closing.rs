//! The closing handshake, from either end, and what goes wrong with it.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn open(role: Role) -> (Connection, Instant) {
    let now = Instant::now();
    (Connection::new(Settings { mask: false, ..settings(role) }, now), now)
}

fn fed(connection: &mut Connection, input: &[u8], now: Instant) -> Vec<Seen> {
    let mut seen = Vec::new();
    feed(connection, input, now, &mut seen);
    seen
}

fn closed(code: u16, reason: &str) -> Seen {
    Seen::Closed(code, reason.to_owned())
}

fn refuses(connection: &mut Connection) {
    let entropy = &mut Counting::default();
    assert_eq!(connection.send(Kind::Text, b"late", true, entropy), Err(Closing));
    assert_eq!(connection.send_ping(b"", entropy), Err(Refused::Closing));
    assert_eq!(connection.send_pong(b"", entropy), Err(Refused::Closing));
}

#[test]
fn rfc6455_5_5_1_a_close_is_answered_with_its_code_and_is_the_last_event() {
    for (payload, code, reason, answer) in [
        (&b""[..], 1005, "", &b""[..]),
        (b"\x03\xe8", 1000, "", b"\x03\xe8"),
        (b"\x0f\xa0going, g\xc3\xb6ing", 4000, "going, göing", b"\x0f\xa0"),
    ] {
        let input = [frame(0x88, payload), frame(0x81, b"too late")].concat();
        assert_eq!(at_every_split(&client(), &input), [closed(code, reason)]);
        let (mut connection, now) = open(Role::Client);
        fed(&mut connection, &input, now);
        refuses(&mut connection);
        assert!(!connection.is_over());
        assert_eq!(drain(&mut connection), frame(0x88, answer));
    }
}

#[test]
fn rfc6455_5_5_1_the_longest_reason() {
    let payload = [&b"\x03\xe8"[..], &[b'r'; 123]].concat();
    assert_eq!(at_every_split(&client(), &frame(0x88, &payload)), [closed(1000, &"r".repeat(123))]);
}

#[test]
fn rfc6455_7_4_codes_that_none_may_send() {
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_fails(&client(), &frame(0x88, &code.to_be_bytes()), 1002);
    }
    for code in [1000u16, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(at_every_split(&client(), &frame(0x88, &code.to_be_bytes())), [closed(code, "")]);
    }
    assert_fails(&client(), &frame(0x88, b"\x03"), 1002);
    assert_fails(&client(), &frame(0x88, b"\x03\xe8\xff"), 1007);
}

#[test]
fn rfc6455_7_1_1_a_client_leaves_the_transport_to_the_server() {
    let (mut connection, now) = open(Role::Client);
    fed(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    drain(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
    assert!(connection.handle_eof());
    assert!(connection.is_over() && connection.poll_timeout().is_none());

    let (mut connection, now) = open(Role::Client);
    fed(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    assert_eq!(connection.handle_timeout(now + 4 * SECOND), None);
    assert_eq!(connection.handle_timeout(now + 5 * SECOND), Some(Lost::Lingering));
    assert!(connection.is_over());
    assert!(connection.handle_eof(), "the plugin knows it all");

    let (mut connection, now) = open(Role::Server);
    fed(&mut connection, &masked(0x88, b"\x03\xe8"), now);
    assert!(!connection.is_over());
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe8"));
    assert!(connection.is_over() && connection.poll_timeout().is_none());
}

#[test]
fn an_answer_is_written_though_nothing_more_comes() {
    let (mut connection, now) = open(Role::Client);
    fed(&mut connection, &frame(0x88, b"\x03\xe8"), now);
    assert!(connection.handle_eof());
    assert!(!connection.is_over());
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe8"));
    assert!(connection.is_over());
}

#[test]
fn rfc6455_5_5_1_after_our_close_nothing_is_sent_and_messages_still_come() {
    let (mut connection, now) = open(Role::Client);
    let entropy = &mut Counting::default();
    fed(&mut connection, &frame(0x89, b"unanswered"), now);
    connection.close(1001, "bye", now, entropy);
    connection.close(1000, "again", now, entropy);
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xe9bye"));
    refuses(&mut connection);
    let now = now + SECOND;
    let input = [frame(0x81, b"late"), frame(0x89, b"?"), frame(0x88, b"\x03\xe9")].concat();
    let expected = [text("late"), vec![Seen::Ping(b"?".to_vec()), closed(1001, "")]].concat();
    assert_eq!(fed(&mut connection, &input, now), expected);
    assert_eq!(drain(&mut connection), b"", "both have closed");
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
}

#[test]
fn a_close_that_nobody_answers() {
    let (mut connection, now) = open(Role::Server);
    connection.close(1000, "", now, &mut Counting::default());
    drain(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + 5 * SECOND));
    assert_eq!(connection.handle_timeout(now + 5 * SECOND), Some(Lost::Unanswered));
    assert!(connection.is_over());
    assert_eq!(fed(&mut connection, &masked(0x81, b"a"), now), []);
}

#[test]
fn a_close_without_a_code_and_with_one_that_none_may_send() {
    for code in [1005, 1006, 1015, 0, 999] {
        let (mut connection, now) = open(Role::Client);
        connection.close(code, "reason", now, &mut Counting::default());
        assert_eq!(drain(&mut connection), frame(0x88, b""), "{code}");
    }
}

#[test]
fn a_transport_that_ends_without_a_close() {
    let (mut connection, now) = open(Role::Client);
    assert_eq!(
        fed(&mut connection, &frame(0x81, b"all")[..3], now),
        [Seen::Start(Kind::Text), Seen::Data(b"a".to_vec())]
    );
    assert!(!connection.handle_eof());
    assert!(connection.is_over());
    let (mut connection, now) = open(Role::Client);
    connection.close(1000, "", now, &mut Counting::default());
    assert!(!connection.handle_eof());
    assert!(connection.is_over());
}

#[test]
fn rfc6455_7_1_7_a_failure_is_told_to_the_peer() {
    let (mut connection, now) = open(Role::Client);
    let input = [frame(0x89, b"?"), frame(0x83, b""), frame(0x81, b"ignored")].concat();
    assert_eq!(fed(&mut connection, &input, now), [Seen::Ping(b"?".to_vec()), Seen::Failed(1002)]);
    refuses(&mut connection);
    assert!(!connection.is_over());
    assert_eq!(connection.poll_timeout(), Some(now + SECOND));
    assert_eq!(drain(&mut connection), frame(0x88, b"\x03\xeaunknown opcode"));
    assert!(!connection.is_over(), "it has yet to read why");
    assert_eq!(connection.poll_timeout(), Some(now + SECOND));
    assert!(connection.handle_eof());
    assert!(connection.is_over() && connection.poll_timeout().is_none());

    for is_read in [false, true] {
        let (mut connection, now) = open(Role::Client);
        fed(&mut connection, &input, now);
        if is_read {
            drain(&mut connection);
        }
        assert_eq!(connection.handle_timeout(now + SECOND / 2), None);
        assert_eq!(connection.handle_timeout(now + SECOND), Some(Lost::Lingering), "it stays");
        assert!(connection.is_over() && connection.poll_timeout().is_none());
    }

    // Ours has been sent already.
    let (mut connection, now) = open(Role::Client);
    connection.close(1000, "", now, &mut Counting::default());
    drain(&mut connection);
    assert_eq!(fed(&mut connection, &frame(0x83, b""), now), [Seen::Failed(1002)]);
    assert_eq!(drain(&mut connection), b"");
    assert!(connection.handle_eof() && connection.is_over());
}
