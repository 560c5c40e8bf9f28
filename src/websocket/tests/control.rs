//! Pings, pongs and silence.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn connection(control: Control) -> Connection {
    Connection::new(Settings { control, mask: false, ..client() }, Instant::now())
}

fn fed(connection: &mut Connection, input: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    feed(connection, input, Instant::now(), &mut seen);
    seen
}

#[test]
fn rfc6455_5_5_2_a_ping_is_answered_with_its_payload() {
    for (control, shown, answered) in
        [(Control::Auto, false, true), (Control::Show, true, true), (Control::Hand, true, false)]
    {
        for payload in [&b""[..], b"Hello", &[7; 125]] {
            let mut connection = connection(control);
            let expected = if shown { vec![Seen::Ping(payload.to_vec())] } else { Vec::new() };
            assert_eq!(fed(&mut connection, &frame(0x89, payload)), expected);
            let expected = if answered { frame(0x8a, payload) } else { Vec::new() };
            assert_eq!(drain(&mut connection), expected);
            assert_eq!(drain(&mut connection), b"", "once");
        }
    }
}

#[test]
fn rfc6455_5_5_a_control_frame_in_pieces_is_shown_whole() {
    let input = [frame(0x89, &[7; 125]), frame(0x8a, b"pong"), frame(0x89, b"")].concat();
    let expected = [Seen::Ping(vec![7; 125]), Seen::Pong(b"pong".to_vec(), false), Seen::Ping(Vec::new())];
    assert_eq!(at_every_split(&client(), &input), expected);
    assert_fails(&client(), &frame(0x09, b""), 1002);
    assert_fails(&client(), &frame(0x89, &[7; 126]), 1002);
}

#[test]
fn rfc6455_5_5_3_of_many_pings_the_latest_are_answered() {
    let mut connection = connection(Control::Auto);
    fed(&mut connection, &[frame(0x89, b"1"), frame(0x89, b"2")].concat());
    assert_eq!(drain(&mut connection), [frame(0x8a, b"1"), frame(0x8a, b"2")].concat());
    let pings: Vec<u8> = (0..100u8).flat_map(|n| frame(0x89, &[n])).collect();
    fed(&mut connection, &pings);
    let pongs: Vec<u8> = (68..100u8).flat_map(|n| frame(0x8a, &[n])).collect();
    assert_eq!(drain(&mut connection), pongs);
}

#[test]
fn a_peer_that_asks_and_does_not_read_fills_no_memory() {
    let mut connection = connection(Control::Auto);
    for _ in 0..10_000 {
        fed(&mut connection, &frame(0x89, &[7; 125]));
        connection.poll_transmit(&mut Counting::default());
    }
    assert_eq!(connection.queued(), 127);
    // When the first is out, the latest follow.
    fed(&mut connection, &frame(0x89, b"last"));
    connection.handle_transmitted(126);
    connection.poll_transmit(&mut Counting::default());
    assert_eq!(connection.queued(), 1);
    connection.handle_transmitted(1);
    let pongs = drain(&mut connection);
    assert_eq!(pongs.len(), 31 * 127 + 6);
    assert!(pongs.ends_with(&frame(0x8a, b"last")));
}

#[test]
fn a_pong_is_the_users_where_it_answers_the_user() {
    for control in [Control::Auto, Control::Show, Control::Hand] {
        let mut connection = connection(control);
        connection.send_ping(b"mine", &mut Counting::default()).unwrap();
        connection.send_pong(b"by itself", &mut Counting::default()).unwrap();
        assert_eq!(drain(&mut connection), [frame(0x89, b"mine"), frame(0x8a, b"by itself")].concat());
        let seen = fed(&mut connection, &[frame(0x8a, b"whose?"), frame(0x8a, b"mine"), frame(0x8a, b"mine")].concat());
        let answer = Seen::Pong(b"mine".to_vec(), true);
        if control == Control::Auto {
            assert_eq!(seen, [answer]);
        } else {
            let unasked = Seen::Pong(b"mine".to_vec(), false);
            assert_eq!(seen, [Seen::Pong(b"whose?".to_vec(), false), answer, unasked]);
        }
    }
}

#[test]
fn rfc6455_5_5_control_frames_are_short() {
    let mut connection = connection(Control::Auto);
    assert_eq!(connection.send_ping(&[0; 126], &mut Counting::default()), Err(Refused::TooLong));
    assert_eq!(connection.send_pong(&[0; 126], &mut Counting::default()), Err(Refused::TooLong));
    assert_eq!(connection.queued(), 0);
    assert_eq!(connection.send_ping(&[0; 125], &mut Counting::default()), Ok(()));
}

#[test]
fn silence_is_asked_about_and_then_it_is_over() {
    let start = Instant::now();
    let settings = Settings { ping_interval: Some(10 * SECOND), mask: false, ..client() };
    let mut connection = Connection::new(settings, start);
    assert_eq!(connection.poll_timeout(), Some(start + 10 * SECOND));
    assert_eq!(connection.handle_timeout(start + 10 * SECOND), None);
    let ping = drain(&mut connection);
    assert_eq!(ping[..2], [0x89, 4]);
    // Answered: not shown, even where pongs are.
    let mut seen = Vec::new();
    feed(&mut connection, &frame(0x8a, &ping[2..]), start + 15 * SECOND, &mut seen);
    assert_eq!((seen, connection.poll_timeout()), (Vec::new(), Some(start + 25 * SECOND)));
    assert_eq!(connection.handle_timeout(start + 25 * SECOND), None);
    assert_ne!(drain(&mut connection), b"");
    assert_eq!(connection.handle_timeout(start + 34 * SECOND), None);
    assert_eq!(connection.handle_timeout(start + 35 * SECOND), Some(Lost::Silent));
    assert!(connection.is_over() && connection.poll_timeout().is_none());
    assert_eq!(connection.handle_timeout(start + 100 * SECOND), None, "once");
}

#[test]
fn who_does_not_read_hears_no_silence() {
    let start = Instant::now();
    let mut connection = Connection::new(Settings { ping_interval: Some(SECOND), ..client() }, start);
    connection.set_reading(false, start);
    assert_eq!((connection.poll_timeout(), connection.handle_timeout(start + 9 * SECOND)), (None, None));
    connection.set_reading(true, start + 9 * SECOND);
    assert_eq!(connection.poll_timeout(), Some(start + 10 * SECOND));
}
