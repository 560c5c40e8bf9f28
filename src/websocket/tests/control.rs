//! Tests of pings, pongs and the ping timer.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn connection(control: Control) -> Connection {
    Connection::new(WebSocketSettings { control, mask: false, ..client() }, Instant::now())
}

fn events_of(connection: &mut Connection, input: &[u8]) -> Vec<OwnedEvent> {
    let mut events = Vec::new();
    feed(connection, input, Instant::now(), &mut events);
    events
}

#[test]
fn rfc6455_5_5_2_a_ping_is_answered_with_its_payload() {
    for (control, reported, answered) in
        [(Control::Auto, false, true), (Control::Show, true, true), (Control::Hand, true, false)]
    {
        for payload in [&b""[..], b"Hello", &[7; 125]] {
            let mut connection = connection(control);
            let expected = if reported { vec![OwnedEvent::Ping(payload.to_vec())] } else { Vec::new() };
            assert_eq!(events_of(&mut connection, &frame(0x89, payload)), expected);
            let expected = if answered { frame(0x8a, payload) } else { Vec::new() };
            assert_eq!(drain(&mut connection), expected);
            assert_eq!(drain(&mut connection), b"", "once");
        }
    }
}

#[test]
fn rfc6455_5_5_a_control_frame_in_pieces_is_reported_whole() {
    let input = [frame(0x89, &[7; 125]), frame(0x8a, b"pong"), frame(0x89, b"")].concat();
    let expected =
        [OwnedEvent::Ping(vec![7; 125]), OwnedEvent::Pong(b"pong".to_vec(), false), OwnedEvent::Ping(Vec::new())];
    assert_eq!(at_every_split(&client(), &input), expected);
    assert_fails(&client(), &frame(0x09, b""), 1002);
    assert_fails(&client(), &frame(0x89, &[7; 126]), 1002);
}

#[test]
fn rfc6455_5_5_3_of_many_pings_the_latest_are_answered() {
    let mut connection = connection(Control::Auto);
    events_of(&mut connection, &[frame(0x89, b"1"), frame(0x89, b"2")].concat());
    assert_eq!(drain(&mut connection), [frame(0x8a, b"1"), frame(0x8a, b"2")].concat());
    let pings: Vec<u8> = (0..100u8).flat_map(|n| frame(0x89, &[n])).collect();
    events_of(&mut connection, &pings);
    let pongs: Vec<u8> = (68..100u8).flat_map(|n| frame(0x8a, &[n])).collect();
    assert_eq!(drain(&mut connection), pongs);
}

#[test]
fn pings_of_a_peer_that_does_not_read_use_bounded_memory() {
    let mut connection = connection(Control::Auto);
    for _ in 0..10_000 {
        events_of(&mut connection, &frame(0x89, &[7; 125]));
        connection.poll_transmit(&mut Counting::default());
    }
    assert_eq!(connection.queued(), 127);
    // Once the first pong is written, the latest follow.
    events_of(&mut connection, &frame(0x89, b"last"));
    connection.handle_transmitted(126);
    connection.poll_transmit(&mut Counting::default());
    assert_eq!(connection.queued(), 1);
    connection.handle_transmitted(1);
    let pongs = drain(&mut connection);
    assert_eq!(pongs.len(), 31 * 127 + 6);
    assert!(pongs.ends_with(&frame(0x8a, b"last")));
}

#[test]
fn a_pong_to_a_ping_of_the_user_is_always_reported() {
    for control in [Control::Auto, Control::Show, Control::Hand] {
        let mut connection = connection(control);
        connection.send_ping(b"mine", &mut Counting::default()).unwrap();
        connection.send_pong(b"unasked", &mut Counting::default()).unwrap();
        assert_eq!(drain(&mut connection), [frame(0x89, b"mine"), frame(0x8a, b"unasked")].concat());
        let events =
            events_of(&mut connection, &[frame(0x8a, b"whose?"), frame(0x8a, b"mine"), frame(0x8a, b"mine")].concat());
        let answer = OwnedEvent::Pong(b"mine".to_vec(), true);
        if control == Control::Auto {
            assert_eq!(events, [answer]);
        } else {
            let unsolicited = OwnedEvent::Pong(b"mine".to_vec(), false);
            assert_eq!(events, [OwnedEvent::Pong(b"whose?".to_vec(), false), answer, unsolicited]);
        }
    }
}

#[test]
fn rfc6455_5_5_control_frames_have_at_most_125_bytes() {
    let mut connection = connection(Control::Auto);
    assert_eq!(connection.send_ping(&[0; 126], &mut Counting::default()), Err(ControlFrameError::TooLong));
    assert_eq!(connection.send_pong(&[0; 126], &mut Counting::default()), Err(ControlFrameError::TooLong));
    assert_eq!(connection.queued(), 0);
    assert_eq!(connection.send_ping(&[0; 125], &mut Counting::default()), Ok(()));
}

#[test]
fn silence_causes_a_ping_and_more_silence_the_end() {
    let start = Instant::now();
    let settings = WebSocketSettings { ping_interval: Some(10 * SECOND), mask: false, ..client() };
    let mut connection = Connection::new(settings, start);
    assert_eq!(connection.poll_timeout(), Some(start + 10 * SECOND));
    assert_eq!(connection.handle_timeout(start + 10 * SECOND), None);
    let ping = drain(&mut connection);
    assert_eq!(ping[..2], [0x89, 4]);
    // The answer is not reported, even with Control::Show.
    let mut events = Vec::new();
    feed(&mut connection, &frame(0x8a, &ping[2..]), start + 15 * SECOND, &mut events);
    assert_eq!((events, connection.poll_timeout()), (Vec::new(), Some(start + 25 * SECOND)));
    assert_eq!(connection.handle_timeout(start + 25 * SECOND), None);
    assert_ne!(drain(&mut connection), b"");
    assert_eq!(connection.handle_timeout(start + 34 * SECOND), None);
    assert_eq!(connection.handle_timeout(start + 35 * SECOND), Some(ConnectionLost::NoPong));
    assert!(connection.is_over() && connection.poll_timeout().is_none());
    assert_eq!(connection.handle_timeout(start + 100 * SECOND), None, "once");
}

#[test]
fn no_ping_is_due_while_the_caller_does_not_read() {
    let start = Instant::now();
    let mut connection = Connection::new(WebSocketSettings { ping_interval: Some(SECOND), ..client() }, start);
    connection.set_reading(false, start);
    assert_eq!((connection.poll_timeout(), connection.handle_timeout(start + 9 * SECOND)), (None, None));
    connection.set_reading(true, start + 9 * SECOND);
    assert_eq!(connection.poll_timeout(), Some(start + 10 * SECOND));
}

#[test]
fn memory_of_control_frames_is_counted() {
    let mut connection = connection(Control::Auto);
    assert_eq!(connection.held(), 0);
    events_of(&mut connection, &frame(0x89, &[7; 100])[..50]);
    assert_eq!(connection.held(), 48, "a ping that has come in part");
    events_of(&mut connection, &frame(0x89, &[7; 100])[50..]);
    events_of(&mut connection, &frame(0x81, b""));
    assert_eq!(connection.held(), 100, "its pong");
    assert!(drain(&mut connection).len() > 100 && connection.held() == 0);
    connection.send_ping(&[7; 30], &mut Counting::default()).unwrap();
    drain(&mut connection);
    assert_eq!(connection.held(), 30, "a ping of the user that waits for its pong");
    events_of(&mut connection, &frame(0x8a, &[7; 30]));
    assert_eq!(connection.held(), 0);
}
